"""Haar wavelet packets instead of patches: pixels to channels and back, without loss, of pictures and over time.

Source: order and size of the bands of Cosmos-Tokenizer (arXiv 2501.03575, github.com/NVIDIA/Cosmos-Tokenizer).
Differs: one matrix product instead of a convolution for every axis, level and band; pixels come back in float32, since
bfloat16 loses 0.05 on the way there and back; runs piece by piece.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError
from codeczoo.nn.stream import Layer, Length


def bands(side: int, axes: int) -> Tensor:
    """The transform of one patch of side^axes pixels, (side^axes bands, side^axes pixels).

    Each level halves every axis into means and half differences, and with it all bands so far. Bands are numbered by
    the last level first; within a level time counts slowest and columns fastest, of pictures rows fastest.

    Raises:
        ConfigError: a side that is no power of 2.
    """
    if side < 1 or side & (side - 1):
        raise ConfigError(f"Haar: the side of a patch must be a power of 2, got {side}")
    pixels = side**axes
    x = torch.eye(pixels).view(pixels, 1, *[side] * axes)
    order = (-1, -2, -3) if axes == 3 else (-2, -1)
    while x.shape[-1] > 1:
        for axis in order:
            first, second = x.unflatten(axis, (-1, 2)).unbind(axis)
            x = torch.cat([first + second, first - second], 1) / 2
    return x.flatten(1).T.contiguous()


class _Haar(nn.Module):
    """What both directions share.

    Args:
        side: of a patch, a power of 2.
        axes: 2 or 3.
    """

    matrix: Tensor

    def __init__(self, side: int, axes: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("matrix", self.make(bands(side, axes)), persistent=False)

    def make(self, transform: Tensor) -> Tensor:
        """What rows of pixels are multiplied by."""
        return transform.T.contiguous()

    def transformed(self, rows: Tensor) -> Tensor:
        """rows (..., side^axes) to the same shape, in float32."""
        with torch.autocast(rows.device.type, enabled=False):
            return rows.float() @ self.matrix.float()


class _Inverse(_Haar):
    def make(self, transform: Tensor) -> Tensor:
        """See _Haar: rows of the transform are orthogonal, so its inverse is its transpose but for the size."""
        return transform / transform.square().sum(1, keepdim=True)


class HaarPatches(_Haar):
    """(B, C, H, W), sides multiples of `side`, to bands (B, C * side^2, H / side, W / side), first band the mean.

    Args:
        side: of a patch, a power of 2.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side, 2)

    def forward(self, x: Tensor) -> Tensor:
        """x to its bands."""
        rows = rearrange(x, "b c (h p) (w q) -> b h w c (p q)", p=self.side, q=self.side)
        bands = self.transformed(rows).to(x.dtype)
        return rearrange(bands, "b h w c n -> b h w (n c)").movedim(-1, 1)  # channels last, as convolutions like it


class HaarPixels(_Inverse):
    """Bands (B, C * side^2, h, w) to (B, C, h * side, w * side), the inverse of HaarPatches.

    Args:
        side: of a patch, a power of 2.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side, 2)

    def forward(self, bands: Tensor) -> Tensor:
        """Bands to what they are of."""
        rows = rearrange(bands, "b (n c) h w -> b h w c n", n=self.side**2)
        return rearrange(self.transformed(rows), "b h w c (p q) -> b c (h p) (w q)", p=self.side, q=self.side)


@dataclass
class Frames:
    """State of either direction in a stream.

    Args:
        held: frames that make no whole step yet, (B, C, t, H, W).
        started: whether the first frame, which stands for `side` frames, has been.
    """

    held: Tensor | None = None
    started: bool = False


class HaarClips(_Haar, Layer):
    """(B, C, 1 + side * n, H, W) to bands (B, C * side^3, 1 + n, H / side, W / side); the first frame makes a step.

    That frame counts as `side` equal frames. Frames behind the last whole step go unused.

    Args:
        side: of a patch in rows, columns and frames, a power of 2.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side, 3)

    def length(self, n: Length) -> Length:
        """See Layer."""
        return (n + self.side - 1) // self.side

    def needs(self, n: int) -> int:
        """See Layer."""
        return 1 + (n - 1) * self.side if n else 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self.step(x, self.begin())

    def begin(self) -> Frames:
        """See Layer."""
        return Frames()

    def step(self, x: Tensor, state: Frames, last: bool = False) -> Tensor:
        """See Layer."""
        if not state.started and x.shape[2]:
            x, state.started = torch.cat([x[:, :, :1].expand(-1, -1, self.side - 1, -1, -1), x], 2), True
        x = x if state.held is None else torch.cat([state.held, x], 2)
        whole = x.shape[2] // self.side * self.side
        state.held = x[:, :, whole:].clone()  # a view would keep all of the piece
        sides = {"s": self.side, "p": self.side, "q": self.side}
        rows = rearrange(x[:, :, :whole], "b c (t s) (h p) (w q) -> b t h w c (s p q)", **sides)
        bands = self.transformed(rows).to(x.dtype)
        return rearrange(bands, "b t h w c n -> b t h w (n c)").movedim(-1, 1)  # channels last


class HaarFrames(_Inverse, Layer):
    """Bands (B, C * side^3, n, h, w) to (B, C, 1 + side * (n - 1), h * side, w * side), the inverse of HaarClips.

    Args:
        side: of a patch in rows, columns and frames, a power of 2.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side, 3)

    def length(self, n: Length) -> Length:
        """See Layer."""
        return (n - 1) * self.side + 1

    def needs(self, n: int) -> int:
        """See Layer."""
        return (n + 2 * self.side - 2) // self.side if n else 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self.step(x, self.begin())

    def begin(self) -> Frames:
        """See Layer."""
        return Frames()

    def step(self, x: Tensor, state: Frames, last: bool = False) -> Tensor:
        """See Layer."""
        rows = rearrange(x, "b (n c) t h w -> b t h w c n", n=self.side**3)
        sides = {"s": self.side, "p": self.side, "q": self.side}
        frames = rearrange(self.transformed(rows), "b t h w c (s p q) -> b c (t s) (h p) (w q)", **sides)
        first = 0 if state.started else self.side - 1
        state.started = state.started or x.shape[2] > 0
        return frames[:, :, first:]
