"""VidTok's causal encoder and decoder: convolutions of frames and over time in turn, attention within frames.

Source: VidTok (arXiv 2412.13061), github.com/microsoft/VidTok (MIT).
Differs: runs piece by piece with a state of its own. Time begins with the first frame for ever, as in VidTok 1.1, where
each level of n frames has (n + 1) / 2 after it; what 1.1 computes from copies of the first frame is not computed. With
`pad` "constant" the copies are there, and zeros in front of them, as in VidTok 1.0. Biases start at 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError, nearest
from codeczoo.nn.attention3d import FrameAttention
from codeczoo.nn.conv3d import Conv3d, FrameConv, MixedConv3d, TimeConv, TimePad
from codeczoo.nn.norm3d import Activated, FrameNorm, PositionNorm
from codeczoo.nn.resample3d import Cut, Enlarge, Lead, TimeBlend, TimeRepeat
from codeczoo.nn.stream import Chain, Identity, Layer, Sum, VideoCoder

NORMS: dict[str, type[PositionNorm] | type[FrameNorm]] = {"position": PositionNorm, "frame": FrameNorm}


@dataclass(frozen=True)
class Style:
    """How all layers of one network are made.

    Args:
        norm: one of NORMS.
        pad: what comes in front of the first frame.
    """

    norm: str
    pad: TimePad

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ConfigError(f"causal3d: no norm '{self.norm}'; {nearest(self.norm, NORMS)}")
        if self.pad not in ("replicate", "constant"):
            raise ConfigError(f"causal3d: pad must be replicate or constant, got '{self.pad}'")

    @property
    def led(self) -> bool:
        """Whether copies of the first frame come in front: halving time then needs as many frames as it sees anew."""
        return self.pad == "constant"

    def normed(self, channels: int) -> PositionNorm | FrameNorm:
        """A normalisation."""
        return NORMS[self.norm](channels)

    def activated(self, channels: int) -> Layer:
        """A normalisation with an activation behind it."""
        return Activated(self.normed(channels))

    def conv(self, inputs: int, outputs: int) -> Layer:
        """Over frames and time."""
        return Conv3d(inputs, outputs, 3, pad=self.pad)

    def frame_block(self, inputs: int, outputs: int) -> Layer:
        """A residual block within frames."""
        shortcut = Identity() if inputs == outputs else FrameConv(inputs, outputs, 1)
        return self._block(inputs, outputs, FrameConv(inputs, outputs, 3), FrameConv(outputs, outputs, 3), shortcut)

    def time_block(self, dim: int) -> Layer:
        """A residual block over time, which does nothing at the start of training."""
        conv1, conv2 = (TimeConv(dim, dim, 3, pad=self.pad) for _ in range(2))
        nn.init.zeros_(conv2.weight)
        return self._block(dim, dim, conv1, conv2, Identity())

    def block(self, dim: int) -> Layer:
        """A residual block over frames and time."""
        return self._block(dim, dim, self.conv(dim, dim), self.conv(dim, dim), Identity())

    def _block(self, inputs: int, outputs: int, conv1: Layer, conv2: Layer, shortcut: Layer) -> Layer:
        layers = {"norm1": self.activated(inputs), "conv1": conv1, "norm2": self.activated(outputs), "conv2": conv2}
        return Residual([shortcut, Chain(layers)])

    def pairs(self, inputs: int, outputs: int, n: int) -> Chain:
        """n times a block within frames and one over time."""
        sizes = [inputs] + [outputs] * (n - 1)
        return Chain(Chain({"frame": self.frame_block(i, outputs), "time": self.time_block(outputs)}) for i in sizes)

    def middle(self, dim: int) -> Chain:
        """What lies between the levels and the latents."""
        attention = FrameAttention(dim, self.normed(dim))
        return Chain({"block1": self.block(dim), "attention": attention, "block2": self.block(dim)})


class Residual(Sum):
    """A shortcut, and a branch that ends with a convolution, whose output the sum is written over in inference."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        shortcut, branch = self.layers
        y, same = branch(x, lengths), shortcut(x, lengths)
        # FSDP gathers a branch's weights for backward when the gradient reaches the tensor that the branch gave.
        return y + same if torch.is_grad_enabled() else y.add_(same)


