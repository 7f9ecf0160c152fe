"""The convolutional encoder and decoder of MaskGIT's VQGAN, as ported by 1d-tokenizer.

Source: MaskGIT (arXiv 2202.04200), github.com/bytedance/1d-tokenizer modeling/modules/maskgit_vqgan.py.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two 3x3 convolutions without bias around the identity.

    Args:
        in_channels: channels in; a multiple of 32.
        out_channels: channels out; a multiple of 32.
        lost_shortcut_bug: where in and out differ the published model adds W h of the block's own output h instead of
            W x of its input, which is lost. Only for its weights.
    """

    def __init__(self, in_channels: int, out_channels: int, lost_shortcut_bug: bool = False) -> None:
        super().__init__()
        self.lost_shortcut_bug = lost_shortcut_bug
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            source = out_channels if lost_shortcut_bug else in_channels
            self.shortcut = nn.Conv2d(source, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in, h, w) to (B, out, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        if self.shortcut is None:
            return x + h
        return h + self.shortcut(h if self.lost_shortcut_bug else x)


class CNNEncoder(nn.Module):
    """Image to a grid of latents, each level but the last halving the size by average pooling.

    Args:
        hidden: channels of the first level.
        multipliers: channels of each level as a multiple of `hidden`.
        n_blocks: residual blocks a level, and in the middle.
        dim: D, latent channels.
        lost_shortcut_bug: see ResBlock.
    """

    def __init__(
        self, hidden: int, multipliers: Sequence[int], n_blocks: int, dim: int, lost_shortcut_bug: bool = False
    ) -> None:
        super().__init__()
        widths = [hidden * m for m in multipliers]
        self.stride, self.dim = 2 ** (len(widths) - 1), dim
        self.conv_in = nn.Conv2d(3, hidden, 3, padding=1, bias=False)
        self.levels = nn.ModuleList()
        for before, width in pairwise([hidden, *widths]):
            sizes = [before] + [width] * (n_blocks - 1)
            self.levels.append(nn.ModuleList(ResBlock(size, width, lost_shortcut_bug) for size in sizes))
        self.middle = nn.ModuleList(ResBlock(widths[-1], widths[-1]) for _ in range(n_blocks))
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W), sides multiples of `stride`, to z (B, D, H/stride, W/stride)."""
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))  # convolutions are faster that way round
        for i, level in enumerate(self.levels):
            for block in level:  # type: ignore[attr-defined]
                x = block(x)
            if i < len(self.levels) - 1:
                x = F.avg_pool2d(x, 2)
        for block in self.middle:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks of one decoder level, then twice the size (nearest) and a 3x3 convolution where there is one."""

    def __init__(self, before: int, width: int, n_blocks: int, upsample: bool, lost_shortcut_bug: bool) -> None:
        super().__init__()
        sizes = [before] + [width] * (n_blocks - 1)
        self.blocks = nn.ModuleList(ResBlock(size, width, lost_shortcut_bug) for size in sizes)
        self.upsample = nn.Conv2d(width, width, 3, padding=1) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, before, h, w) to (B, width, 2h, 2w), or (B, width, h, w) without upsampling."""
        for block in self.blocks:
            x = block(x)
        return x if self.upsample is None else self.upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class CNNDecoder(nn.Module):
    """Grid of latents to image; the mirror of CNNEncoder with the same arguments. Level 0 is the largest."""

    def __init__(
        self, hidden: int, multipliers: Sequence[int], n_blocks: int, dim: int, lost_shortcut_bug: bool = False
    ) -> None:
        super().__init__()
        widths = [hidden * m for m in multipliers]
        self.stride, self.dim = 2 ** (len(widths) - 1), dim
        self.conv_in = nn.Conv2d(dim, widths[-1], 3, padding=1)
        self.middle = nn.ModuleList(ResBlock(widths[-1], widths[-1]) for _ in range(n_blocks))
        above = [*widths[1:], widths[-1]]
        self.levels = nn.ModuleList(
            Level(before, width, n_blocks, upsample=i > 0, lost_shortcut_bug=lost_shortcut_bug)
            for i, (before, width) in enumerate(zip(above, widths, strict=True))
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, D, h, w) to x_hat (B, 3, h*stride, w*stride), not clamped."""
        x = self.conv_in(z.contiguous(memory_format=torch.channels_last))
        for block in self.middle:
            x = block(x)
        for level in reversed(self.levels):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))
