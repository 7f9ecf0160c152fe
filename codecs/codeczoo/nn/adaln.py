"""Transformer blocks whose norms have no weights of their own, plain or changed by a time (adaLN).

Source: DiT (arXiv 2212.09748), with FlexTok's (arXiv 2502.13967) normed queries and keys, SwiGLU and muP's scale.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from codeczoo.core.errors import ConfigError
from codeczoo.nn.linear import linear, linear_silu_gated, once
from codeczoo.nn.registers import Attend

EPSILON = 1e-5
KINDS = 2  # of positions: patches and registers
VECTORS = 6 * KINDS  # that a time gives a block


def norm(x: Tensor) -> Tensor:
    """x (..., width) to mean 0 and variance 1."""
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON)


class Plain:
    """Half of a block: x + branch(norm(x))."""

    def norm(self, x: Tensor) -> Tensor:
        """What the branch sees of x (B, L, width)."""
        return norm(x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x and what the branch gave (B, L, width) together."""
        return x + y


class Timed(Plain):
    """Half of a block at a time: x + gate * branch(norm(x) * (1 + scale) + shift), others for patches and registers.

    Args:
        cut: where registers begin.
        gates, shifts, scales: (KINDS, width), or (B, KINDS, 1, width) where each sample has its own time.
    """

    def __init__(self, cut: int, gates: Tensor, shifts: Tensor, scales: Tensor) -> None:
        self.cut = cut
        kind = 0 if gates.ndim == 2 else 1
        self.gates, self.shifts, self.scales = (values.unbind(kind) for values in (gates, shifts, scales))

    def norm(self, x: Tensor) -> Tensor:
        """See Plain."""
        parts = zip(self._parts(x), self.shifts, self.scales, strict=True)
        return torch.cat([changed(part, shift, scale) for part, shift, scale in parts], 1)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """See Plain."""
        parts = zip(self._parts(x), self._parts(y), self.gates, strict=True)
        return torch.cat([torch.addcmul(before, more, gate) for before, more, gate in parts], 1)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, : self.cut], x[:, self.cut :]


PLAIN = (Plain(), Plain())


def changed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) * (1 + scale) + shift; shift and scale (width,) or (B, 1, width)."""
    if scale.ndim == 1:
        return F.layer_norm(x, x.shape[-1:], 1 + scale, shift, EPSILON)  # one pass instead of three
    return torch.addcmul(shift, norm(x), 1 + scale)


class Block(nn.Module):
    """Attention, then an MLP of SwiGLU. Queries and keys are normed; no biases.

    Args:
        width: channels.
        heads: of attention; must divide width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"attention: {heads} heads do not divide width {width}")
        self.heads, hidden = heads, 8 * width // 3
        self.scale = 8 * heads / width  # muP: 8 / d, the usual 1 / sqrt(d) where d = 64
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.value = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.fc2 = nn.Linear(hidden, width, bias=False)
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, attend: Attend, halves: tuple[Plain, Plain], keep: slice) -> Tensor:
        """x (B, L, width) to (B, len(keep), width): the positions `keep` after one block."""
        first, second = halves
        h = once(first.norm(x))
        q, k, v = (
            linear(layer, part).unflatten(-1, (self.heads, -1))  # (B, L or len(keep), heads, d)
            for layer, part in ((self.q, h[:, keep]), (self.k, h), (self.v, h))
        )
        q, k = norm(q).to(v.dtype), norm(k).to(v.dtype)  # on a GPU autocast leaves norms in float32
        y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self.scale)  # (B, heads, len(keep), d)
        x = first.add(x[:, keep], linear(self.out, rearrange(y, "b h l d -> b l (h d)")))
        return second.add(x, linear(self.fc2, linear_silu_gated(self.gate, self.value, once(second.norm(x)))))


class Modulation(nn.Module):
    """A time's embedding to `n` vectors for the norms and gates; begins with zeros.

    Args:
        width: channels of the embedding and of each vector.
        n: vectors.
    """

    def __init__(self, width: int, n: int) -> None:
        super().__init__()
        self.n, self.linear = n, nn.Linear(width, n * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, t: Tensor) -> Tensor:
        """t (..., width) to float32 (..., n, width)."""
        return linear(self.linear, F.silu(t)).float().unflatten(-1, (self.n, -1))


def halves(values: Tensor, cut: int) -> tuple[Timed, Timed]:
    """The halves of a block at the time that `Modulation(width, VECTORS)` made values of.

    Args:
        values: (VECTORS, width), or (B, VECTORS, width) where each sample has its own time; for each kind two gates,
            then shift and scale of attention, then of the MLP.
        cut: where registers begin.
    """
    each = values.unflatten(-2, (KINDS, 6))  # (..., KINDS, 6, width)
    if values.ndim == 3:
        each = each[..., None, :]  # (B, KINDS, 6, 1, width)
    gate1, gate2, shift1, scale1, shift2, scale2 = each.unbind(values.ndim - 1)
    return Timed(cut, gate1, shift1, scale1), Timed(cut, gate2, shift2, scale2)


class Stack(nn.Module):
    """`depth` blocks, of whose last only some positions are read.

    Args:
        width: channels.
        depth: number of blocks.
        heads: attention heads.

    Attributes:
        checkpointing: recompute each block in backward: less memory, about a third more time.
    """

    checkpointing: bool = False

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def step(self, i: int, x: Tensor, attend: Attend, keep: slice, halves: tuple[Plain, Plain] = PLAIN) -> Tensor:
        """x (B, L, width) after block i; after the last one the positions `keep` of it."""
        block, wanted = self.blocks[i], keep if i + 1 == len(self.blocks) else slice(None)
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, attend, halves, wanted, use_reentrant=False)
        return block(x, attend, halves, wanted)
