"""Patterns: how the tokens of one document become the ids that a language model reads, and back, exactly.

A document is what one file became: one sample, or several when the picture was cut into tiles. Another order of ids
is another class; the class path and its arguments stand in the header of every export.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import Tokens, TokenSpec

Ids = NDArray[np.int64]
SPECIALS = ("start", "end", "pad", "separator")


class Vocabulary:
    """Which id means what: one block per codebook (coarse to fine, stream by stream), then the special ids.

    Args:
        spec: of the codec.
        offset: id of code 0 of the first codebook, e.g. the size of a text vocabulary that comes before.

    Attributes:
        edges: int64 (n + 1,): codebook i of all streams has the ids edges[i] .. edges[i + 1] - 1.
        stream: int64 (n,): the stream of each codebook.
        special: id of each of SPECIALS.
        size: one more than the largest id: rows of the language model's embedding.
    """

    def __init__(self, spec: TokenSpec, offset: int = 0) -> None:
        if offset < 0:
            raise InputError(f"the vocabulary offset must be at least 0, got {offset}")
        self.edges = offset + np.cumsum([0, *(size for stream in spec.streams for size in stream.vocab_sizes)])
        self.stream = np.repeat(np.arange(len(spec.streams)), [len(s.vocab_sizes) for s in spec.streams])
        self.special = {name: int(self.edges[-1]) + i for i, name in enumerate(SPECIALS)}
        self.size = int(self.edges[-1]) + len(SPECIALS)

    def first(self, stream: int) -> Ids:
        """First id of each codebook of one stream, (K,)."""
        return self.edges[:-1][self.stream == stream]


class Pattern(ABC):
    """Tokens of one document <-> ids.

    Args:
        spec: of the codec.
        vocab_offset: see Vocabulary.
    """

    def __init__(self, spec: TokenSpec, vocab_offset: int = 0) -> None:
        self.spec = spec
        self.vocabulary = Vocabulary(spec, vocab_offset)

    @abstractmethod
    def ids(self, tokens: Tokens) -> Ids:
        """The tokens of one document as ids (L,). Raises InputError for tokens of another spec."""

    @abstractmethod
    def tokens(
        self, ids: Sequence[int] | Ids, size: Sequence[int] | None = None, grid: Sequence[int] | None = None
    ) -> Tokens:
        """The inverse of `ids`.

        Args:
            ids: (L,).
            size: of each sample as the codec got it, (H, W) for images; None: the codec's one input size.
            grid: `grid_of` the tokens that were exported; None: as the spec and the number of ids say.

        Raises:
            FormatError: ids that this pattern cannot have made; the text names the first wrong place.
            InputError: `size` or `grid` is needed and not given.
        """

    def to_dict(self) -> dict[str, Any]:
        """A tree for `core.config.build`, which wants the spec besides: class path and arguments."""
        name = f"{type(self).__module__}.{type(self).__name__}"
        return {"_target_": name, "vocab_offset": int(self.vocabulary.edges[0])}


class Flat(Pattern):
    """Everything in one row: `start`, then the samples with `separator` between them, then `end`.

    One sample is its streams coarse to fine; one stream its positions in row-major order; one position its codebooks
    coarse to fine. Every codebook has ids of its own, so an id alone says its codebook.
    """

    def ids(self, tokens: Tokens) -> Ids:
        if tokens.spec != self.spec:
            raise InputError("these tokens are of another codec than the pattern")
        special = self.vocabulary.special
        parts = [np.array([special["start"]])]
        for i in range(tokens.batch):
            parts += [*self._rows(tokens[i]), np.array([special["separator"]])]
        parts[-1] = np.array([special["end"]])
        return np.concatenate(parts)

    def _rows(self, sample: Tokens) -> list[Ids]:
        rows = []
        for s, codes in enumerate(sample.streams):
            first = self.vocabulary.first(s)[: codes.shape[1], None]
            rows.append((codes[0].flatten(1).cpu().numpy() + first).T.reshape(-1))  # (K, P) -> (P * K,)
        return rows

    def tokens(
        self, ids: Sequence[int] | Ids, size: Sequence[int] | None = None, grid: Sequence[int] | None = None
    ) -> Tokens:
        row = np.asarray(ids, dtype=np.int64)
        special = self.vocabulary.special
        if row.ndim != 1 or len(row) < 3 or row[0] != special["start"] or row[-1] != special["end"]:
            raise FormatError(f"ids must go from start ({special['start']}) to end ({special['end']})")
        size = size if size is not None else self.spec.input_size
        if size is None:
            raise InputError("this codec takes any size: give the size of the sample with its ids")
        cuts = [0, *np.flatnonzero(row == special["separator"]).tolist(), len(row) - 1]
        samples = [self._sample(row[a + 1 : b], a + 1, grid) for a, b in pairwise(cuts)]
        each = torch.tensor([list(size)], dtype=torch.int64)  # (1, n)
        return Tokens.stack([Tokens(self.spec, streams, each) for streams in samples])

    def _sample(self, row: Ids, place: int, grid: Sequence[int] | None) -> tuple[torch.Tensor, ...]:
        """The streams of one sample, (1, K, *S) each; `place` of its first id is for messages."""
        book = np.searchsorted(self.vocabulary.edges, row, side="right") - 1  # -1 and n are no codebooks
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
            codes = row[done : done + right] - self.vocabulary.edges[mine]
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

    def _shape(self, stream: int, positions: int, axes: list[int]) -> list[int]:
        """Takes the sizes of one stream's position axes from the front of `axes`, else from the spec."""
        spec = self.spec.streams[stream]
        if axes:
            shape, axes[: len(spec.axes)] = axes[: len(spec.axes)], []
        elif len(spec.axes) == 1:
            shape = [positions]
        elif None not in spec.shape:
            shape = [n for n in spec.shape if n is not None]
        else:
            raise InputError(f"stream '{spec.name}' has no fixed shape: give the grid of the sample with its ids")
        if len(shape) != len(spec.axes) or prod(shape) != positions:
            raise FormatError(f"stream '{spec.name}': {positions} positions do not fill a grid of {shape}")
        return shape


def grid_of(tokens: Tokens) -> list[int]:
    """Sizes of the position axes of one document's samples, all streams in a row."""
    return [n for codes in tokens[0].streams for n in codes.shape[2:]]


def _run(mask: NDArray[np.bool_]) -> int:
    """How many leading entries are true."""
    return len(mask) if mask.all() else int(mask.argmin())
