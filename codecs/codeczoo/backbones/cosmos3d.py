"""The causal encoder and decoder of Cosmos video tokenizers, between Haar wavelet patches of space and time.

Source: Cosmos-Tokenizer (arXiv 2501.03575, github.com/NVIDIA/Cosmos-Tokenizer, Apache-2.0), its "factorized" network.
Differs: runs piece by piece with a state of its own. Attention in time looks back `context` steps, where the original's
looks back to the first: its scripts cut clips into 17 frames for that. Parts that the original has and never runs are
absent. Biases start at 0.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from codeczoo.backbones.causal3d import Residual
from codeczoo.core.errors import ConfigError
from codeczoo.nn.attention3d import FrameAttention, TimeAttention
from codeczoo.nn.conv3d import Causal, FrameConv, TimeConv, from_frames, laid_out, to_frames
from codeczoo.nn.haar import HaarClips, HaarFrames
from codeczoo.nn.norm3d import Activated, FrameNorm
from codeczoo.nn.resample3d import Enlarge, TimeRepeat
from codeczoo.nn.stream import Chain, Identity, Layer, VideoCoder


def conv(inputs: int, outputs: int) -> Chain:
    """A convolution within frames, then one over time."""
    return Chain([FrameConv(inputs, outputs, 3), TimeConv(outputs, outputs, 3)])


def block(inputs: int, outputs: int) -> Layer:
    """A residual block."""
    layers = {"norm1": Activated(FrameNorm(inputs, 1)), "conv1": conv(inputs, outputs)}
    layers |= {"norm2": Activated(FrameNorm(outputs, 1)), "conv2": conv(outputs, outputs)}
    return Residual([Identity() if inputs == outputs else FrameConv(inputs, outputs, 1), Chain(layers)])


def attention(dim: int, context: int) -> Chain:
    """Within frames, then back in time."""
    return Chain([FrameAttention(dim, FrameNorm(dim, 1)), TimeAttention(dim, FrameNorm(dim, 1), context)])


def middle(dim: int, context: int) -> Chain:
    """What lies between the levels and the latents."""
    return Chain({"block1": block(dim, dim), "attention": attention(dim, context), "block2": block(dim, dim)})


def blocks(inputs: int, outputs: int, n: int, context: int | None) -> Chain:
    """n residual blocks, each with attention behind it where there is a context."""
    pairs = []
    for size in [inputs] + [outputs] * (n - 1):
        pair: dict[str, Layer] = {"block": block(size, outputs)}
        if context is not None:
            pair["attention"] = attention(outputs, context)
        pairs.append(Chain(pair))
    return Chain(pairs)


class FrameMean(Layer):
    """Means of 2 x 2 pixels."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T, H, W) to (B, C, T, H / 2, W / 2)."""
        return from_frames(F.avg_pool2d(to_frames(x), 2), len(x), x.shape[2])


