"""Between latents with channels first, (B, C, *S), and rows (n, C), one a position."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from codeczoo.core.errors import InputError


def rows(z: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """z (B, D, *S) as float32 rows (n, D), 0 where masked, and which count, bool (n,). Raises InputError."""
    x = z.float().reshape(*z.shape[:2], math.prod(z.shape[2:]))  # (B, D, L)
    x = rearrange(_swapped(x), "b l d -> (b l) d")
    check_mask(z, valid)
    if valid is None:
        return x, None
    keep = valid.reshape(-1)
    return torch.where(keep[:, None], x, 0.0), keep  # not a product: padding may hold NaN


def grid(flat: Tensor, like: Tensor) -> Tensor:
    """Rows (n, C) to (B, C, *S), with B and *S of `like` (B, ?, *S)."""
    b, length = like.shape[0], math.prod(like.shape[2:])
    return _swapped(flat.view(b, length, flat.shape[1])).view(b, flat.shape[1], *like.shape[2:])


def by_channel(x: Tensor) -> Tensor:
    """The same rows (n, C), each channel in one piece of memory: steps with constants (C,) are faster for small C."""
    return x if torch.compiler.is_compiling() else x.t().contiguous().t()


def check_width(x: Tensor, width: int, what: str) -> None:
    """Raises InputError unless rows x (n, C) are of so many channels or codebooks; else they would broadcast."""
    if x.shape[1] != width:
        raise InputError(f"{what}: wanted {width}, got {x.shape[1]}")


def whole_numbers(values: Sequence[int], device: torch.device) -> Tensor:
    """They as int64 (n,), made on the device: it need not wait for a copy."""
    return torch.cat([torch.full((1,), value, dtype=torch.int64, device=device) for value in values])


def exporting() -> bool:
    """Whether torch.export is at work. What torch.compiler.is_exporting says is True in torch.compile too (2.11)."""
    return bool(torch.compiler._is_exporting_flag)


def check_mask(z: Tensor, valid: Tensor | None) -> None:
    """Raises InputError unless valid says of each position of z (B, D, *S) whether it counts; None: all do."""
    wanted = z.shape[:1] + z.shape[2:]
    if valid is not None and (valid.dtype != torch.bool or valid.shape != wanted):
        raise InputError(f"valid must be bool {tuple(wanted)}, got {str(valid.dtype)[6:]} {tuple(valid.shape)}")


def _swapped(x: Tensor) -> Tensor:
    """x (B, M, N) to (B, N, M).

    Compiled for a CPU it is a copy that nothing is fused with: there Inductor of torch 2.11 gives wrong gradients for
    some graphs that divide transposed rows by their length (cosine codebooks, BSQ), in pure torch too. Not so in a
    program of torch.export, which has to run without codeczoo.
    """
    if x.device.type == "cpu" and torch.compiler.is_compiling() and not exporting():
        return _swapped_copy(x)
    return x.transpose(1, 2)


@torch.library.custom_op("codeczoo::swapped", mutates_args=())
def _swapped_copy(x: Tensor) -> Tensor:
    return x.transpose(1, 2).clone(memory_format=torch.contiguous_format)


@_swapped_copy.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1])


def _swap_back(ctx: Any, grad: Tensor) -> Tensor:
    return _swapped_copy(grad)


_swapped_copy.register_autograd(_swap_back)
