"""Stages of causal video networks: residual blocks on one grid of positions, and the way to another grid."""

from collections.abc import Sequence

from torch import nn

from codeczoo.core.errors import ConfigError
from codeczoo.nn.conv3d import FrameConv, TimeConv
from codeczoo.nn.norm3d import PositionNorm
from codeczoo.nn.resample3d import Spread, TimeRepeat
from codeczoo.nn.stream import Chain, Identity, Layer, SiLU, Sum

Stride = tuple[int, int, int]


def residual_blocks(dim: int, n: int) -> list[Layer]:
    """n blocks of a convolution of frames and one over time, which change nothing at the start of training."""
    return [_block(dim) for _ in range(n)]


def _block(dim: int) -> Layer:
    time = TimeConv(dim, dim, 3)
    nn.init.zeros_(time.weight)
    return Sum([Identity(), Chain([PositionNorm(dim), FrameConv(dim, dim, 3), SiLU(), time])])


class Stage(Chain):
    """Base: layers between two grids, where no step looks at later ones.

    Args:
        layers: in order.
        inputs, outputs: channels.
        stride: (f, h, w), positions of the finer grid that one of the coarser stands for.
    """

    def __init__(self, layers: Sequence[Layer], inputs: int, outputs: int, stride: Stride) -> None:
        super().__init__(layers)
        self.inputs, self.outputs, self.stride = inputs, outputs, stride


class Down(Stage):
    """To a coarser grid, and residual blocks there: (B, C, 1 + f n, h H, w W) to (B, C', 1 + n, H, W).

    Args:
        inputs, outputs: channels.
        stride: (f, h, w) of 1 or 2 each, h = w.
        blocks: residual blocks.
    """

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int], blocks: int) -> None:
        own = checked(stride)
        layers: list[Layer] = [FrameConv(inputs, outputs, 3, own[1], (0, 1) if own[1] == 2 else None)]
        if own[0] == 2:
            layers.append(TimeConv(outputs, outputs, 3, 2))
        super().__init__([*layers, *residual_blocks(outputs, blocks)], inputs, outputs, own)


class Up(Stage):
    """Residual blocks, and then to a finer grid: (B, C, 1 + n, H, W) to (B, C', 1 + f n, h H, w W).

    Args:
        inputs, outputs: channels.
        stride: (f, h, w) of 1 or 2 each, h = w.
        blocks: residual blocks.
    """

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int], blocks: int) -> None:
        own = checked(stride)
        layers = [*residual_blocks(inputs, blocks), FrameConv(inputs, outputs * own[1] * own[2], 1)]
        if own[1] == 2:
            layers.append(Spread())
        if own[0] == 2:
            layers += [TimeRepeat(), TimeConv(outputs, outputs, 3)]
        super().__init__(layers, inputs, outputs, own)


def checked(stride: Sequence[int]) -> Stride:
    """The stride. Raises ConfigError for one that no stage has."""
    if len(stride) != 3 or not set(stride) <= {1, 2} or stride[1] != stride[2]:
        raise ConfigError(f"the stride of a stage must be (f, h, w) of 1 or 2 each with h = w, got {list(stride)}")
    return stride[0], stride[1], stride[2]
