"""Sines and cosines for positions on a grid and for points in time."""

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError


def speeds(n: int, period: float) -> Tensor:
    """Angles per step, falling from 1 towards 1 / period, float64 (n,)."""
    return period ** (-torch.arange(n, dtype=torch.float64) / n)


def sincos_grid(rows: int, columns: int, width: int, period: float = 1e4) -> Tensor:
    """What tells the places of a grid apart, float32 (rows * columns, width), row after row.

    A quarter of the channels each: sine and cosine of the row, sine and cosine of the column. Raises ConfigError unless
    the width is a multiple of 4.
    """
    if width % 4:
        raise ConfigError(f"sine and cosine positions want a multiple of 4 channels, got {width}")
    at = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))  # (rows * columns, 2)
    angles = at[:, :, None] * speeds(width // 4, period)  # (rows * columns, 2, width / 4)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1).float()


def sincos_time(t: Tensor, width: int, period: float) -> Tensor:
    """t (...) to cosines and sines of it at width / 2 speeds, float32 (..., width)."""
    angles = t.double()[..., None] * speeds(width // 2, period).to(t.device)
    return torch.cat([angles.cos(), angles.sin()], -1).float()
