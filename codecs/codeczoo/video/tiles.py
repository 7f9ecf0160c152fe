"""Frames too large to be decoded as a whole: in tiles that overlap."""

from collections.abc import Sequence
from math import lcm
from typing import Protocol

import torch
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.io.fit import ramp, starts
from codeczoo.video.codec import VideoCodec

OVERLAP = 4  # a tile overlaps its neighbours by at least this fraction of it


class Frames(Protocol):
    """Codes piece by piece to frames."""

    def decode(self, streams: tuple[Tensor, ...], last: bool) -> Tensor:
        """As `Stream.decode`."""


class Whole:
    """Each frame as a whole: exactly what the codec gives.

    Args:
        codec: in evaluation mode.
    """

    def __init__(self, codec: VideoCodec) -> None:
        self._stream = codec.stream()

    def decode(self, streams: tuple[Tensor, ...], last: bool) -> Tensor:
        """See Frames."""
        return self._stream.decode(streams, last)


class Tiles:
    """Each tile by itself, with a stream of its own; where they overlap, a weighted mean, so that no seam shows.

    It takes less memory than whole frames. As a tile does not see its surroundings, the frames are close to, but not
    the same as, those that the codec gives: the nearer to a tile's edge, the less alike, and where a decoder has
    attention over the whole frame, everywhere.

    Args:
        codec: in evaluation mode.
        strides: (h, w) of each stream, pixels.
        size: (H, W) of the frames, pixels.
        tile: longest side of a tile, pixels.

    Raises:
        InputError: a tile that is too small.
    """

    def __init__(self, codec: VideoCodec, strides: Sequence[tuple[int, int]], size: tuple[int, int], tile: int) -> None:
        self._strides, self._size = strides, size
        self._unit = [lcm(*(stride[axis] for stride in strides)) for axis in (0, 1)]  # pixels that go together
        if tile < 2 * max(self._unit):
            raise InputError(f"a tile of this codec has at least {2 * max(self._unit)} pixels a side, got {tile}")
        spans = [self._spans(axis, tile) for axis in (0, 1)]
        self._tiles = [(rows, columns, codec.stream()) for rows in spans[0] for columns in spans[1]]
        windows = [ramp(end - begin, (end - begin) // OVERLAP) for begin, end in (spans[0][0], spans[1][0])]
        self._window = (windows[0][:, None] * windows[1]).float()  # (h, w)
        self._weight = torch.zeros([max(end for _, end in spans[axis]) for axis in (0, 1)])
        for rows, columns, _ in self._tiles:
            self._weight[slice(*rows), slice(*columns)] += self._window

    def _spans(self, axis: int, tile: int) -> list[tuple[int, int]]:
        """Where tiles begin and end along one axis, pixels: all of one length, as few as reach the end."""
        unit = self._unit[axis]
        total = -(-self._size[axis] // unit)
        length = min(total, tile // unit)
        overlap = max(1, -(-length // OVERLAP)) if length < total else 0
        return [(start * unit, (start + length) * unit) for start in starts(total, length, overlap)]

    def decode(self, streams: tuple[Tensor, ...], last: bool) -> Tensor:
        """See Frames."""
        mixed: Tensor | None = None
        for rows, columns, stream in self._tiles:
            part = tuple(
                codes[..., rows[0] // h : rows[1] // h, columns[0] // w : columns[1] // w]
                for codes, (h, w) in zip(streams, self._strides, strict=True)
            )
            x_hat = stream.decode(part, last)
            if mixed is None:
                mixed = x_hat.new_zeros(*x_hat.shape[:3], *self._weight.shape)
                window, weight = self._window.to(x_hat), self._weight.to(x_hat)
            mixed[..., slice(*rows), slice(*columns)] += x_hat * window
        assert mixed is not None
        return mixed / weight
