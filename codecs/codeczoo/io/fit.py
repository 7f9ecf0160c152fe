"""Pictures of any size to the one size that a codec takes, and back.

All geometry follows from what `Fit` records, so that a file means the same on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import FormatError, InputError

MAX_SIDE = 2**17
MAX_PIXELS = 2**28  # More than Pillow reads. A hostile file may not ask for more memory than a picture can.
Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """How a picture was brought to the codec's size; plain values, kept in the token file.

    Args:
        mode: one of MODES.
        original: (H, W) of the picture, pixels.
        size: (h, w) that the codec takes, pixels.
        overlap: least overlap of neighbouring tiles, pixels down and across; (0, 0) for the other modes.
    """

    mode: str
    original: Size
    size: Size
    overlap: Size = (0, 0)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"fit must be one of {', '.join(MODES)}, got {self.mode!r}")
        (height, width), (h, w) = self.original, self.size
        sides = (height, width, h, w)
        if min(sides) < 1 or max(sides) > MAX_SIDE or height * width > MAX_PIXELS:
            limits = f"sides must be 1..{MAX_SIDE} and the picture at most {MAX_PIXELS} pixels"
            raise InputError(f"cannot fit {height}x{width} pixels to {h}x{w}: {limits}")
        if not (0 <= self.overlap[0] <= h // 2 and 0 <= self.overlap[1] <= w // 2):
            raise InputError(f"tiles of {h}x{w} cannot overlap by {self.overlap}; allowed: up to half")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON header; `from_dict` is the inverse."""
        values = {"mode": self.mode, "original": list(self.original), "size": list(self.size)}
        return values | ({"overlap": list(self.overlap)} if any(self.overlap) else {})

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Fit":
        """Raises FormatError when `values` is not what `to_dict` made."""
        try:
            pairs = {k: _pair(values[k]) for k in ("original", "size", "overlap") if k != "overlap" or k in values}
            return Fit(mode=values["mode"], **pairs)
        except (TypeError, KeyError, ValueError) as error:
            raise FormatError(f"not a Fit: {error}") from None


def _pair(value: Any) -> Size:
    if not (isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)):
        raise ValueError(f"{value!r} is not two whole numbers")
    return value[0], value[1]


