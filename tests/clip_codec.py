"""A video codec of two streams that needs no training: rounded means of blocks, then of what they leave."""

from typing import Any

import torch
from torch import Tensor, nn

from codeczoo.core.base import Codec
from codeczoo.core.types import Reconstruction, StreamSpec, Tokens, TokenSpec
from codeczoo.export.batches import Runner

STRIDES = ((4, 8, 8), (2, 4, 4))
LEVELS = 64


def smooth_clip(frames: int = 17, height: int = 32, width: int = 48, seed: int = 0) -> Tensor:
    """A pattern that moves to the right over slowly changing colours, (3, T, H, W) in [0, 1]."""
    t, y, x = torch.meshgrid(*(torch.arange(n) for n in (frames, height, width)), indexing="ij")
    wave = torch.sin(0.4 * (x - t) + seed) * torch.cos(0.25 * y + 2 * seed)
    return torch.stack([0.5 + 0.3 * wave + 0.15 * torch.sin(0.05 * (x + y) + phase) for phase in (0, 2, 4)])


class Means(Codec):
    """Codes are means of red, green and blue over blocks; the second stream has those of the first one's error."""

    def __init__(self, vocab_size: int = LEVELS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        axes, shape = ("time", "row", "column"), (None, None, None)
        streams = tuple(
            StreamSpec((vocab_size,) * 3, axes, shape, 1 / (f * h * w), name, (f, h, w))
            for name, (f, h, w) in zip(("coarse", "fine"), STRIDES, strict=True)
        )
        self.levels = vocab_size - 1
        self.spec = TokenSpec("video", "pixel", streams, ("positions", "streams"))

    def encode(self, x: Tensor, *, n_streams: int | None = None, **no: Any) -> Tokens:  # type: ignore[override]
        left, codes = filled(x), []
        for s, stride in enumerate(STRIDES):
            mean = blocks(left, stride) + (0.5 if s else 0.0)
            codes.append((mean.clamp(0, 1) * self.levels).round().long())
            left = left - self.part(s, codes[-1])
        return self.tokens(codes, x).prefix(streams=n_streams)

    def decode(self, tokens: Tokens) -> Tensor:
        parts = [self.part(s, codes) for s, codes in enumerate(tokens.streams)]
        frames, height, width = tokens.size.amax(0).tolist()
        return torch.stack(parts).sum(0)[:, :, :frames, :height, :width].clamp(0, 1)

    def part(self, s: int, codes: Tensor) -> Tensor:
        f, h, w = STRIDES[s]
        mean = codes / self.levels - (0.5 if s else 0.0)
        mean = torch.cat([mean[:, :, :1], mean[:, :, 1:].repeat_interleave(f, 2)], 2)
        return mean.repeat_interleave(h, 3).repeat_interleave(w, 4)

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        raise NotImplementedError


def filled(x: Tensor) -> Tensor:
    """The last frame, row and column repeated up to multiples of the coarse stride."""
    for axis, (offset, stride) in zip((2, 3, 4), ((1, 4), (0, 8), (0, 8)), strict=True):
        more = -(x.shape[axis] - offset) % stride
        x = torch.cat([x, x.narrow(axis, x.shape[axis] - 1, 1).repeat_interleave(more, axis)], axis)
    return x


def blocks(x: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Means over blocks; the first frame stands alone in time."""
    first = nn.functional.avg_pool3d(x[:, :, :1], (1, *stride[1:]))
    return torch.cat([first, nn.functional.avg_pool3d(x[:, :, 1:], stride)], 2) if x.shape[2] > 1 else first


def runner_of(codec: Codec) -> Runner:
    return Runner(codec, "means", "0123456789abcdef")
