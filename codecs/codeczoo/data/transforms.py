"""What happens to a picture or clip between the file and the batch: uint8 in, uint8 out, to all frames the same.

Randomness comes from the generator alone.

Source: bytedance/1d-tokenizer (TiTok, TA-TiTok, One-D-Piece): shorter side to 256 bicubic antialiased, random crop,
horizontal flip; evaluation: the same resize and a centre crop. Sizes and offsets round as in torchvision.
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Protocol

import torch
from torch import Generator, Tensor

from codeczoo.core.errors import InputError
from codeczoo.data.sampling import integer, uniform
from codeczoo.io.image import resize


class Transform(Protocol):
    """uint8 (3, H, W) or (3, T, H, W) to the same of another size. Raises InputError for what it refuses: skipped."""

    def __call__(self, image: Tensor, random: Generator) -> Tensor: ...


class Chain:
    """Transforms one after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = transforms

    def __call__(self, image: Tensor, random: Generator) -> Tensor:
        for transform in self.transforms:
            image = transform(image, random)
        return image


class ResizeShorter:
    """Shorter side to `size` pixels, aspect ratio kept (the longer side is rounded down)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Tensor, random: Generator) -> Tensor:
        h, w = image.shape[-2:]
        shorter = min(h, w)
        return _resized(image, (self.size * h // shorter, self.size * w // shorter))


class CentreCrop:
    """The middle `size` x `size` pixels."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Tensor, random: Generator) -> Tensor:
        spare_h, spare_w = _spare(image, self.size)
        return _cut(image, round(spare_h / 2), round(spare_w / 2), self.size, self.size)


class RandomCrop:
    """`size` x `size` pixels, every place alike probable."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Tensor, random: Generator) -> Tensor:
        spare_h, spare_w = _spare(image, self.size)
        top, left = integer(spare_h + 1, random), integer(spare_w + 1, random)
        return _cut(image, top, left, self.size, self.size)


class RandomResizedCrop:
    """A random part of the picture, resized to `size` x `size`.

    Differs: from torchvision, which tries ten times and then falls back to the centre: a part that is too wide or too
    high is cut to the picture.

    Args:
        size: pixels.
        scale: least and most share of the area, in (0, 1].
        ratio: least and most width / height of the part, drawn evenly in the logarithm.
    """

    def __init__(
        self, size: int, scale: tuple[float, float] = (0.8, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise InputError(f"RandomResizedCrop wants ascending scale in (0, 1] and ratio > 0, got {scale}, {ratio}")
        self.size, self.scale, self.ratio = size, scale, ratio

    def __call__(self, image: Tensor, random: Generator) -> Tensor:
        h, w = image.shape[-2:]
        area = h * w * uniform(self.scale[0], self.scale[1], random)
        ratio = exp(uniform(log(self.ratio[0]), log(self.ratio[1]), random))
        part_h, part_w = min(h, max(1, round(sqrt(area / ratio)))), min(w, max(1, round(sqrt(area * ratio))))
        top, left = integer(h - part_h + 1, random), integer(w - part_w + 1, random)
        return _resized(_cut(image, top, left, part_h, part_w), (self.size, self.size))


class Flip:
    """Left and right exchanged with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise InputError(f"Flip wants p in 0..1, got {p}")
        self.p = p

    def __call__(self, image: Tensor, random: Generator) -> Tensor:
        return image.flip(-1) if uniform(0, 1, random) < self.p else image


class AspectFilter:
    """Refuses pictures that are too narrow or too small; they are skipped and counted.

    Source: TA-TiTok trains on DataComp pictures with max_aspect 2 and min_longer 256.

    Args:
        max_aspect: most longer side / shorter side.
        min_longer: least longer side, pixels.
    """

    def __init__(self, max_aspect: float = 2.0, min_longer: int = 256) -> None:
        self.max_aspect, self.min_longer = max_aspect, min_longer

    def __call__(self, image: Tensor, random: Generator) -> Tensor:
        shorter, longer = sorted(image.shape[-2:])
        if longer > self.max_aspect * shorter or longer < self.min_longer:
            allowed = f"aspect <= {self.max_aspect}, longer side >= {self.min_longer}"
            raise InputError(f"sides of {shorter} and {longer} pixels are filtered out; allowed: {allowed}")
        return image


def training_recipe(size: int) -> Chain:
    """The published training augmentation at `size` pixels."""
    return Chain([ResizeShorter(size), RandomCrop(size), Flip()])


def validation_recipe(size: int) -> Chain:
    """The published evaluation preprocessing at `size` pixels."""
    return Chain([ResizeShorter(size), CentreCrop(size)])


def _spare(image: Tensor, size: int) -> tuple[int, int]:
    h, w = image.shape[-2:]
    if min(h, w) < size:
        raise InputError(f"a {h}x{w} picture has no {size}x{size} crop; put ResizeShorter before it")
    return h - size, w - size


def _cut(image: Tensor, top: int, left: int, h: int, w: int) -> Tensor:
    return image[..., top : top + h, left : left + w]


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(image, size) if image.ndim == 3 else torch.stack([resize(x, size) for x in image.unbind(1)], 1)
