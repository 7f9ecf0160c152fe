"""Pre-norm transformer with full attention, as in CLIP and TiTok."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from codeczoo.core.errors import ConfigError
from codeczoo.nn.linear import linear, linear_gelu


class Attention(nn.Module):
    """Multi-head self-attention with biases; same maths as nn.MultiheadAttention.

    Args:
        width: channels in and out.
        heads: number of heads; must divide width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"attention: {heads} heads do not divide width {width}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        """x (B, L, width); attend bool (B, 1, 1, L), True where a position may be looked at, or None for all."""
        q, k, v = rearrange(linear(self.qkv, x), "b l (three h d) -> three b h l d", three=3, h=self.heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)  # (B, heads, L, d)
        return linear(self.out, rearrange(y, "b h l d -> b l (h d)"))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); exact GELU, MLP ratio 4."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        """x (B, L, width) to the same shape."""
        x = x + self.attention(self.norm1(x), attend)
        return x + linear(self.fc2, linear_gelu(self.fc1, self.norm2(x)))


class Transformer(nn.Module):
    """A norm, `depth` blocks, a norm.

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
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)

    @torch.no_grad()
    def look_at_the_alike(self) -> None:
        """Makes queries begin as keys, so that positions attend to those that are like them (arXiv 2305.09828)."""
        for part in self.modules():
            if isinstance(part, Attention):
                q, k, _ = part.qkv.weight.chunk(3)
                q.copy_(k)

    def forward(self, x: Tensor, attend: Tensor | None = None, keep: slice = slice(None)) -> Tensor:
        """x (B, L, width) to (B, len(keep), width): the positions `keep` of the normed last layer."""
        x = self.norm_in(x)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, attend, use_reentrant=False)
            else:
                x = block(x, attend)
        return self.norm_out(x[:, keep])