class TimeMean(Causal):
    """The first step, then means of two steps each: 1 + 2 n steps to 1 + n.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, kernel=2, stride=2)

    def convolve(self, x: Tensor) -> Tensor:
        """See Causal."""
        return laid_out(x).unflatten(2, (-1, 2)).mean(3)


def smaller(dim: int, space: bool, time: bool) -> Chain:
    """Half the rows and columns, half the steps, or both."""
    layers: dict[str, Layer] = {}
    if space:
        layers["space"] = Residual([FrameMean(), FrameConv(dim, dim, 3, 2, (0, 1))])
    if time:
        layers["time"] = Residual([TimeMean(dim), TimeConv(dim, dim, 3, 2)])
    return Chain(layers | {"mix": FrameConv(dim, dim, 1)})


def larger(dim: int, space: bool, time: bool) -> Chain:
    """Twice the steps (the first stays one), twice the rows and columns, or both."""
    layers: dict[str, Layer] = {}
    if time:
        layers |= {"longer": TimeRepeat(), "time": Residual([Identity(), TimeConv(dim, dim, 3)])}
    if space:
        layers |= {"enlarge": Enlarge(), "space": Residual([Identity(), FrameConv(dim, dim, 3)])}
    return Chain(layers | {"mix": FrameConv(dim, dim, 1)})


def _stride(patch: int, levels: int, space: Sequence[int], time: Sequence[int]) -> tuple[int, int, int]:
    """(f, h, w). Raises ConfigError for changes of size that are not between levels."""
    for name, chosen in (("space_levels", space), ("time_levels", time)):
        if len(set(chosen)) != len(chosen) or not all(0 <= level < levels - 1 for level in chosen):
            raise ConfigError(f"Cosmos: {name} must be among 0..{levels - 2}, each once, got {list(chosen)}")
    return patch * 2 ** len(time), patch * 2 ** len(space), patch * 2 ** len(space)


class Encoder(VideoCoder):
    """Video (B, 3, T, H, W) in [-1, 1], T = 1 + f n, to latents (B, D, 1 + n, H / h, W / w).

    Args:
        patch: side of the Haar patches in frames, rows and columns, a power of 2.
        width: channels after the first convolution.
        multipliers: channels of each level as a multiple of `width`.
        n_blocks: residual blocks a level.
        hidden: channels in front of the last 1x1 convolution.
        dim: D.
        space_levels: where rows and columns are halved: i is between levels i and i + 1.
        time_levels: where time is halved.
        attention_levels: levels with attention; the middle has it anyway.
        context: latents that attention in time sees at most, its own included.
    """

    def __init__(
        self, patch: int, width: int, multipliers: Sequence[int], n_blocks: int, hidden: int, dim: int,
        space_levels: Sequence[int], time_levels: Sequence[int], attention_levels: Sequence[int] = (),
        context: int = 16,
    ) -> None:
        widths = [width * m for m in multipliers]
        stride, before = _stride(patch, len(widths), space_levels, time_levels), width
        levels: dict[str, Layer] = {}
        for i, own in enumerate(widths):
            seen = context if i in attention_levels else None
            level: dict[str, Layer] = {"blocks": blocks(before, own, n_blocks, seen)}
            if i in space_levels or i in time_levels:
                level["resize"] = smaller(own, i in space_levels, i in time_levels)
            levels[str(i)], before = Chain(level), own
        layers: dict[str, Layer] = {"patches": HaarClips(patch), "conv_in": conv(3 * patch**3, width)}
        layers |= {"levels": Chain(levels), "middle": middle(before, context)}
        layers |= {"norm_out": Activated(FrameNorm(before, 1)), "conv_out": conv(before, hidden)}
        layers["project"] = FrameConv(hidden, dim, 1)
        super().__init__(layers)
        self.stride, self.dim = stride, dim


class Decoder(VideoCoder):
    """Latents (B, D, 1 + n, h', w') to video (B, 3, 1 + f n, h h', w w') about [-1, 1].

    Args:
        patch, width, multipliers, n_blocks, hidden, dim, attention_levels, context: see Encoder; level 0 is the largest
            and each has one block more.
        space_levels: where rows and columns are doubled: i is between levels i + 1 and i.
        time_levels: where time is doubled.
    """

    def __init__(
        self, patch: int, width: int, multipliers: Sequence[int], n_blocks: int, hidden: int, dim: int,
        space_levels: Sequence[int], time_levels: Sequence[int], attention_levels: Sequence[int] = (),
        context: int = 16,
    ) -> None:
        widths = [width * m for m in multipliers]
        stride, before = _stride(patch, len(widths), space_levels, time_levels), widths[-1]
        layers: dict[str, Layer] = {"project": FrameConv(dim, hidden, 1), "conv_in": conv(hidden, before)}
        layers["middle"] = middle(before, context)
        levels: dict[str, Layer] = {}
        for i, own in reversed(list(enumerate(widths))):
            seen = context if i in attention_levels else None
            level: dict[str, Layer] = {"blocks": blocks(before, own, n_blocks + 1, seen)}
            if i - 1 in space_levels or i - 1 in time_levels:
                level["resize"] = larger(own, i - 1 in space_levels, i - 1 in time_levels)
            levels[str(i)], before = Chain(level), own
        layers |= {"levels": Chain(levels), "norm_out": Activated(FrameNorm(before, 1))}
        layers |= {"conv_out": conv(before, 3 * patch**3), "pixels": HaarFrames(patch)}
        super().__init__(layers)
        self.stride, self.dim = stride, dim
