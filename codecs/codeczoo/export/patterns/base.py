"""What all patterns share: which id means what, and the shapes of what comes back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export import OFFSETS

Ids = NDArray[np.int64]
Offsets = Literal["own", "shared"]


@dataclass(frozen=True)
class Vocabulary:
    """Which id means what. Codebooks are counted stream by stream, coarse to fine.

    Args:
        offset: the smallest id, e.g. the size of a text vocabulary that comes before.
        first: int64 (n,): id of code 0 of each codebook.
        sizes: int64 (n,): its entries.
        stream: int64 (n,): its stream.
        special: ids that are no codes, by name; they come last.
        size: one more than the largest id: rows of the language model's embedding.
    """

    offset: int
    first: Ids
    sizes: Ids
    stream: Ids
    special: dict[str, int]
    size: int

    @staticmethod
    def of(spec: TokenSpec, offset: int, specials: Sequence[str], offsets: Offsets) -> "Vocabulary":
        """Each codebook has ids of its own, or all of them start at `offset` when the model tells them by their place.

        Raises InputError for a negative offset, or offsets that are neither "own" nor "shared".
        """
        if offset < 0:
            raise InputError(f"the vocabulary offset must be at least 0, got {offset}")
        if offsets not in OFFSETS:
            raise InputError(f"offsets of codebooks are {' or '.join(OFFSETS)}, got {offsets!r}")
        sizes = np.array([size for stream in spec.streams for size in stream.vocab_sizes], dtype=np.int64)
        stream = np.repeat(np.arange(len(spec.streams)), [len(s.vocab_sizes) for s in spec.streams])
        first = offset + (np.zeros_like(sizes) if offsets == "shared" else np.cumsum(sizes) - sizes)
        end = int((first + sizes).max())
        special = {name: end + i for i, name in enumerate(specials)}
        return Vocabulary(offset, first, sizes, stream, special, end + len(specials))

    def codebooks(self) -> list[dict[str, int]]:
        """Stream, first id and size of each codebook, plain values."""
        books = zip(self.stream.tolist(), self.first.tolist(), self.sizes.tolist(), strict=True)
        return [{"stream": stream, "first_id": first, "size": size} for stream, first, size in books]


class Pattern(ABC):
    """Tokens of one document <-> ids.

    Args:
        spec: of the codec.
        vocabulary: which id means what.

    Attributes:
        OPTIONS: arguments that the class takes besides spec and vocab_offset.
        rows: K where ids are (K, L), a row of its own for each codebook; None where they are (L,).
        joint: whether `books` of several documents, one behind the other, are those of each, without a grid.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    rows: int | None = None
    joint: bool = True

    def __init__(self, spec: TokenSpec, vocabulary: Vocabulary) -> None:
        self.spec, self.vocabulary = spec, vocabulary

    @abstractmethod
    def ids(self, tokens: Tokens) -> Ids:
        """The tokens of one document as ids, (L,) or (rows, L). Raises InputError for tokens of another spec."""

    @abstractmethod
    def tokens(
        self, ids: Sequence[Any] | Ids, size: Sequence[int] | None = None, grid: Sequence[int] | None = None
    ) -> Tokens:
        """The inverse of `ids`.

        Args:
            ids: (L,) or (rows, L).
            size: `sizes_of` the tokens that were exported: of each sample as the codec got it, (H, W), (T,) or
                (T, H, W), or of all samples in a row; None: the codec's one input size, or all that the ids cover.
            grid: `grid_of` the tokens that were exported; None: as the spec and the number of ids say.

        Raises:
            FormatError: ids that this pattern cannot have made; the text names the first wrong place.
            InputError: `size` or `grid` is needed and not given.
        """

    @abstractmethod
    def books(self, ids: Ids, grid: Sequence[int] | None = None) -> Ids:
        """The codebook of each id, counted over all streams; -1 for ids that are no codes. Arguments: see `tokens`."""

    def to_dict(self) -> dict[str, Any]:
        """A tree for `core.config.build`, which wants the spec besides: class path and arguments."""
        name = f"codeczoo.export.patterns.{type(self).__name__}"
        return {"_target_": name, "vocab_offset": self.vocabulary.offset} | {o: getattr(self, o) for o in self.OPTIONS}

    def _check(self, tokens: Tokens) -> None:
        if tokens.spec != self.spec:
            raise InputError("these tokens are of another codec than the pattern")

    def _document(self, samples: Sequence[tuple[torch.Tensor, ...]], size: Sequence[int] | None) -> Tokens:
        """One document of the streams (1, K, *S) of its samples."""
        known = size if size is not None else self.spec.input_size
        sizes = [self._covered(s) for s in samples] if known is None else _rows(known, AXES[self.spec.media])
        if len(sizes) not in (1, len(samples)):
            raise FormatError(f"{len(samples)} samples, but sizes of {len(sizes)}")
        rows = torch.tensor(sizes, dtype=torch.int64).expand(len(samples), -1)  # (B, n)
        rate, pairs = self.spec.sample_rate, zip(samples, rows, strict=True)
        return Tokens.stack([Tokens(self.spec, streams, n[None], None, rate) for streams, n in pairs])

    def _covered(self, streams: tuple[torch.Tensor, ...]) -> list[int]:
        """The size of a sample by its positions alone, where the spec says how much media one covers."""
        spec, shape = self.spec.streams[0], streams[0].shape[2:]
        if spec.stride is not None:
            frames, height, width = spec.stride
            return [1 + frames * (shape[0] - 1), height * shape[1], width * shape[2]]
        if self.spec.unit != "second" or self.spec.sample_rate is None:
            raise InputError("this codec takes any size: give the size of the sample with its ids")
        return [round(shape[0] * self.spec.sample_rate / spec.rate)]

    def _shape(self, stream: int, positions: int, axes: list[int]) -> list[int]:
        """One stream's position axes: the first follows, others as `_others` says. Raises FormatError."""
        others = self._others(stream, axes)
        self._check_fill(stream, positions, others)
        return [positions // prod(others), *others]

    def _others(self, stream: int, axes: list[int]) -> list[int]:
        """One stream's position axes but the first, from the front of `axes`, else from the spec; all at least 1."""
        spec = self.spec.streams[stream]
        given, axes[: len(spec.axes)] = axes[: len(spec.axes)], []
        rest = (given or spec.shape)[1:]
        known = [n for n in rest if n is not None]
        if len(known) < len(rest):
            raise InputError(f"stream '{spec.name}' has no fixed shape: give the grid of the sample with its ids")
        if len(known) != len(spec.axes) - 1 or min(known, default=1) < 1:
            raise FormatError(f"stream '{spec.name}': {given} is no grid of {len(spec.axes)} axes")
        return known

    def _check_fill(self, stream: int, positions: int, others: list[int]) -> None:
        spec = self.spec.streams[stream]
        first, left = divmod(positions, prod(others))
        most = spec.shape[0]
        if left or (most is not None and (first > most or (others and first < most))):
            raise FormatError(f"stream '{spec.name}': {positions} positions do not fill a grid of {[most, *others]}")


def checked_codebooks(spec: TokenSpec, codebooks: int | None) -> int:
    """How many codebooks of the first stream; None: all. Raises InputError for a number out of range."""
    most = len(spec.streams[0].vocab_sizes)
    if codebooks is not None and not 1 <= codebooks <= most:
        raise InputError(f"codebooks must be 1..{most}, got {codebooks}")
    return most if codebooks is None else codebooks


AXES = {"image": 2, "audio": 1, "video": 3}  # numbers that tell the size of one sample


def _rows(size: Sequence[int], n: int) -> list[list[int]]:
    """The sizes of all samples, n numbers each."""
    if not size or len(size) % n:
        raise FormatError(f"the size of a sample is {n} numbers, got {list(size)}")
    return [[*size[i : i + n]] for i in range(0, len(size), n)]


def grid_of(tokens: Tokens) -> list[int]:
    """Sizes of the position axes of one document's first sample, all streams in a row."""
    return [n for codes in tokens[0].streams for n in codes.shape[2:]]


def sizes_of(tokens: Tokens) -> list[int]:
    """The size of each sample of one document: once where all have the same, else one after the other."""
    sizes: list[list[int]] = tokens.size.tolist()
    return sizes[0] if all(size == sizes[0] for size in sizes) else [n for size in sizes for n in size]
