"""Sums over the ranks of a process group, looked up at each call: without a group they are the local values."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


def together() -> bool:
    """Whether there are other ranks."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return distributed.get_world_size() if together() else 1


@torch.no_grad()
def summed(x: Tensor) -> Tensor:
    """x summed over all ranks, without a gradient."""
    if not together():
        return x
    x = x.clone()
    distributed.all_reduce(x)
    return x


def summed_with_gradient(x: Tensor) -> Tensor:
    """x summed over all ranks; each rank's gradient is the sum of all ranks' gradients, so that DDP's mean is right.

    Differs from torch.distributed.nn.functional.all_reduce: that of torch 2.11 passes no gradient when compiled.
    """
    return _summed(x) if together() else x


@torch.no_grad()
def gathered(x: Tensor) -> Tensor:
    """x (n, ...) of all ranks, one after the other, (W * n, ...); n must be the same everywhere."""
    if not together():
        return x
    everyone = [torch.empty_like(x) for _ in range(world_size())]
    distributed.all_gather(everyone, x.contiguous())
    return torch.cat(everyone)


def idle(value: Tensor, module: nn.Module) -> Tensor:
    """`value`, with the parameters of a module that takes no part yet in its graph: DDP waits for all gradients."""
    for parameter in module.parameters():
        value = value + 0 * parameter.sum()
    return value


class Mean:
    """Means over the tokens of all ranks that count, as a loss that DDP averages over ranks.

    A rank's value is its own sum over the global count, times the number of ranks: the mean over ranks, which DDP takes
    of gradients, is then the mean over all tokens, however many each rank has.

    Args:
        keep: bool (n,) or (n, L), which rows count in each of L means; None: all `n` rows.
        n: number of rows.
        across: sum the counts over ranks. Only where all ranks call, as in training.
    """

    def __init__(self, keep: Tensor | None, n: int, device: torch.device, across: bool) -> None:
        across = across and together()
        self.keep = keep
        self.scale: Tensor | float = 1 / max(n, 1)  # (L,) or ()
        if keep is not None or across:
            count = torch.full((), float(n), device=device) if keep is None else keep.sum(0).float()
            total = summed(count) if across else count
            self.scale = (world_size() if across else 1) / total.clamp(min=1)

    def part(self, first: int, last: int) -> "Mean":
        """Means number `first` to before `last` of L, of rows (n,) where that is one. The only one is every part."""
        if self.keep is None or self.keep.ndim == 1:
            return self
        at = first if last == first + 1 else slice(first, last)
        some = object.__new__(Mean)
        some.keep, some.scale = self.keep[:, at], self.scale[at]  # type: ignore[index]
        return some

    @property
    def rows(self) -> Tensor | None:
        """Which rows count in the first mean, bool (n,); None: all."""
        return self.keep if self.keep is None or self.keep.ndim == 1 else self.keep[:, 0]

    def __call__(self, per_token: Tensor) -> Tensor:
        """The mean of values (n,)."""
        return self.of_sum((per_token if self.keep is None else per_token * self.keep).sum())

    def of_sum(self, total: Tensor) -> Tensor:
        """The mean where this rank's sum over the rows that count is known."""
        return total * self.scale


@torch.library.custom_op("codeczoo::summed", mutates_args=())
def _summed(x: Tensor) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(out)
    return out


@_summed.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _sum_back(ctx: Any, grad: Tensor) -> Tensor:
    return _summed(grad)


_summed.register_autograd(_sum_back)
