"""The convolutional encoder and decoder of DAC, also of X-Codec and LM-SPT.

Source: "High-Fidelity Audio Compression with Improved RVQGAN" (arXiv 2306.06546),
github.com/descriptinc/descript-audio-codec (MIT). Layers have the places that they have there.
"""

from collections.abc import Sequence
from math import ceil, prod

from torch import nn

from codeczoo.core.errors import ConfigError, nearest
from codeczoo.nn.conv1d import Conv1d, ConvTranspose1d, Padding, WeightNormConv1d, WeightNormConvTranspose1d
from codeczoo.nn.snake import Snake
from codeczoo.nn.stream import Chain, Coder, Identity, Layer, Sum, Tanh

NORMS: dict[str, tuple[type[Conv1d], type[ConvTranspose1d]]] = {
    "none": (Conv1d, ConvTranspose1d),
    "weight_norm": (WeightNormConv1d, WeightNormConvTranspose1d),
}
DILATIONS = (1, 3, 9)


class Style:
    """How all convolutions of one network are made.

    Args:
        norm: one of NORMS.
    """

    def __init__(self, norm: str) -> None:
        if norm not in NORMS:
            raise ConfigError(f"DAC: no norm '{norm}'; {nearest(norm, NORMS)}")
        self.kinds = NORMS[norm]

    def conv(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> Layer:
        """T to T steps."""
        side = (kernel - 1) * dilation // 2
        return _started(self.kinds[0](inputs, outputs, kernel, dilation=dilation, padding=Padding(side, side)))

    def strided(self, inputs: int, outputs: int, stride: int) -> Layer:
        """T to T / stride steps."""
        side = ceil(stride / 2)
        return _started(self.kinds[0](inputs, outputs, 2 * stride, stride, padding=Padding(side, side)))

    def transposed(self, inputs: int, outputs: int, stride: int) -> Layer:
        """T to T * stride steps, one less where the stride is odd."""
        side = ceil(stride / 2)
        return self.kinds[1](inputs, outputs, 2 * stride, stride, left=side, right=side)

    def residual(self, dim: int, dilation: int) -> Layer:
        """A unit with a shortcut around it."""
        return Sum([
            Identity(),
            Chain([Snake(dim), self.conv(dim, dim, 7, dilation), Snake(dim), self.conv(dim, dim, 1)]),
        ])  # fmt: skip


def _started(conv: Conv1d) -> Conv1d:
    """With the first weights that DAC has."""
    start = nn.init.trunc_normal_(conv.taps().detach().clone(), std=0.02)
    conv.make_weight(start)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class Encoder(Coder):
    """Waveform to latents, hop = prod(ratios) samples each.

    Args:
        channels: of the waveform.
        dim: D, channels of the latents.
        width: channels after the first convolution; doubled with every ratio.
        ratios: strides, first to last.
        norm: "weight_norm" or "none".
    """

    def __init__(self, channels: int, dim: int, width: int, ratios: Sequence[int], norm: str = "weight_norm") -> None:
        style = Style(norm)
        layers: list[Layer] = [style.conv(channels, width, 7)]
        widest = width
        for ratio in ratios:
            units = [style.residual(width, dilation) for dilation in DILATIONS]
            layers.append(Chain([*units, Snake(width), style.strided(width, 2 * width, ratio)]))
            width *= 2
        super().__init__([*layers, Snake(width), style.conv(width, dim, 3)])
        self.hop, self.dim, self.channels, self.widest = prod(ratios), dim, channels, widest


class Decoder(Coder):
    """Latents to waveform.

    Differs: an odd stride gives one step too few, as published; so hop samples a latent, less a few at the end.

    Args:
        channels: of the waveform.
        dim: D, channels of the latents.
        width: channels after the first convolution; halved with every ratio.
        ratios: strides, first to last.
        norm: "weight_norm" or "none".
    """

    def __init__(self, channels: int, dim: int, width: int, ratios: Sequence[int], norm: str = "weight_norm") -> None:
        style = Style(norm)
        layers: list[Layer] = [style.conv(dim, width, 7)]
        for ratio in ratios:
            up = [Snake(width), style.transposed(width, width // 2, ratio)]
            width //= 2
            layers.append(Chain([*up, *(style.residual(width, dilation) for dilation in DILATIONS)]))
        super().__init__([*layers, Snake(width), style.conv(width, channels, 7), Tanh()])
        self.hop, self.dim, self.channels, self.widest = prod(ratios), dim, channels, width
