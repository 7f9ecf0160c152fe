"""SEANet: the convolutional encoder and decoder of EnCodec, AudioCraft, Mimi, WavTokenizer and SpeechTokenizer.

Source: arXiv 2009.02095 as in EnCodec (arXiv 2210.13438, github.com/facebookresearch/encodec, MIT). Layers have the
places that they have there, so that names of weights differ by their prefix only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from codeczoo.core.errors import ConfigError, nearest
from codeczoo.nn.conv1d import (
    Conv1d,
    ConvTranspose1d,
    NormedConv1d,
    NormedConvTranspose1d,
    Padding,
    PadMode,
    WeightNormConv1d,
    WeightNormConvTranspose1d,
)
from codeczoo.nn.lstm import LSTM, BiLSTM
from codeczoo.nn.snake import Snake
from codeczoo.nn.stream import ELU, Chain, Coder, Identity, Layer, Sum

Norm = Literal["none", "weight_norm", "time_group_norm"]
NORMS: dict[str, tuple[type[Conv1d], type[ConvTranspose1d]]] = {
    "none": (Conv1d, ConvTranspose1d),
    "weight_norm": (WeightNormConv1d, WeightNormConvTranspose1d),
    "time_group_norm": (NormedConv1d, NormedConvTranspose1d),
}


@dataclass(frozen=True)
class Style:
    """How all convolutions of one network are made.

    Args:
        norm: one of NORMS.
        causal: whether no output depends on later samples.
        pad: how signals are padded.
    """

    norm: str
    causal: bool
    pad: PadMode

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ConfigError(f"SEANet: no norm '{self.norm}'; {nearest(self.norm, NORMS)}")

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> Layer:
        """T to ceil(T / stride) steps."""
        padding = Padding.same(kernel, stride, dilation, self.causal, self.pad)
        return NORMS[self.norm][0](inputs, outputs, kernel, stride, dilation, padding=padding)

    def transposed(self, inputs: int, outputs: int, stride: int) -> Layer:
        """T to T * stride steps."""
        right = stride if self.causal else stride // 2
        return NORMS[self.norm][1](inputs, outputs, 2 * stride, stride, left=stride - right, right=right)


class ResBlock(Sum):
    """A shortcut beside convolutions of half the channels, each behind an activation.

    Args:
        dim: channels in and out.
        kernel, dilation: of the first convolution; the second has one tap.
        compress: how many times fewer channels are in between.
        shortcut: "identity", or "conv" for a convolution of one tap.
        style: of the convolutions.
        activation: makes an activation for a number of channels.
    """

    def __init__(
        self, dim: int, kernel: int, dilation: int, compress: int, shortcut: str, style: Style, activation: Any
    ) -> None:
        hidden = dim // compress
        block = Chain([
            activation(dim), style.conv(dim, hidden, kernel, dilation=dilation),
            activation(hidden), style.conv(hidden, dim, 1),
        ])  # fmt: skip
        if shortcut not in ("identity", "conv"):
            raise ConfigError(f"SEANet: shortcut must be identity or conv, got '{shortcut}'")
        super().__init__([Identity() if shortcut == "identity" else style.conv(dim, dim, 1), block])


ACTIVATIONS: dict[str, Any] = {"elu": lambda channels: ELU(), "snake": Snake}


def activation_named(name: str) -> Any:
    """Makes an activation for a number of channels. Raises ConfigError for an unknown name."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"SEANet: no activation '{name}'; {nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


class Encoder(Coder):
    """Waveform to latents, hop = prod(ratios) samples each.

    Args:
        channels: of the waveform.
        dim: D, channels of the latents.
        width: channels after the first convolution; doubled with every ratio.
        ratios: strides of the decoder's order; the encoder goes through them backwards.
        norm, causal, pad: see Style.
        shortcut: of the residual blocks, "identity" or "conv".
        blocks: residual blocks in front of each stride, dilated by 1, dilation_base, dilation_base^2, ...
        lstm: layers of the LSTM, 0 for none.
        last_kernel: of the last convolution.
        bidirectional: whether the LSTM also runs backwards.
        dilation_base: see blocks.
        activation: "elu" or "snake".
    """

    def __init__(
        self, channels: int, dim: int, width: int, ratios: Sequence[int], norm: Norm = "weight_norm",
        causal: bool = False, pad: PadMode = "reflect", shortcut: str = "conv", blocks: int = 1, lstm: int = 2,
        last_kernel: int = 7, bidirectional: bool = False, dilation_base: int = 2, activation: str = "elu",
    ) -> None:
        style, act = Style(norm, causal, pad), activation_named(activation)
        layers = [style.conv(channels, width, 7)]
        widest = width
        for ratio in reversed(ratios):
            layers += [ResBlock(width, 3, dilation_base**i, 2, shortcut, style, act) for i in range(blocks)]
            layers += [act(width), style.conv(width, 2 * width, 2 * ratio, ratio)]
            width *= 2
        if lstm:
            layers.append(BiLSTM(width, lstm) if bidirectional else LSTM(width, lstm))
            width *= 1 + bidirectional
        layers += [act(width), style.conv(width, dim, last_kernel)]
        super().__init__(layers)
        self.hop, self.dim, self.channels, self.widest = prod(ratios), dim, channels, widest


class Decoder(Coder):
    """Latents to waveform, hop = prod(ratios) samples each. Arguments: see Encoder."""

    def __init__(
        self, channels: int, dim: int, width: int, ratios: Sequence[int], norm: Norm = "weight_norm",
        causal: bool = False, pad: PadMode = "reflect", shortcut: str = "conv", blocks: int = 1, lstm: int = 2,
        last_kernel: int = 7, dilation_base: int = 2, activation: str = "elu",
    ) -> None:
        style, act = Style(norm, causal, pad), activation_named(activation)
        width *= 2 ** len(ratios)
        layers = [style.conv(dim, width, 7)]
        if lstm:
            layers.append(LSTM(width, lstm))
        for ratio in ratios:
            layers += [act(width), style.transposed(width, width // 2, ratio)]
            width //= 2
            layers += [ResBlock(width, 3, dilation_base**i, 2, shortcut, style, act) for i in range(blocks)]
        layers += [act(width), style.conv(width, channels, last_kernel)]
        super().__init__(layers)
        self.hop, self.dim, self.channels, self.widest = prod(ratios), dim, channels, width
