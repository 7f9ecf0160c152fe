"""In which order the codes of a grid are coded by context, and which codes around each are then known.

Positions have a step; all of one step are coded together, step after step, so that a decoder works on many at once:

- of one axis: its position in a segment of 256 positions; segments do not see each other;
- of more: column + 2 * row, so that the row above is one column ahead; leading axes one after the other.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

SEGMENT = 256
ABSENT = -1  # index of a position that is not there
# By number of axes the offsets of positions whose step is lower.
PAST: dict[int, list[tuple[int, ...]]] = {
    1: [(-1,), (-2,), (-3,), (-4,)],
    2: [(0, -1), (-1, 0), (-1, 1), (-1, -1), (0, -2), (-2, 0)],
    3: [(0, 0, -1), (0, -1, 0), (-1, 0, 0), (0, -1, 1), (0, -1, -1), (-1, 0, 1), (-1, 1, 0), (-1, 0, -1), (-1, -1, 0)],
}
AROUND: dict[int, list[tuple[int, ...]]] = {  # those of the next positions along each axis
    n: [tuple(way * (i == axis) for i in range(n)) for axis in range(n) for way in (-1, 1)] for n in PAST
}


class Positions:
    """The positions of a grid that hold codes, in coding order.

    Args:
        valid: bool (B, S1), which positions of the first axis hold codes.
        shape: (S1, S2, ...), one to three axes.
    """

    def __init__(self, valid: Mask, shape: Sequence[int]) -> None:
        self.shape, self.axes = (len(valid), *shape), len(shape)
        self.valid = np.broadcast_to(valid.reshape(*valid.shape, *[1] * (self.axes - 1)), self.shape)
        stored = np.flatnonzero(self.valid)  # in the order of the block
        step = np.broadcast_to(_steps(shape), self.shape).reshape(-1)[stored]
        self.order = np.argsort(step, kind="stable")  # (N,) of the stored ones
        self.flat = stored[self.order]  # (N,) in the grid (B, S1, S2, ...)
        self._step = step[self.order]

    def __len__(self) -> int:
        return len(self.flat)

    @cached_property
    def at(self) -> tuple[Index, ...]:
        """Sample, S1, S2, ... of each, (N,)."""
        return tuple(np.unravel_index(self.flat, self.shape))

    def steps(self) -> list[tuple[int, int]]:
        """First and last + 1 of each step."""
        edges = [0, *(np.flatnonzero(np.diff(self._step)) + 1).tolist(), len(self)]
        return list(pairwise(edges)) if len(self) else []

    def moved(self, offset: Sequence[int], within_segment: bool) -> Index:
        """Where in the grid what is that far away lies, (N,); ABSENT where there is nothing, or another segment."""
        sample, *own = self.at
        there = [a + by for a, by in zip(own, offset, strict=True)]
        inside = np.all([(a >= 0) & (a < size) for a, size in zip(there, self.shape[1:], strict=True)], axis=0)
        if within_segment and self.axes == 1:
            inside &= there[0] // SEGMENT == own[0] // SEGMENT
        return _index(self, sample, [np.where(inside, a, 0) for a in there], inside)

    def on(self, coarser: "Positions") -> Index:
        """Where in another grid of as many axes each lies, by its share of each axis, (N,)."""
        sample, *own = self.at
        sizes = zip(own, coarser.shape[1:], self.shape[1:], strict=True)
        there = [a * other // size for a, other, size in sizes]
        return _index(coarser, sample, there, np.ones(len(self), bool))


def _index(grid: Positions, sample: Index, there: Sequence[Index], inside: Mask) -> Index:
    flat = np.ravel_multi_index((sample, *there), grid.shape)
    return np.where(inside & grid.valid.reshape(-1)[flat], flat, ABSENT)


def _steps(shape: Sequence[int]) -> Index:
    """The step of each position, (S1, S2, ...)."""
    if len(shape) == 1:
        return np.arange(shape[0]) % SEGMENT
    *leading, rows, columns = shape
    plane = np.arange(columns) + 2 * np.arange(rows)[:, None]
    long = columns + 2 * (rows - 1)
    outer = np.arange(int(np.prod(leading))).reshape(*leading, 1, 1) * long
    return outer + plane
