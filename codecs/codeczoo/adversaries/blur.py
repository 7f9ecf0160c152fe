"""TiTok's discriminator: anti-aliased downsampling and group norms."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError, InputError

SLOPE = 0.1  # of every LeakyReLU


class BlurDiscriminator(nn.Module):
    """Convolutions, each followed by a blurring downsampling by two, to a fixed grid of logits.

    Channels go width, width, 2 width, 4 width, ... The state dict has the original's keys.
    Source: bytedance/1d-tokenizer, NLayerDiscriminator (TiTok, One-D-Piece, TA-TiTok).

    Args:
        width: channels of the first convolution.
        stages: number of downsamplings by two.
        groups: of the group norms; must divide width.
        grid: rows and columns of logits, max-pooled to.
        channels: of the media.
    """

    def __init__(self, width: int = 128, stages: int = 3, groups: int = 32, grid: int = 16, channels: int = 3) -> None:
        super().__init__()
        if stages < 1 or width % groups:
            raise ConfigError(f"BlurDiscriminator: stages {stages} must be 1 or more, groups {groups} divide {width}")
        self.channels = channels
        # At stride 1 with an odd kernel TensorFlow's SAME padding is the symmetric one.
        self.block_in = nn.Sequential(nn.Conv2d(channels, width, 5, padding=2), nn.LeakyReLU(SLOPE))
        widths = [width, *(width * 2**i for i in range(stages))]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), Blur(), nn.GroupNorm(groups, b), nn.LeakyReLU(SLOPE))
            for a, b in pairwise(widths)
        )
        self.pool = nn.AdaptiveMaxPool2d(grid)
        self.to_logits = nn.Sequential(
            nn.Conv2d(widths[-1], widths[-1], 1), nn.LeakyReLU(SLOPE), nn.Conv2d(widths[-1], 1, 5, padding=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, H, W) in [0, 1] to logits (B, 1, grid, grid). Raises InputError for another shape."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputError(f"BlurDiscriminator takes (B, {self.channels}, H, W), got {tuple(x.shape)}")
        x = self.block_in(x)
        for block in self.blocks:
            x = block(x)
        return self.to_logits(self.pool(x))


class Blur(nn.Module):
    """Every channel filtered by the outer product of (1, 3, 3, 1) / 8 with itself, at stride 2, TensorFlow's SAME."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(row, row)[None, None])  # (1, 1, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to (B, C, ceil(H/2), ceil(W/2))."""
        # SAME puts the odd one of an uneven padding behind: 1 and 1 for even sizes, 1 and 2 for odd ones.
        x = F.pad(x, (1, 1 + x.shape[3] % 2, 1, 1 + x.shape[2] % 2))
        return F.conv2d(x, self.kernel.expand(x.shape[1], -1, -1, -1), stride=2, groups=x.shape[1])