def fit(image: Tensor, size: Size, mode: str = "resize") -> tuple[Tensor, Fit]:
    """Brings a picture to the codec's size.

    Modes:
        resize: both sides to `size`. Nothing is lost, but the shape is.
        crop: the largest central part of the codec's shape (shorter side in full). What is outside is lost.
        pad: the longer side to `size`, the rest repeats the last row and column.
        tile: pieces at the picture's own scale that overlap by at least an eighth; smaller pictures are padded.

    Args:
        image: uint8 (3, H, W).
        size: (h, w), pixels.
        mode: one of MODES.

    Returns:
        x float (n, 3, h, w) in [0, 1], n > 1 only for tiles, and what `unfit` needs.

    Raises:
        InputError: an unknown mode, or not a picture.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        dtype = str(image.dtype).removeprefix("torch.")
        raise InputError(f"fit takes uint8 (3, H, W), got {dtype} {tuple(image.shape)}")
    overlap = (size[0] // 8, size[1] // 8) if mode == "tile" else (0, 0)
    plan = Fit(mode, (image.shape[1], image.shape[2]), (size[0], size[1]), overlap)
    return MODES[mode].fit(image, plan).float() / 255, plan


def unfit(x_hat: Tensor, plan: Fit) -> Tensor:
    """The picture back at its original size, float (3, H, W) in [0, 1]; for mode crop what was kept, at its own scale.

    Args:
        x_hat: float (n, 3, h, w) in [0, 1], all n pieces that `fit` made.
        plan: from `fit`.

    Raises:
        InputError: another number or size of pieces than `plan` says.
    """
    n = MODES[plan.mode].pieces(plan)
    if tuple(x_hat.shape) != (n, 3, *plan.size):
        raise InputError(f"{plan.mode} to {plan.size} wants decoded {(n, 3, *plan.size)}, got {tuple(x_hat.shape)}")
    return MODES[plan.mode].unfit(x_hat.float(), plan).clamp(0, 1)


def resize(image: Tensor, size: Size) -> Tensor:
    """The one fixed resize, uint8 (3, H, W) to uint8 (3, h, w): bicubic, antialiased, Pillow's fixed-point arithmetic.

    Differs: torch's own uint8 resize is 2.5 times faster but wrong by up to 24 levels below 4 columns (torch 2.11).
    """
    return _resample(image, size, (0, 0, image.shape[2], image.shape[1]))


def _resample(image: Tensor, size: Size, box: tuple[float, float, float, float]) -> Tensor:
    """The region `box` (left, top, right, bottom, pixels) of a picture at another size."""
    if tuple(image.shape[1:]) == tuple(size) and box == (0, 0, size[1], size[0]):
        return image
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    resized = pixels.resize((size[1], size[0]), Image.Resampling.BICUBIC, box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)  # (3, h, w)


def _resize_back(x_hat: Tensor, size: Size) -> Tensor:
    """float (3, h, w) to float (3, H, W): no rounding to 8 bit in between."""
    if tuple(x_hat.shape[1:]) == size:
        return x_hat
    return F.interpolate(x_hat[None], size, mode="bicubic", antialias=True)[0]


def _pad(image: Tensor, size: Size) -> Tensor:
    """(3, H, W) to at least `size` by repeating the last row and column."""
    height, width = image.shape[1:]
    rows = torch.arange(max(height, size[0])).clamp(max=height - 1)
    columns = torch.arange(max(width, size[1])).clamp(max=width - 1)
    return image[:, rows][:, :, columns]


def _resize_fit(image: Tensor, plan: Fit) -> Tensor:
    return resize(image, plan.size)[None]


def _resize_unfit(x_hat: Tensor, plan: Fit) -> Tensor:
    return _resize_back(x_hat[0], plan.original)


def _central(plan: Fit) -> tuple[float, float]:
    """Height and width of the largest part of the picture that has the shape of `plan.size`."""
    (height, width), (h, w) = plan.original, plan.size
    return (height, height * w / h) if height * w <= width * h else (width * h / w, width)


def _crop_fit(image: Tensor, plan: Fit) -> Tensor:
    kept_height, kept_width = _central(plan)
    top, left = (plan.original[0] - kept_height) / 2, (plan.original[1] - kept_width) / 2
    # One resample of the part alone: resizing the whole first would make a gigapixel picture of a 1 x 100000 strip.
    return _resample(image, plan.size, (left, top, left + kept_width, top + kept_height))[None]


def _crop_unfit(x_hat: Tensor, plan: Fit) -> Tensor:
    height, width = (max(1, round(side)) for side in _central(plan))
    return _resize_back(x_hat[0], (height, width))


def _contained(plan: Fit) -> Size:
    """The largest size of the picture's own shape inside `plan.size`, rounded half up."""
    (height, width), (h, w) = plan.original, plan.size
    if height * w >= width * h:
        return h, max(1, (2 * width * h + height) // (2 * height))
    return max(1, (2 * height * w + width) // (2 * width)), w


def _pad_fit(image: Tensor, plan: Fit) -> Tensor:
    return _pad(resize(image, _contained(plan)), plan.size)[None]


def _pad_unfit(x_hat: Tensor, plan: Fit) -> Tensor:
    height, width = _contained(plan)
    return _resize_back(x_hat[0, :, :height, :width], plan.original)


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles that overlap by at least `overlap` begin along an axis: as few as reach the end, evenly spread."""
    n = 1 + -(-(length - tile) // (tile - overlap))
    return [i * (length - tile) // max(1, n - 1) for i in range(n)]


def _places(plan: Fit) -> list[Size]:
    """Where tiles begin, down and across."""
    down, across = (
        starts(max(length, tile), tile, overlap)
        for length, tile, overlap in zip(plan.original, plan.size, plan.overlap, strict=True)
    )
    return [(top, left) for top in down for left in across]


def _tile_fit(image: Tensor, plan: Fit) -> Tensor:
    h, w = plan.size
    padded = _pad(image, plan.size)
    return torch.stack([padded[:, t : t + h, u : u + w] for t, u in _places(plan)])


def _tile_unfit(x_hat: Tensor, plan: Fit) -> Tensor:
    """Weighted mean of the tiles: each weight rises smoothly from an edge over the overlap, so no seam shows."""
    h, w = plan.size
    window = ramp(h, plan.overlap[0])[:, None] * ramp(w, plan.overlap[1])  # (h, w)
    total = x_hat.new_zeros(4, max(plan.original[0], h), max(plan.original[1], w))
    window = window.to(x_hat)
    for tile, (t, u) in zip(x_hat, _places(plan), strict=True):
        total[:3, t : t + h, u : u + w] += tile * window
        total[3, t : t + h, u : u + w] += window
    return (total[:3] / total[3])[:, : plan.original[0], : plan.original[1]]


def _tile_pieces(plan: Fit) -> int:
    return len(_places(plan))


def ramp(length: int, overlap: int) -> Tensor:
    """Weights of a tile along an axis, float64 (length,): they rise smoothly from both edges over the overlap."""
    from_edge = torch.arange(length, dtype=torch.float64) + 0.5
    from_edge = torch.minimum(from_edge, from_edge.flip(0))
    return torch.sin((from_edge / max(overlap, 0.5)).clamp(max=1) * (pi / 2)) ** 2


class Mode(NamedTuple):
    """One way to fit: its two directions, and how many pieces it makes."""

    fit: Callable[[Tensor, Fit], Tensor]
    unfit: Callable[[Tensor, Fit], Tensor]
    pieces: Callable[[Fit], int] = lambda plan: 1


MODES = {
    "resize": Mode(_resize_fit, _resize_unfit),
    "crop": Mode(_crop_fit, _crop_unfit),
    "pad": Mode(_pad_fit, _pad_unfit),
    "tile": Mode(_tile_fit, _tile_unfit, _tile_pieces),
}
