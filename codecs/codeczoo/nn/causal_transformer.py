"""Causal transformer over time with rotary positions and a window of attention, as in Mimi; whole or piece by piece.

Source: Moshi (arXiv 2410.00037, github.com/kyutai-labs/moshi).
Differs: in a stream the keys of context - 1 earlier steps are kept however long a piece is, so it attends as in the
whole signal (moshi's ring of `context` keys forgets too early); whole signals are worked through in blocks, so memory
grows with their length only.
"""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.nn.linear import linear, linear_gelu
from codeczoo.nn.stream import Layer

BLOCK = 512  # steps that attend at once


@dataclass
class Past:
    """What one attention layer keeps of a stream: keys and values (B, heads, t, d) of its latest steps."""

    keys: Tensor | None = None
    values: Tensor | None = None


@dataclass
class Memory:
    """State of a transformer in a stream."""

    layers: list[Past]
    steps: int = field(default=0)


class WindowedAttention(nn.Module):
    """Each step looks at itself and the context - 1 steps before it.

    Args:
        dim: channels.
        heads: must divide dim.
        context: steps.
    """

    def __init__(self, dim: int, heads: int, context: int) -> None:
        super().__init__()
        if dim % heads or (dim // heads) % 2:
            raise ConfigError(f"attention: {heads} heads do not divide {dim} channels into even parts")
        self.heads, self.context = heads, context
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, turn: Tensor, past: Past) -> Tensor:
        """x (B, t, C), the steps after `past`, with their rotations (t, d / 2) complex, to the same shape."""
        q, k, v = rearrange(linear(self.qkv, x), "b t (three h d) -> three b h t d", three=3, h=self.heads)
        q, k = _turned(q, turn), _turned(k, turn)
        if past.keys is not None and past.values is not None:
            k, v = torch.cat([past.keys, k], 2), torch.cat([past.values, v], 2)
        kept = max(0, k.shape[2] - self.context + 1)
        past.keys, past.values = k[:, :, kept:], v[:, :, kept:]
        mask = window_mask(q.shape[2], k.shape[2], self.context, x.device)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return linear(self.out, rearrange(y, "b h t d -> b t (h d)"))


class Block(nn.Module):
    """x + scale1 * attention(norm1(x)), then x + scale2 * mlp(norm2(x)); no biases but the norms'."""

    def __init__(self, dim: int, heads: int, hidden: int, context: int, scale: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = WindowedAttention(dim, heads, context)
        self.fc1, self.fc2 = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((dim,), scale)) for _ in range(2))

    def forward(self, x: Tensor, turn: Tensor, past: Past) -> Tensor:
        """x (B, t, C) to the same shape."""
        x = x + self.scale1 * self.attention(self.norm1(x), turn, past)
        return x + self.scale2 * linear(self.fc2, linear_gelu(self.fc1, self.norm2(x)))


class CausalTransformer(Layer):
    """Blocks of windowed attention.

    Args:
        dim: channels.
        depth: blocks.
        heads: of attention.
        hidden: channels inside the MLP.
        context: steps that attention reaches, its own included.
        scale: first value of the learned scales.
        base: of the rotary positions' wavelengths.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, hidden: int, context: int, scale: float = 0.01, base: float = 1e4
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, context, scale) for _ in range(depth))
        self.pairs, self.base = dim // heads // 2, base

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        state = self.begin()
        return torch.cat([self.step(piece, state) for piece in x.split(BLOCK, 2)], 2)

    def begin(self) -> Memory:
        """See Layer."""
        return Memory([Past() for _ in self.blocks])

    def step(self, x: Tensor, state: Memory, last: bool = False) -> Tensor:
        """See Layer."""
        if not x.shape[2]:
            return x
        if x.shape[2] > BLOCK:
            return torch.cat([self.step(piece, state) for piece in x.split(BLOCK, 2)], 2)
        turn = self._rotations(state.steps, x.shape[2], x.device)
        state.steps += x.shape[2]
        y = x.transpose(1, 2)  # (B, t, C)
        for block, past in zip(self.blocks, state.layers, strict=True):
            y = block(y, turn, past)
        return y.transpose(1, 2)

    def _rotations(self, first: int, steps: int, device: torch.device) -> Tensor:
        """Complex numbers of length 1 for each step and pair of channels, (steps, d / 2)."""
        at = torch.arange(first, first + steps, device=device, dtype=torch.float64)
        speed = self.base ** (-torch.arange(self.pairs, device=device, dtype=torch.float64) / self.pairs)
        return torch.polar(torch.ones((), dtype=torch.float64, device=device), at[:, None] * speed).to(torch.complex64)


def window_mask(queries: int, keys: int, context: int, device: torch.device) -> Tensor | None:
    """Which keys each query may look at, bool (queries, keys): its own and the context - 1 before it. None: all.

    Both end with the same step.
    """
    if queries == 1 and keys <= context:
        return None
    at = torch.arange(keys - queries, keys, device=device)[:, None]
    back = at - torch.arange(keys, device=device)
    return (back >= 0) & (back < context)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """x (B, heads, t, d) with neighbouring pairs of channels rotated."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
