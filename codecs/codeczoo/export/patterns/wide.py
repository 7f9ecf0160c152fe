"""Parallel, Delay, CoarseFirst: a row of ids for each codebook, for models with an embedding table for each.

Source: AudioCraft's codebook patterns. A sample of T positions takes S steps. Step 0 holds the special id in every row;
in row k the codes stand one after the other from step `starts(T)[k]` on; the special id is everywhere else.
Differs: several samples follow one another, each with its own step 0; AudioCraft may cut the last steps, this does not.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.patterns.base import Ids, Offsets, Pattern, Vocabulary, checked_codebooks

SPECIAL = "special"


class Wide(Pattern):
    """One stream in K rows. Codebooks share their ids, for models with an embedding table for each, or have their own.

    The special id follows the last code. Rows of codebooks that a document lacks hold nothing else.

    Args:
        spec: of the codec, one stream.
        codebooks: K, rows; None: all of the codec.
        vocab_offset: id of code 0 of the first codebook.
        offsets: "shared" or "own" ids of the codebooks.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("codebooks", "offsets")
    rows: int

    def __init__(
        self, spec: TokenSpec, codebooks: int | None = None, vocab_offset: int = 0, offsets: Offsets = "shared"
    ) -> None:
        name = type(self).__name__
        if len(spec.streams) != 1:
            raise InputError(f"pattern {name} takes codecs of one stream, this one has {len(spec.streams)}")
        self.codebooks = self.rows = checked_codebooks(spec, codebooks)
        self.offsets = offsets
        super().__init__(spec, Vocabulary.of(spec, vocab_offset, (SPECIAL,), offsets))

    @abstractmethod
    def starts(self, positions: int) -> Ids:
        """First step of each row's codes, int64 (K,), at least 1; that of row 0 is the same for every length."""

    def layout(self, positions: int) -> Ids:
        """Which position stands where, int64 (K, S); -1 where the special id stands."""
        starts = self.starts(positions)[:, None]
        steps = np.arange(int(starts.max()) + positions) - starts  # (K, S)
        return np.where((steps >= 0) & (steps < positions), steps, -1)

    def ids(self, tokens: Tokens) -> Ids:
        self._check(tokens)
        return np.concatenate([self._rows(tokens[i]) for i in range(tokens.batch)], axis=1)

    def _rows(self, sample: Tokens) -> Ids:
        codes = sample.codes[0].flatten(1).cpu().numpy()  # (K', P)
        if not codes.shape[1] or len(codes) > self.rows:
            raise InputError(f"{codes.shape[1]} positions of {len(codes)} codebooks; wanted 1.. of 1..{self.rows}")
        layout = self.layout(codes.shape[1])
        filled = np.full(layout.shape, self.vocabulary.special[SPECIAL])
        for row, book, steps, first in zip(filled, codes, layout, self.vocabulary.first, strict=False):
            row[steps >= 0] = first + book  # absent codebooks stay special
        return filled

    def books(self, ids: Ids, grid: Sequence[int] | None = None) -> Ids:
        """See Pattern."""
        return np.where(ids == self.vocabulary.special[SPECIAL], -1, np.arange(len(ids))[:, None])

    def tokens(
        self, ids: Sequence[Any] | Ids, size: Sequence[int] | None = None, grid: Sequence[int] | None = None
    ) -> Tokens:
        table = np.asarray(ids, dtype=np.int64)
        if table.ndim != 2 or len(table) != self.rows or not table.shape[1]:
            raise FormatError(f"ids must be ({self.rows} codebooks, steps), got {table.shape}")
        used = np.flatnonzero((table != self.vocabulary.special[SPECIAL]).any(1))
        present = int(used[-1]) + 1 if len(used) else 1
        samples, place = [], 0
        while place < table.shape[1]:
            codes, steps = self._sample(table, place, present)
            shape = self._shape(0, codes.shape[1], list(grid or ()))
            samples.append((torch.from_numpy(codes).view(1, present, *shape),))  # (1, K', *S)
            place += steps
        return self._document(samples, size)

    def _sample(self, table: Ids, place: int, present: int) -> tuple[Ids, int]:
        """Codes (K', P) of the sample that begins at step `place`, and how many steps it takes.

        Row 0 tells the number of positions; then everything must stand where the layout says.
        """
        special, first = self.vocabulary.special[SPECIAL], self.vocabulary.first[: self.rows, None]
        begin = place + int(self.starts(1)[0])
        ends = np.flatnonzero(table[0, begin:] == special)
        positions = int(ends[0]) if len(ends) else max(0, table.shape[1] - begin)
        layout = self.layout(max(1, positions))
        layout[present:] = -1
        found = table[:, place : place + layout.shape[1]]
        due = layout[:, : found.shape[1]] >= 0
        limit = first + self.vocabulary.sizes[: self.rows, None]
        right = np.where(due, (found >= first) & (found < limit), found == special)
        if not right.all():
            step, row = np.argwhere(~right.T)[0]
            wanted = (
                f"a code of {first[row, 0]}..{limit[row, 0] - 1}" if due[row, step] else f"the special id {special}"
            )
            raise FormatError(f"step {place + step}, codebook {row}: id {found[row, step]}, wanted {wanted}")
        if found.shape[1] < layout.shape[1]:
            raise FormatError(f"step {table.shape[1]}: the ids end within the sample that begins at step {place}")
        return found[:present][due[:present]].reshape(present, -1) - first[:present], layout.shape[1]


