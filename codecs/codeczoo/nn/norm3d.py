"""Normalisation of video that does not look along time: over the channels of a position, or over a frame."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.nn.conv3d import from_frames, laid_out, to_frames
from codeczoo.nn.stream import Layer


class PositionNorm(nn.LayerNorm, Layer):
    """LayerNorm over the channels of every position.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T, H, W) to the same shape."""
        return super().forward(laid_out(x).movedim(1, -1)).movedim(-1, 1)


class FrameNorm(nn.GroupNorm, Layer):
    """GroupNorm of every frame by itself.

    Args:
        channels: C.
        groups: of channels.
    """

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T, H, W) to the same shape."""
        return from_frames(super().forward(to_frames(x)), len(x), x.shape[2])


class Activated(Layer):
    """A normalisation with x * sigmoid(x) behind it, which takes no memory of its own where no gradient is wanted.

    Args:
        norm: the normalisation.
    """

    def __init__(self, norm: PositionNorm | FrameNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T, H, W) to the same shape."""
        return F.silu(self.norm(x), inplace=not torch.is_grad_enabled())