def _strides(name: str, levels: int, times: Sequence[int]) -> tuple[int, int, int]:
    """(f, h, w) of so many levels of which those in `times` change time. Raises ConfigError."""
    if len(set(times)) != len(times) or not all(0 <= level < levels - 1 for level in times):
        raise ConfigError(f"causal3d {name}: time_levels must be among 0..{levels - 2}, each once, got {list(times)}")
    space = 2 ** (levels - 1)
    return 2 ** len(times), space, space


class Encoder(VideoCoder):
    """Video (B, 3, T, H, W), T = 1 + f n, to latents (B, D, 1 + n, H / h, W / w).

    Args:
        dim: D.
        width: channels of the first level.
        multipliers: channels of each level as a multiple of `width`; each level but the last halves rows and columns.
        blocks: pairs of residual blocks a level.
        time_levels: where time is halved: i is between levels i and i + 1.
        norm: "position" (over channels) or "frame" (in 32 groups).
        pad: see Style; "replicate" but for the weights of VidTok 1.0.
    """

    def __init__(
        self, dim: int, width: int, multipliers: Sequence[int], blocks: int, time_levels: Sequence[int],
        norm: str = "position", pad: TimePad = "replicate",
    ) -> None:
        style, widths = Style(norm, pad), [width * m for m in multipliers]
        stride, dim_in = _strides("Encoder", len(widths), time_levels), width
        levels: dict[str, Layer] = {}
        for i, own in enumerate(widths):
            level: dict[str, Layer] = {"blocks": style.pairs(dim_in, own, blocks)}
            if i < len(widths) - 1:
                level["frame"] = FrameConv(own, own, 3, 2, (0, 1))
            if i in time_levels:
                level["time"] = MixedConv3d(own, 2, left=1 if style.led else 2, pad=pad)
            levels[str(i)], dim_in = Chain(level), own
        layers: dict[str, Layer] = {"lead": Lead(stride[0] - 1)} if style.led else {}
        layers |= {"conv_in": style.conv(3, width), "levels": Chain(levels), "middle": style.middle(dim_in)}
        layers |= {"norm_out": style.activated(dim_in), "conv_out": style.conv(dim_in, dim)}
        super().__init__(layers)
        self.stride, self.dim = stride, dim


class Decoder(VideoCoder):
    """Latents (B, D, 1 + n, h', w') to video (B, 3, 1 + f n, h h', w w').

    Args:
        dim, width, multipliers, norm, pad: see Encoder; level 0 is the largest.
        blocks: pairs of residual blocks a level.
        time_levels: where time is doubled: i is between levels i + 1 and i.
        up: how steps in time are doubled, "repeat", or "blend", which looks at the next latent (VidTok 1.1).
    """

    def __init__(
        self, dim: int, width: int, multipliers: Sequence[int], blocks: int, time_levels: Sequence[int],
        norm: str = "position", pad: TimePad = "replicate", up: str = "repeat",
    ) -> None:
        style, widths = Style(norm, pad), [width * m for m in multipliers]
        stride, dim_in = _strides("Decoder", len(widths), time_levels), widths[-1]
        levels: dict[str, Layer] = {}
        for i, own in reversed(list(enumerate(widths))):
            level: dict[str, Layer] = {"blocks": style.pairs(dim_in, own, blocks)}
            if i:
                level |= {"enlarge": Enlarge(), "frame": FrameConv(own, own, 3)}
            if i - 1 in time_levels:
                level |= {"longer": doubled(up, style), "time": MixedConv3d(own, pad=pad)}
            levels[str(i)], dim_in = Chain(level), own
        layers: dict[str, Layer] = {"conv_in": style.conv(dim, widths[-1]), "middle": style.middle(widths[-1])}
        layers |= {"levels": Chain(levels), "norm_out": style.activated(dim_in)}
        layers["conv_out"] = style.conv(dim_in, 3)
        if style.led:
            layers["cut"] = Cut(stride[0] - 1)
        super().__init__(layers)
        self.stride, self.dim = stride, dim


def doubled(up: str, style: Style) -> Layer:
    """Twice the steps in time. Raises ConfigError for an unknown `up`."""
    if up == "repeat":
        return TimeRepeat(first=2 if style.led else 1)
    if up == "blend" and not style.led:
        return TimeBlend()
    raise ConfigError(f"causal3d: up must be repeat, or blend where pad is replicate, got '{up}' and '{style.pad}'")
