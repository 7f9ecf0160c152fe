"""Attention between a picture's patches and its registers: who sees whom, and how much one key counts.

On a GPU through `flex_attention`, which skips blocks that nobody sees; elsewhere through
`scaled_dot_product_attention`. Both give the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


class Attend(ABC):
    """A rule of attention for one length of sequence."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q (B, heads, M, d), k and v (B, heads, L, d), scale of the products, to (B, heads, M, d)."""
        if q.is_cuda:
            return self.flex(_compiled_flex(), q, k, v, scale)
        with torch.autocast(q.device.type, enabled=False):  # which would round the counts of keys
            return self.dense(q, k, v, scale)

    @abstractmethod
    def dense(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Through scaled_dot_product_attention."""

    @abstractmethod
    def flex(self, attention: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Through `attention`, which is flex_attention or what it was compiled to."""


class CausalRegisters(Attend):
    """Patches see patches, a register sees patches, itself and the registers before it. Queries may be registers only.

    Args:
        patches: number of patches, in front of the registers.
        registers: number of registers.
        device: of the sequence.
    """

    def __init__(self, patches: int, registers: int, device: torch.device) -> None:
        self.patches, self.registers = patches, registers
        self.mask = torch.ones(registers, patches + registers, dtype=torch.bool, device=device).tril(patches)

    def dense(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Attend."""
        n = self.patches
        last = F.scaled_dot_product_attention(q[:, :, -self.registers :], k, v, self.mask, scale=scale)
        if q.shape[2] == self.registers:
            return last
        first = F.scaled_dot_product_attention(q[:, :, :n], k[:, :, :n], v[:, :, :n], scale=scale)
        return torch.cat([first, last], 2)

    def flex(self, attention: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Attend."""
        mask = _causal_blocks(self.patches, self.registers, q.shape[2], q.device)
        return attention(q, k, v, block_mask=mask, scale=scale)


class Everyone(Attend):
    """Everyone sees everyone; the last key counts as often as there are equal ones that it stands for.

    Args:
        length: of the sequence.
        last: how many keys the last one stands for.
        device: of the sequence.
    """

    def __init__(self, length: int, last: int, device: torch.device) -> None:
        self.bias: Tensor | None = None
        if last > 1:
            self.bias = torch.zeros(length, device=device)
            self.bias[-1] = torch.tensor(last).log()

    def dense(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Attend."""
        bias = None if self.bias is None else self.bias.expand(q.shape[2], -1)
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)

    def flex(self, attention: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See Attend."""
        bias = self.bias
        if bias is None:
            return F.scaled_dot_product_attention(q, k, v, scale=scale)  # the fastest, where nothing is special

        def counted(score: Tensor, b: Tensor, h: Tensor, at: Tensor, key: Tensor) -> Tensor:
            return score + bias[key]

        return attention(q, k, v, score_mod=counted, scale=scale)


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention)


@cache
def _causal_blocks(patches: int, registers: int, queries: int, device: torch.device) -> BlockMask:
    length = patches + registers

    def seen(b: Tensor, h: Tensor, at: Tensor, key: Tensor) -> Tensor:
        return (key < patches) | (key <= at + length - queries)

    with torch.inference_mode(False):  # a training may use it next
        return create_block_mask(seen, None, None, queries, length, device=str(device))
