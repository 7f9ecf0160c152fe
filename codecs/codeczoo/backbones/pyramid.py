"""A causal pyramid for video: Haar wavelets instead of pixels, then stages to ever coarser grids, features of several.

Ours: nothing is published of HiTVideo's network. No convolution runs at full size, and normalisation is by position, so
that nothing looks ahead in time and clips run piece by piece.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError
from codeczoo.nn.conv3d import FrameConv
from codeczoo.nn.haar import HaarClips, HaarFrames
from codeczoo.nn.norm3d import PositionNorm
from codeczoo.nn.stage3d import Down, Stride, Up, checked, residual_blocks
from codeczoo.nn.stream import Chain, Layer, VideoCoder

PIXELS = 3  # channels of a video
DETAIL = 1 / 16  # about how large the bands of details are beside those of means, in video of 128 px


class Scaled(Layer):
    """Bands of Haar patches (B, C, t, h, w), all but the first, the means, times a number.

    Args:
        by: the number.
    """

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return torch.cat([x[:, :PIXELS], x[:, PIXELS:] * self.by], 1)


class Encoder(nn.Module):
    """Video (B, 3, T, H, W), T = 1 + f n, to features (B, D, 1 + n, H / h, W / w) on several grids, coarse to fine.

    Args:
        patch: frames, rows and columns of a Haar patch, a power of 2; patches are the first grid.
        widths: channels of each stage.
        strides: (f, h, w) between each stage and the next, of 1 or 2 each; one less than widths.
        blocks: residual blocks of each stage.
        levels: how many of the last stages give features, with as many channels as they have.

    Attributes:
        strides: frames, rows and columns of a position of each feature, coarse to fine.
        dims: channels of each feature.

    Raises:
        ConfigError: numbers that do not fit together.
    """

    def __init__(
        self, patch: int, widths: Sequence[int], strides: Sequence[Sequence[int]], blocks: Sequence[int], levels: int
    ) -> None:
        super().__init__()
        steps = _checked(widths, strides, blocks)
        if not 1 <= levels <= len(widths):
            raise ConfigError(f"pyramid: levels must be 1..{len(widths)}, got {levels}")
        first = FrameConv(PIXELS * patch**3, widths[0], 1)
        bands = [HaarClips(patch), Scaled(1 / DETAIL)]
        stages: list[Layer] = [Chain([*bands, first, *residual_blocks(widths[0], blocks[0])])]
        grids: list[Stride] = [(patch, patch, patch)]
        for i, (f, h, w) in enumerate(steps):
            stages.append(Down(widths[i], widths[i + 1], (f, h, w), blocks[i + 1]))
            grids.append((grids[-1][0] * f, grids[-1][1] * h, grids[-1][2] * w))
        self.skipped = len(widths) - levels
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(Chain([PositionNorm(w), FrameConv(w, w, 1)]) for w in widths[self.skipped :])
        self.strides, self.dims = tuple(grids[: -levels - 1 : -1]), tuple(widths[: -levels - 1 : -1])

    @property
    def layers(self) -> list[Layer]:
        """The stages."""
        return list(self.stages)  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        """x to the features, coarse to fine; `lengths` changes nothing, since no step looks at later ones."""
        return self.step(x, None)

    def needs(self, n: int) -> int:
        """Frames that must have come before the first n steps of the coarsest feature do."""
        for stage in reversed(self.layers):
            n = stage.needs(n)
        return n

    def check_streamable(self) -> None:
        """Every part can run piece by piece."""

    def begin(self) -> list[Any]:
        """The state of a new stream."""
        return [stage.begin() for stage in self.layers]

    def step(self, x: Tensor, state: list[Any] | None, last: bool = False) -> tuple[Tensor, ...]:
        """The next frames to the steps of each feature that can be told by now; without a state x is the whole clip."""
        features = []
        for i, stage in enumerate(self.layers):
            x = stage(x) if state is None else stage.step(x, state[i], last)
            if i >= self.skipped:
                features.append(self.heads[i - self.skipped](x))
        return tuple(features[::-1])


class Decoder(VideoCoder):
    """What a top-down quantizer gives, (B, D, 1 + n, h', w'), to video (B, 3, 1 + f n, h h', w w').

    Args:
        dim: D.
        patch: see Encoder; patches are the last grid.
        widths: channels of each stage, coarse to fine.
        strides: (f, h, w) between each stage and the next, of 1 or 2 each; one less than widths.
        blocks: residual blocks of each stage.

    Raises:
        ConfigError: numbers that do not fit together.
    """

    def __init__(
        self, dim: int, patch: int, widths: Sequence[int], strides: Sequence[Sequence[int]], blocks: Sequence[int]
    ) -> None:
        steps = _checked(widths, strides, blocks)
        layers: list[Layer] = [FrameConv(dim, widths[0], 3)]
        f = h = w = patch
        for i, own in enumerate(steps):
            layers.append(Up(widths[i], widths[i + 1], own, blocks[i]))
            f, h, w = f * own[0], h * own[1], w * own[2]
        layers += residual_blocks(widths[-1], blocks[-1])
        last = FrameConv(widths[-1], PIXELS * patch**3, 1)
        nn.init.zeros_(last.weight)  # begins with grey
        layers += [PositionNorm(widths[-1]), last, Scaled(DETAIL), HaarFrames(patch)]
        super().__init__(layers)
        self.stride, self.dim = (f, h, w), dim


def _checked(widths: Sequence[int], strides: Sequence[Sequence[int]], blocks: Sequence[int]) -> list[Stride]:
    if not len(widths) == len(blocks) == len(strides) + 1:
        got = f"{len(widths)}, {len(blocks)} and {len(strides)}"
        raise ConfigError(f"pyramid: as many widths as blocks and one stride less are wanted, got {got}")
    return [checked(stride) for stride in strides]
