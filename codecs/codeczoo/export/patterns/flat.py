"""Flat, LayerMajor, FrameMajor: everything in one row of ids, for models with one embedding table."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch

from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.patterns.base import Ids, Offsets, Pattern, Vocabulary, checked_codebooks

SPECIALS = ("start", "end", "pad", "separator")
Shapes = Sequence[tuple[int, ...]]


class OneRow(Pattern):
    """`start`, then the samples with `separator` between them, then `end`.

    With ids of its own for every codebook, an id alone says its codebook. With shared ids its place says it, so that
    every document must have the same number of codebooks.

    Args:
        spec: of the codec; with shared offsets, of one stream.
        vocab_offset: id of code 0 of the first codebook.
        offsets: "own" or "shared" ids of the codebooks.
        codebooks: of every document, with shared offsets; None: all of the codec.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ("offsets", "codebooks")

    def __init__(
        self, spec: TokenSpec, vocab_offset: int = 0, offsets: Offsets = "own", codebooks: int | None = None
    ) -> None:
        super().__init__(spec, Vocabulary.of(spec, vocab_offset, SPECIALS, offsets))
        self.offsets, self.codebooks = offsets, None
        self.joint = offsets == "own"
        if not self.joint:
            if len(spec.streams) != 1:
                raise InputError(f"shared ids are for codecs of one stream, this one has {len(spec.streams)}")
            self.codebooks = checked_codebooks(spec, codebooks)
        first, sizes = self.vocabulary.first, self.vocabulary.sizes
        self._edges = np.append(first, first[-1] + sizes[-1])  # codebook i has the ids edges[i] .. edges[i + 1] - 1

    @abstractmethod
    def keys(self, shapes: Shapes) -> Ids:
        """What the ids of a sample are sorted by; equal ones stay in Flat's order.

        Args:
            shapes: (K, *S) of each stream of the sample.

        Returns:
            int64 (ids,), in Flat's order.
        """

    def ids(self, tokens: Tokens) -> Ids:
        self._check(tokens)
        special = self.vocabulary.special
        parts = [np.array([special["start"]])]
        for i in range(tokens.batch):
            parts += [self._row(tokens[i]), np.array([special["separator"]])]
        parts[-1] = np.array([special["end"]])
        return np.concatenate(parts)

    def _row(self, sample: Tokens) -> Ids:
        streams = [codes[0].cpu().numpy() for codes in sample.streams]  # (K, *S) each
        if self.codebooks is not None and len(streams[0]) != self.codebooks:
            wanted = f"shared ids want {self.codebooks} of every document"
            raise InputError(f"a document of {len(streams[0])} codebooks; {wanted}")
        codes = np.concatenate([stream.reshape(len(stream), -1).T.reshape(-1) for stream in streams])  # (P * K,) each
        shapes = [stream.shape for stream in streams]
        return (codes + self.vocabulary.first[self._books(shapes)])[self._order(shapes)]

    def _order(self, shapes: Shapes) -> Ids:
        return np.argsort(self.keys(shapes), kind="stable")

    def _books(self, shapes: Shapes) -> Ids:
        """The codebook of each id, counted over all streams, in Flat's order."""
        first = np.searchsorted(self.vocabulary.stream, range(len(shapes)))
        parts = [np.tile(book + np.arange(k), prod(shape)) for book, (k, *shape) in zip(first, shapes, strict=True)]
        return np.concatenate(parts)

    def tokens(
        self, ids: Sequence[Any] | Ids, size: Sequence[int] | None = None, grid: Sequence[int] | None = None
    ) -> Tokens:
        row = np.asarray(ids, dtype=np.int64)
        special = self.vocabulary.special
        if row.ndim != 1 or len(row) < 3 or row[0] != special["start"] or row[-1] != special["end"]:
            raise FormatError(f"ids must go from start ({special['start']}) to end ({special['end']})")
        return self._document([self._sample(row[a:b], a, grid) for a, b in self._samples(row)], size)

    def _samples(self, row: Ids) -> list[tuple[int, int]]:
        """Where each sample of a document begins and ends."""
        cuts = [0, *np.flatnonzero(row == self.vocabulary.special["separator"]).tolist(), len(row) - 1]
        return [(a + 1, b) for a, b in pairwise(cuts)]

    def books(self, ids: Ids, grid: Sequence[int] | None = None) -> Ids:
        """See Pattern."""
        if self.joint:
            return self._found(ids)
        books = np.full(len(ids), -1)
        for a, b in self._samples(ids):
            shapes = self._shapes(ids[a:b], list(grid or ()))
            books[a:b] = self._books(shapes)[self._order(shapes)][: b - a]
        return books

    def _found(self, row: Ids) -> Ids:
        """The codebook that each id itself says, where codebooks have their own; -1 for ids that are no codes."""
        found = np.searchsorted(self._edges, row, side="right") - 1
        return np.where(found < len(self.vocabulary.sizes), found, -1)

    def _sample(self, row: Ids, place: int, grid: Sequence[int] | None) -> tuple[torch.Tensor, ...]:
        """The streams of one sample, (1, K, *S) each; `place` of its first id is for messages.

        The ids of each codebook say how much of it there is; whether all stand where they belong is seen afterwards.
        """
        shapes = self._shapes(row, list(grid or ()))
        order = self._order(shapes)
        books = self._books(shapes)[order]
        both = min(len(row), len(books))
        first = self.vocabulary.first[books[:both]]
        right = (row[:both] >= first) & (row[:both] < first + self.vocabulary.sizes[books[:both]])
        wrong = [*np.flatnonzero(~right), both]
        if wrong[0] < max(len(row), len(books)):
            what = f"id {row[wrong[0]]}" if wrong[0] < len(row) else "the end of the sample"
            raise FormatError(f"place {place + wrong[0]}: {what} does not belong there")
        for s, (_, steps, *others) in enumerate(shapes):
            self._check_fill(s, steps * prod(others), others)
        codes = np.empty_like(row)
        codes[order] = row - self.vocabulary.first[books]
        parts = np.split(codes, np.cumsum([prod(shape) for shape in shapes])[:-1])
        pairs = zip(parts, shapes, strict=True)
        return tuple(torch.from_numpy(c.reshape(-1, k).T.copy()).view(1, k, *shape) for c, (k, *shape) in pairs)

    def _shapes(self, row: Ids, axes: list[int]) -> Shapes:
        """(K, *S) of each stream of a sample by its ids; a step that is not complete counts as if it were."""
        if self.codebooks is not None:
            others = self._others(0, axes)
            step = self.codebooks * prod(others)
            if step > max(1, len(row)):  # before a stranger's grid takes all memory
                self._check_fill(0, len(row) // self.codebooks, others)
            return [(self.codebooks, max(1, -(-len(row) // step)), *others)]
        found = self._found(row)
        counts = np.bincount(found[found >= 0], minlength=1)
        shapes = []
        for s in range(1 + int(self.vocabulary.stream[len(counts) - 1])):
            mine = counts[self.vocabulary.stream[: len(counts)] == s]
            k = int(np.flatnonzero(mine)[-1]) + 1 if mine.any() else 1
            positions = max(1, int(mine.max()))
            others = self._others(s, axes)
            if prod(others) > len(row):  # before a stranger's grid takes all memory
                self._check_fill(s, positions, others)
            shapes.append((k, -(-positions // prod(others)), *others))
        return shapes


class Flat(OneRow):
    """Streams coarse to fine; of one stream its positions in row-major order; of one position its codebooks.

    Arguments: see OneRow.
    """

    def keys(self, shapes: Shapes) -> Ids:
        """See OneRow."""
        return np.zeros(sum(map(prod, shapes)), dtype=np.int64)


class LayerMajor(OneRow):
    """Codebook after codebook, coarse to fine over all streams: all positions of one, then all of the next.

    Arguments: see OneRow.
    """

    def keys(self, shapes: Shapes) -> Ids:
        """See OneRow."""
        return self._books(shapes)


class FrameMajor(OneRow):
    """Group after group in time, each in Flat's order. A group is a step of the stream with the longest ones.

    Group 0 is the first frame alone, group g > 0 the F frames from 1 + (g - 1) F on: of every stream the positions
    whose last frame is one of them. So the first groups are a whole document of their own, of fewer frames, where the
    codec decodes prefixes of positions. Of codecs with one stream a group is a step in time.

    Args:
        spec: of a codec whose first axis is time.
        vocab_offset, offsets, codebooks: see OneRow.

    Raises:
        InputError: media without time, or several streams that do not say their strides.
    """

    def __init__(
        self, spec: TokenSpec, vocab_offset: int = 0, offsets: Offsets = "own", codebooks: int | None = None
    ) -> None:
        super().__init__(spec, vocab_offset, offsets, codebooks)
        if any(stream.axes[0] != "time" for stream in spec.streams):
            raise InputError(f"pattern FrameMajor is for media with frames in time, not for this {spec.media} codec")
        if len(spec.streams) > 1 and any(stream.stride is None for stream in spec.streams):
            raise InputError("pattern FrameMajor: this codec does not say what frames its streams' positions stand for")
        self._strides = [stream.stride[0] if stream.stride else 1 for stream in spec.streams]

    def keys(self, shapes: Shapes) -> Ids:
        """See OneRow."""
        longest = max(self._strides)
        groups = [
            np.repeat(-(-np.arange(steps) * stride // longest), k * prod(others))
            for stride, (k, steps, *others) in zip(self._strides, shapes, strict=False)
        ]
        return np.concatenate(groups)
