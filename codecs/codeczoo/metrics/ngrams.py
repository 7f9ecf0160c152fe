"""How predictable codes are, and how unevenly they are used: entropies of n-grams, Zipf's law."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.types import Tokens, TokenSpec

Codes = NDArray[np.int64]
LONGEST = 3
POINTS = 60  # of a curve of frequencies over ranks


@dataclass(frozen=True)
class Ngrams:
    """Statistics of one codebook.

    Args:
        stream: its name.
        codebook: index in the stream, 0 is the coarsest.
        codes: how many were counted. Entropies of few codes come out too low, the more so the longer the context.
        bits: entropy of a code, bits, given the 0, 1 .. LONGEST - 1 codes before it in the same sample; fewer numbers
            where the vocabulary is too large to number its n-grams, or no sample has so many codes.
        distinct: how many different 1-, 2- .. LONGEST-grams occur.
        zipf: exponent s of frequency ~ rank ** -s, by least squares of the logarithms; 0: used evenly. NaN where fewer
            than 3 entries occur.
        curve: (rank, share of all codes) from the most frequent entry to the rarest, at most POINTS of them.
    """

    stream: str
    codebook: int
    codes: int
    bits: tuple[float, ...]
    distinct: tuple[int, ...]
    zipf: float
    curve: tuple[tuple[int, float], ...]


class TokenStatistics:
    """Codes of many files, counted in the order of their positions: rows of pictures, frames of clips and sound.

    Args:
        spec: of the codec.
    """

    def __init__(self, spec: TokenSpec) -> None:
        self.spec = spec
        self._codes: list[list[list[Codes]]] = [[[] for _ in stream.vocab_sizes] for stream in spec.streams]

    def update(self, tokens: Tokens) -> None:
        """Takes the valid positions of all streams and codebooks that are there; holds them."""
        for i in range(tokens.batch):
            for codes, held in zip(tokens[i].streams, self._codes, strict=False):
                for own, sequences in zip(codes[0].flatten(1).cpu().numpy(), held, strict=False):  # (K, P)
                    sequences.append(own)

    def result(self) -> list[Ngrams]:
        """One entry per stream and codebook that occurred, coarse to fine."""
        return [
            ngrams(stream.name, k, sequences, vocab_size)
            for stream, held in zip(self.spec.streams, self._codes, strict=True)
            for k, (sequences, vocab_size) in enumerate(zip(held, stream.vocab_sizes, strict=True))
            if sequences
        ]


def ngrams(stream: str, codebook: int, sequences: Sequence[Codes], vocab_size: int) -> Ngrams:
    """Statistics of the codes of one codebook, (P,) of each sample; there is one code at least."""
    longest = max(n for n in range(1, LONGEST + 1) if n == 1 or vocab_size**n < 2**63)
    longest = min(longest, max(1, *map(len, sequences)))
    keys = [np.concatenate([_windows(codes, vocab_size, n) for codes in sequences]) for n in range(1, longest + 1)]
    counts = [np.unique(key, return_counts=True)[1] for key in keys]
    bits = [_entropy(counts[0])]
    for key, count in zip(keys[1:], counts[1:], strict=True):
        contexts = np.unique(key // vocab_size, return_counts=True)[1]  # of the same windows, so never negative
        bits.append(_entropy(count) - _entropy(contexts))
    total, ranked = len(keys[0]), np.sort(counts[0])[::-1]
    places = np.unique(np.geomspace(1, len(ranked), POINTS).round().astype(int))
    curve = tuple((int(rank), float(ranked[rank - 1] / total)) for rank in places)
    return Ngrams(stream, codebook, total, tuple(bits), tuple(map(len, counts)), _exponent(ranked), curve)


def _windows(codes: Codes, vocab_size: int, n: int) -> Codes:
    """All n-grams of a sequence, as numbers."""
    keys = np.zeros(max(0, len(codes) - n + 1), np.int64)
    for i in range(n):
        keys = keys * vocab_size + codes[i : i + len(keys)]
    return keys


def _entropy(counts: Codes) -> float:
    share = counts / max(1, counts.sum())
    return float(-(share * np.log2(share)).sum()) + 0.0


def _exponent(ranked: Codes) -> float:
    """Of counts from the largest on."""
    if len(ranked) < 3:
        return float("nan")
    slope, _ = np.polyfit(np.log(np.arange(1, len(ranked) + 1)), np.log(ranked), 1)
    return float(-slope) + 0.0
