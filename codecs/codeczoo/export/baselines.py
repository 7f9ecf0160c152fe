"""JPEG, WebP and AVIF at the bytes of a token file, for comparison."""

from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from codeczoo.core.errors import InputError, MissingError
from codeczoo.io import image
from codeczoo.metrics.image import psnr

SCALES = (1, 2, 4, 8)  # a tiny budget is best spent on a smaller picture


@dataclass(frozen=True)
class Baseline:
    """A file format of Pillow with a quality from `low` to `high`, for sides of at most so many pixels."""

    format: str
    low: int
    high: int
    side: int


BASELINES = {
    "jpeg": Baseline("JPEG", 1, 95, 65_500), "webp": Baseline("WEBP", 0, 100, 16_383),
    "avif": Baseline("AVIF", 0, 100, 65_535),
}


class Coded(NamedTuple):
    """A picture after a baseline: x_hat (3, H, W) in [0, 1], whole file's bytes, 1 / scale, PSNR in dB."""

    x_hat: Tensor
    bytes: int
    shrunk: int
    psnr: float


def at_bytes(x: Tensor, baseline: Baseline, budget: int) -> Coded:
    """The best picture (by PSNR) in a file of at most `budget` bytes; the smallest file when none is small enough.

    Tries the picture at full, half, quarter and eighth size (resized back by the same bicubic filter), each at the
    highest quality that fits.

    Args:
        x: (3, H, W) in [0, 1].
        baseline: what codes it.
        budget: bytes of the whole file.

    Raises:
        MissingError: Pillow was built without the format.
        InputError: a picture that is too long for it.
    """
    if not features.check(baseline.format.lower().replace("jpeg", "jpg")):
        raise MissingError(f"this Pillow writes no {baseline.format}: pip install --upgrade pillow")
    pixels = (x * 255).round().to(torch.uint8)
    sides = pixels.shape[1:]
    scales = [shrunk for shrunk in SCALES if min(sides) >= shrunk and max(sides) // shrunk <= baseline.side]
    if not scales:
        raise InputError(f"{baseline.format} holds no picture of {sides[0]} x {sides[1]} pixels, nor an eighth of it")
    tries = [_best(pixels, baseline, budget, shrunk) for shrunk in scales]
    fitting = [t for t in tries if t.bytes <= budget]
    return max(fitting, key=lambda t: t.psnr) if fitting else min(tries, key=lambda t: t.bytes)


def _best(pixels: Tensor, baseline: Baseline, budget: int, shrunk: int) -> Coded:
    """At one size, the highest quality whose file fits, else the lowest quality."""
    height, width = pixels.shape[1:]
    small = image.resize(pixels, (height // shrunk, width // shrunk))
    picture = Image.fromarray(np.ascontiguousarray(small.permute(1, 2, 0).numpy()))  # (H, W, 3)
    low, high = baseline.low, baseline.high
    data = _coded(picture, baseline, low)
    while low < high:
        middle = (low + high + 1) // 2
        candidate = _coded(picture, baseline, middle)
        if len(candidate) <= budget:
            low, data = middle, candidate
        else:
            high = middle - 1
    x_hat = image.resize(image.read(data), (height, width)).float() / 255
    return Coded(x_hat, len(data), shrunk, float(psnr(pixels[None].float() / 255, x_hat[None])))


def _coded(picture: Image.Image, baseline: Baseline, quality: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, baseline.format, quality=quality, optimize=True)
    return buffer.getvalue()
