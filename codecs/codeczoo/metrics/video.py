"""Measures of video, x and x_hat (B, C, T, H, W) in [0, 1]; one value per clip, average them over clips yourself."""

from collections.abc import Callable

import torch
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.metrics import image
from codeczoo.nn.frames import as_frames
from codeczoo.nn.stream import before

BLOCK = 16  # frames that are measured at once: a whole clip of SSIM's maps would take ten times the clip


def psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean over the frames of their PSNR in dB, each at most 100, float32 (B,). Raises InputError."""
    return over_frames(image.psnr, x, x_hat)


def ssim(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean over the frames of their SSIM, float32 (B,); H and W at least 6. Raises InputError."""
    return over_frames(image.ssim, x, x_hat)


def flicker(x: Tensor, x_hat: Tensor) -> Tensor:
    """How much the error changes from frame to frame, in levels of 8 bits, float32 (B,); NaN for a single frame.

    With e = 255 (x_hat - x): the mean of |e[t] - e[t - 1]| over all pixels, channels and t >= 1. 0 where the error
    stands still (blur of a still scene, a shift of colour), however large it is; noise of standard deviation s that is
    new in every frame gives 1.13 s.
    Source: VBench (Huang et al. 2023), temporal flickering: the mean absolute difference of neighbouring frames.
    Differs: of the error and not of the video, so the motion of the original does not count.
    """
    _check(x, x_hat)
    if x.shape[2] < 2:
        return x.new_full((len(x),), torch.nan, dtype=torch.float32)
    total = x.new_zeros(len(x), dtype=torch.float32)
    for a, b in zip(_blocks(x, overlap=1), _blocks(x_hat, overlap=1), strict=True):
        total += (b.float() - a.float()).diff(dim=2).abs().flatten(1).sum(1)
    return 255 * total / (x[0, :, 1:].numel())


def over_frames(
    measure: Callable[[Tensor, Tensor], Tensor], x: Tensor, x_hat: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """Mean over the frames of a measure of pictures, (B,). Raises InputError for shapes that differ.

    Args:
        measure: x, x_hat (n, C, H, W) to (n,).
        x, x_hat: (B, C, T, H, W).
        lengths: int64 (B,), how many frames of each clip count; None: all.
    """
    _check(x, x_hat)
    pairs = zip(_blocks(x), _blocks(x_hat), strict=True)
    found = torch.cat([measure(as_frames(a), as_frames(b)).view(len(x), -1) for a, b in pairs], 1)  # (B, T)
    if lengths is None:
        return found.mean(1)
    return torch.where(before(lengths, x.shape[2]), found, 0.0).sum(1) / lengths


def _check(x: Tensor, x_hat: Tensor) -> None:
    if x.shape != x_hat.shape:
        raise InputError(f"clips to compare differ in shape: {tuple(x.shape)} and {tuple(x_hat.shape)}")
    if x.ndim != 5 or not x.numel():
        raise InputError(f"this measure takes (B, C, T, H, W), got {tuple(x.shape)}")


def _blocks(x: Tensor, overlap: int = 0) -> list[Tensor]:
    """Cut in time, (B, C, t, H, W) each; a block begins with the last `overlap` frames of the one before."""
    return [x[:, :, i : i + BLOCK + overlap] for i in range(0, x.shape[2] - overlap, BLOCK)]

