"""Flat: everything in one row of ids."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.patterns.base import Ids, Pattern, Vocabulary

SPECIALS = ("start", "end", "pad", "separator")


class Flat(Pattern):
    """Everything in one row: `start`, then the samples with `separator` between them, then `end`.

    One sample is its streams coarse to fine; one stream its positions in row-major order; one position its codebooks
    coarse to fine. Every codebook has ids of its own, so an id alone says its codebook.

    Args:
        spec: of the codec.
        vocab_offset: id of code 0 of the first codebook.
    """

    def __init__(self, spec: TokenSpec, vocab_offset: int = 0) -> None:
        super().__init__(spec, Vocabulary.of(spec, vocab_offset, SPECIALS, shared=False))
        first, sizes = self.vocabulary.first, self.vocabulary.sizes
        self._edges = np.append(first, first[-1] + sizes[-1])  # codebook i has the ids edges[i] .. edges[i + 1] - 1

    def ids(self, tokens: Tokens) -> Ids:
        self._check(tokens)
        special = self.vocabulary.special
        parts = [np.array([special["start"]])]
        for i in range(tokens.batch):
            parts += [*self._rows(tokens[i]), np.array([special["separator"]])]
        parts[-1] = np.array([special["end"]])
        return np.concatenate(parts)

    def _rows(self, sample: Tokens) -> list[Ids]:
        rows = []
        for s, codes in enumerate(sample.streams):
            first = self.vocabulary.first[self.vocabulary.stream == s][: codes.shape[1], None]
            rows.append((codes[0].flatten(1).cpu().numpy() + first).T.reshape(-1))  # (K, P) -> (P * K,)
        return rows

    def tokens(
        self, ids: Sequence[Any] | Ids, size: Sequence[int] | None = None, grid: Sequence[int] | None = None
    ) -> Tokens:
        row = np.asarray(ids, dtype=np.int64)
        special = self.vocabulary.special
        if row.ndim != 1 or len(row) < 3 or row[0] != special["start"] or row[-1] != special["end"]:
            raise FormatError(f"ids must go from start ({special['start']}) to end ({special['end']})")
        cuts = [0, *np.flatnonzero(row == special["separator"]).tolist(), len(row) - 1]
        return self._document([self._sample(row[a + 1 : b], a + 1, grid) for a, b in pairwise(cuts)], size)

    def _sample(self, row: Ids, place: int, grid: Sequence[int] | None) -> tuple[torch.Tensor, ...]:
        """The streams of one sample, (1, K, *S) each; `place` of its first id is for messages."""
        book = np.searchsorted(self._edges, row, side="right") - 1  # -1 and n are no codebooks
        streams: list[Ids] = []
        done = 0
        for s in range(len(self.spec.streams)):
            books = np.flatnonzero(self.vocabulary.stream == s)
            mine = book[done : done + _run((book[done:] >= books[0]) & (book[done:] <= books[-1]))]
            if not len(mine):
                break
            k = int(mine.max() - books[0]) + 1
            right = _run(mine == np.resize(books[:k], len(mine)))
            if right < len(mine) or right % k:
                done += right
                break
            codes = row[done : done + right] - self.vocabulary.first[mine]
            streams.append(codes.reshape(-1, k).T)  # (P * K,) -> (K, P)
            done += right
        if done < len(row) or not streams:
            found = f"id {row[done]}" if done < len(row) else "the end of the sample"
            raise FormatError(f"place {place + done}: {found} does not belong there")
        axes = list(grid or ())
        return tuple(
            torch.from_numpy(codes.copy()).view(1, len(codes), *self._shape(s, codes.shape[1], axes))  # (1, K, *S)
            for s, codes in enumerate(streams)
        )


def _run(mask: NDArray[np.bool_]) -> int:
    """How many leading entries are true."""
    return len(mask) if mask.all() else int(mask.argmin())
