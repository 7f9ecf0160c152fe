"""Clips as batches of frames."""

import torch
from torch import Tensor


def as_frames(x: Tensor) -> Tensor:
    """Clips (B, C, T, H, W) to their frames (B * T, C, H, W), those of one clip one after the other."""
    return x.transpose(1, 2).flatten(0, 1)  # (B * T, C, H, W)


def draw_frames(x: Tensor, count: int) -> Tensor:
    """Which `count` frames of each clip (B, C, T, H, W) to look at, int64 (B, count), or (B, T) where T is less.

    Drawn for each clip by torch's generator on the processor, without repeats, in no order.
    """
    batch, length = x.shape[0], x.shape[2]
    return torch.rand(batch, length).argsort(1)[:, :count].to(x.device)


def take_frames(x: Tensor, which: Tensor) -> Tensor:
    """Frames `which` (B, n) of clips (B, C, T, H, W), (B * n, C, H, W)."""
    rows = torch.arange(len(x), device=x.device)[:, None]
    return x.transpose(1, 2)[rows, which].flatten(0, 1)  # (B * n, C, H, W)
