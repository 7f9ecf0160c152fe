"""Vocos: a decoder of ConvNeXt blocks at the rate of the latents, whose last layer tells spectra; WavTokenizer's too.

The encoder, which begins with spectra as the decoder ends with them, is ours.

Source: Vocos (arXiv 2306.00814, github.com/gemelo-ai/vocos, MIT); the attention in front of it is that of WavTokenizer
(arXiv 2408.16532, github.com/jishengpeng/WavTokenizer, MIT).
"""

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.nn.conv1d import Conv1d, OverTime, Padding
from codeczoo.nn.istft import ISTFTHead
from codeczoo.nn.linear import linear, linear_gelu
from codeczoo.nn.spectra import Spectra
from codeczoo.nn.stream import Chain, Coder, Identity, Layer, Sum, before

EPS = 1e-6  # of all norms
SPREAD = 0.02  # of the first weights
Affine = TypeVar("Affine", Conv1d, nn.Linear)


class LayerNorm(nn.LayerNorm):
    """Over channels, (..., C)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, EPS)


class AdaLayerNorm(nn.Module):
    """LayerNorm (..., C) whose scale and shift are those of one of several conditions.

    Args:
        channels: C.
        conditions: how many there are; Vocos has one for each bitrate of its codes.
        condition: the one that is used; the others are kept.
    """

    def __init__(self, channels: int, conditions: int, condition: int = 0) -> None:
        super().__init__()
        if not 0 <= condition < conditions:
            raise ConfigError(f"AdaLayerNorm: condition must be 0..{conditions - 1}, got {condition}")
        self.condition = condition
        self.scale = nn.Parameter(torch.ones(conditions, channels))
        self.shift = nn.Parameter(torch.zeros(conditions, channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) to the same shape."""
        return F.layer_norm(x, x.shape[-1:], self.scale[self.condition], self.shift[self.condition], EPS)


class Pointwise(Layer):
    """Modules over channels, (B, T, C), for each step of time by itself."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*modules)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self.inner(x.mT).mT


class Mlp(nn.Module):
    """Linear, GELU, linear, a learned gain of each channel.

    Args:
        channels: in and out.
        hidden: in between.
        gain: at first.
    """

    def __init__(self, channels: int, hidden: int, gain: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.gain = nn.Parameter(torch.full((channels,), gain))
        for layer in (self.fc1, self.fc2):
            start_small(layer)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) to the same shape."""
        return self.gain * linear(self.fc2, linear_gelu(self.fc1, x))


class ConvNeXt(Sum):
    """x plus, of it: a convolution of each channel by itself, a norm, an Mlp.

    Args:
        channels, hidden, gain: see Mlp.
        norm: makes a norm (..., C) for a number of channels.
        causal: the convolution sees the past alone.
    """

    def __init__(
        self, channels: int, hidden: int, gain: float, norm: Callable[[int], nn.Module], causal: bool = False
    ) -> None:
        conv = start_small(Conv1d(channels, channels, 7, groups=channels, padding=around(causal)))
        super().__init__([Identity(), Chain([conv, Pointwise(norm(channels), Mlp(channels, hidden, gain))])])


class Decoder(Coder):
    """Latents to waveform, hop samples each: (B, D, T) to (B, 1, T * hop), float32.

    Args:
        dim: D.
        width: channels of the blocks.
        hidden: channels inside a block.
        layers: blocks.
        n_fft, hop, padding: see ISTFTHead.
        norm: makes the norms (..., C) for a number of channels.
        context: what the first convolution's outputs go through, if anything.
        causal: convolutions see the past alone, so that a stream waits for the last windows to overlap and no longer.
        head: makes the last layer of width, n_fft, hop and padding.
    """

    channels = 1

    def __init__(
        self, dim: int, width: int, hidden: int, layers: int, n_fft: int, hop: int,
        padding: Literal["same", "center"] = "same", norm: Callable[[int], nn.Module] = LayerNorm,
        context: Layer | None = None, causal: bool = False,
        head: Callable[[int, int, int, Literal["same", "center"]], ISTFTHead] = ISTFTHead,
    ) -> None:
        super().__init__([
            start_small(Conv1d(dim, width, 7, padding=around(causal))),
            context or Identity(),
            Pointwise(norm(width)),
            Chain([ConvNeXt(width, hidden, 1 / layers, norm, causal) for _ in range(layers)]),
            Pointwise(LayerNorm(width)),
            head(width, n_fft, hop, padding),
        ])  # fmt: skip
        self.dim, self.hop = dim, hop