class Parallel(Wide):
    """All codebooks of position t at step 1 + t: S = T + 1."""

    def starts(self, positions: int) -> Ids:
        return np.ones(self.rows, dtype=np.int64)


class Delay(Wide):
    """Codebook k of position t at step 1 + t + delays[k]: S = T + 1 + max(delays).

    Args:
        spec, codebooks, vocab_offset, offsets: see Wide.
        delays: steps, at least 0, one for each row; None: 0, 1 .. K - 1, as MusicGen's. Moshi's are 0, 1, 1 .. 1.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = (*Wide.OPTIONS, "delays")

    def __init__(
        self,
        spec: TokenSpec,
        codebooks: int | None = None,
        delays: Sequence[int] | None = None,
        vocab_offset: int = 0,
        offsets: Offsets = "shared",
    ) -> None:
        super().__init__(spec, codebooks, vocab_offset, offsets)
        self.delays = list(range(self.rows)) if delays is None else _checked(delays, self.rows)

    def starts(self, positions: int) -> Ids:
        return 1 + np.array(self.delays)


class CoarseFirst(Wide):
    """The first codebook of all positions, then all others in parallel: S = 2 T + 1 + max(delays).

    Position t of codebook 0 stands at step 1 + t, of codebook k > 0 at step 1 + T + t + delays[k - 1].

    Args:
        spec, codebooks, vocab_offset, offsets: see Wide.
        delays: steps, at least 0, one for each row but the first; None: all 0.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = (*Wide.OPTIONS, "delays")

    def __init__(
        self,
        spec: TokenSpec,
        codebooks: int | None = None,
        delays: Sequence[int] | None = None,
        vocab_offset: int = 0,
        offsets: Offsets = "shared",
    ) -> None:
        super().__init__(spec, codebooks, vocab_offset, offsets)
        self.delays = [0] * (self.rows - 1) if delays is None else _checked(delays, self.rows - 1)

    def starts(self, positions: int) -> Ids:
        return 1 + np.array([0, *(positions + delay for delay in self.delays)])


def _checked(delays: Sequence[int], wanted: int) -> list[int]:
    if len(delays) != wanted or min(delays, default=0) < 0:
        raise InputError(f"delays must be {wanted} numbers of at least 0, got {list(delays)}")
    return [int(delay) for delay in delays]
