"""A small convolutional encoder and decoder for pictures on processors: Haar wavelets in place of pixels, no norms.

Ours. No layer runs at full size, and each position depends on its neighbourhood alone: no normalisation over the
picture and no attention, so that pictures of any size get the same treatment and work grows with the pixels only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.backbones.cosmos2d import Down, Up
from codeczoo.core.errors import ConfigError
from codeczoo.nn.haar import HaarPatches, HaarPixels

PIXELS = 3  # channels of a picture
GAIN = 3.0  # of the last layer of the encoder at first: quantizers want latents of about 1
DETAIL = 8.0  # about how much smaller the bands of details are than those of means


class ResBlock(nn.Module):
    """x plus two 3x3 convolutions of it, the second of which starts at nothing.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) to the same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def _blocks(channels: int, n: int) -> nn.Sequential:
    return nn.Sequential(*(ResBlock(channels) for _ in range(n)))


def _even(layer: nn.Conv2d, gain: float = 1.0) -> nn.Conv2d:
    """The layer with weights that keep the spread of signals, times the gain, and no bias at first.

    torch's own weights shrink it layer by layer, until all latents fall into the same code.
    """
    nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _scales(patch: int) -> Tensor:
    """Of the bands, (3 patch^2, 1, 1): one for the means, DETAIL for the rest."""
    scales = torch.full((PIXELS * patch**2, 1, 1), DETAIL)
    scales[:PIXELS] = 1
    return scales


class Encoder(nn.Module):
    """Image to a grid of latents: Haar patches, then stages, each but the last followed by a halving of the size.

    Args:
        patch: side of the Haar patches, a power of 2.
        widths: channels of each stage, largest grid first.
        blocks: residual blocks of each stage.
        dim: D, latent channels.

    Raises:
        ConfigError: no stages, or other numbers of blocks than of widths.
    """

    scales: Tensor

    def __init__(self, patch: int, widths: Sequence[int], blocks: Sequence[int], dim: int) -> None:
        super().__init__()
        _check(widths, blocks)
        self.stride, self.dim = patch * 2 ** (len(widths) - 1), dim
        self.patches = HaarPatches(patch)
        self.register_buffer("scales", _scales(patch), persistent=False)
        self.conv_in = _even(nn.Conv2d(PIXELS * patch**2, widths[0], 3, padding=1))
        layers: list[nn.Module] = []
        for i, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            layers.append(_blocks(width, n))
            if i + 1 < len(widths):
                layers += [_even(Down(width)), _even(nn.Conv2d(width, widths[i + 1], 1))]
        self.stages = nn.Sequential(*layers)
        self.conv_out = _even(nn.Conv2d(widths[-1], dim, 1), GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) in [-1, 1], sides multiples of `stride`, to z (B, D, H/stride, W/stride)."""
        return self.conv_out(self.stages(self.conv_in(self.patches(x) * self.scales)))


class Decoder(nn.Module):
    """Grid of latents to image; the mirror of Encoder with the same arguments."""

    scales: Tensor

    def __init__(self, patch: int, widths: Sequence[int], blocks: Sequence[int], dim: int) -> None:
        super().__init__()
        _check(widths, blocks)
        self.stride, self.dim = patch * 2 ** (len(widths) - 1), dim
        self.conv_in = _even(nn.Conv2d(dim, widths[-1], 3, padding=1))
        layers: list[nn.Module] = []
        for i in reversed(range(len(widths))):
            layers.append(_blocks(widths[i], blocks[i]))
            if i:
                layers += [_even(nn.Conv2d(widths[i], widths[i - 1], 1)), _even(Up(widths[i - 1]))]
        self.stages = nn.Sequential(*layers)
        self.conv_out = nn.Conv2d(widths[0], PIXELS * patch**2, 3, padding=1)
        self.register_buffer("scales", 1 / _scales(patch), persistent=False)
        self.pixels = HaarPixels(patch)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, D, h, w) to x_hat (B, 3, h*stride, w*stride) about [-1, 1], not clamped."""
        return self.pixels(self.conv_out(self.stages(self.conv_in(z))) * self.scales)


def _check(widths: Sequence[int], blocks: Sequence[int]) -> None:
    if not widths or len(widths) != len(blocks):
        found = f"{len(widths)} widths and {len(blocks)} numbers"
        raise ConfigError(f"haar2d: wants a number of blocks for each width, got {found}")