class Encoder(Coder):
    """Waveform to latents, one for hop samples: (B, 1, T) to (B, D, ceil(T / hop)).

    Args:
        dim: D.
        width: channels of the blocks.
        hidden: channels inside a block.
        layers: blocks.
        n_fft, hop: see Spectra.
        causal: convolutions see the past alone, so that a stream waits for the window of a frame and no longer.
    """

    channels = 1

    def __init__(
        self, dim: int, width: int, hidden: int, layers: int, n_fft: int, hop: int, causal: bool = False
    ) -> None:
        spectra = Spectra(n_fft, hop)
        super().__init__([
            spectra,
            Pointwise(nn.Linear(spectra.outputs, width), LayerNorm(width)),
            Chain([ConvNeXt(width, hidden, 1 / layers, LayerNorm, causal) for _ in range(layers)]),
            Pointwise(LayerNorm(width), nn.Linear(width, dim)),
        ])  # fmt: skip
        self.dim, self.hop = dim, hop


def around(causal: bool) -> Padding:
    """Of a convolution over 7 steps."""
    return Padding(6, 0) if causal else Padding(3, 3)


def start_small(layer: Affine) -> Affine:
    """The layer with small weights and no bias at first, as in Vocos."""
    nn.init.trunc_normal_(layer.weight, std=SPREAD)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


# --- attention in front ----------------------------------------------------------------------------------------------


class Swish(Layer):
    """x * sigmoid(x)."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return F.silu(x)


class Dropout(Layer):
    """Sets a share of the values to 0 in training."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return F.dropout(x, self.share, self.training)


class GroupNorm(OverTime, Layer):
    """32 groups of channels, over all of time."""

    stateless = "its normalisation is over all of time"

    def __init__(self, channels: int) -> None:
        if channels % 32:
            raise ConfigError(f"GroupNorm: 32 must divide the channels, got {channels}")
        super().__init__(channels, 32, EPS)


class Attention(Layer):
    """Every step looks at all steps; one head.

    Args:
        channels: in and out.
    """

    stateless = "its attention is over all of time"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        attend = None if lengths is None else before(lengths, x.shape[2])[:, None, None]  # (B, 1, 1, T)
        q, k, v = (linear(part, x.mT)[:, None] for part in (self.q, self.k, self.v))  # (B, 1, T, C)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)[:, 0]  # (B, T, C)
        return linear(self.out, y).mT


def residual(layers: list[Layer]) -> Sum:
    """x plus what the layers make of it."""
    return Sum([Identity(), Chain(layers)])


class GlobalContext(Chain):
    """Two residual blocks, attention, two residual blocks, a norm: WavTokenizer's `pos_net`.

    Args:
        width: channels, a multiple of 32.
        dropout: share of values dropped in each residual block in training.
    """

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        def block() -> Layer:
            return residual([
                GroupNorm(width), Swish(), Conv1d(width, width, 3, padding=Padding(1, 1)),
                GroupNorm(width), Swish(), Dropout(dropout), Conv1d(width, width, 3, padding=Padding(1, 1)),
            ])  # fmt: skip

        attention = residual([GroupNorm(width), Attention(width)])
        super().__init__([block(), block(), attention, block(), block(), GroupNorm(width)])
