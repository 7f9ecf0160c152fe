"""Factored: codes of large codebooks as several ids each, laid out by any other pattern."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch

from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.patterns.base import Ids, Pattern


class Factored(Pattern):
    """Every code as F digits of a mixed base, the lowest first, which `pattern` takes for codes of F codebooks.

    For language models over vocabularies of which most entries are rare: an embedding for each of 8 + 8 + 8 + 5 + 5 + 5
    digits is learned from fewer documents than one for each of 64000 codes. With the levels of an FSQ as factors the
    digits are the levels of its channels, with 2, 2, .. or powers of 2 they are groups of the bits of an LFQ.

    Source: token factorization of MAGVIT-v2 (arXiv 2310.05737) and Open-MAGVIT2 (arXiv 2409.04410).
    Differs: any number of factors; digits are ids like others, so that any model of ids can be trained on them.

    Args:
        spec: of the codec.
        factors: at least two of at least 2, whose product is the size of each codebook.
        pattern: makes the pattern of the digits: a class, or a part of one's arguments; its codebooks and delays are
            those of digits.

    Raises:
        InputError: factors that are not those of a codebook.
    """

    def __init__(self, spec: TokenSpec, factors: Sequence[int], pattern: Callable[[TokenSpec], Pattern]) -> None:
        self.factors = list(factors)
        self.digits = pattern(split_spec(spec, self.factors))
        super().__init__(spec, self.digits.vocabulary)
        self.rows, self.joint = self.digits.rows, self.digits.joint

    def ids(self, tokens: Tokens) -> Ids:
        self._check(tokens)
        streams = tuple(self._split(codes) for codes in tokens.streams)
        return self.digits.ids(replace(tokens, spec=self.digits.spec, streams=streams))

    def tokens(
        self, ids: Sequence[Any] | Ids, size: Sequence[int] | None = None, grid: Sequence[int] | None = None
    ) -> Tokens:
        found = self.digits.tokens(ids, size, grid)
        return replace(found, spec=self.spec, streams=tuple(map(self._joined, found.streams)))

    def books(self, ids: Ids, grid: Sequence[int] | None = None) -> Ids:
        """See Pattern; each digit is of a codebook of its own."""
        return self.digits.books(ids, grid)

    def to_dict(self) -> dict[str, Any]:
        """See Pattern."""
        digits = self.digits.to_dict() | {"_partial_": True}
        return {"_target_": "codeczoo.export.patterns.Factored", "factors": self.factors, "pattern": digits}

    def _split(self, codes: torch.Tensor) -> torch.Tensor:
        digits = []  # (B, K, *S) each
        for factor in self.factors:
            digits.append(codes % factor)
            codes = codes // factor
        return torch.stack(digits, 2).flatten(1, 2)  # (B, K * F, *S)

    def _joined(self, digits: torch.Tensor) -> torch.Tensor:
        n = len(self.factors)
        if digits.shape[1] % n:
            raise FormatError(f"{digits.shape[1]} digits at each position are no codes of {n} digits")
        codes = torch.zeros_like(digits[:, ::n])  # (B, K, *S)
        for i in reversed(range(n)):
            codes = codes * self.factors[i] + digits[:, i::n]
        return codes


def split_spec(spec: TokenSpec, factors: Sequence[int]) -> TokenSpec:
    """A spec in which each codebook is one for each factor. Raises InputError for factors that are not theirs."""
    if len(factors) < 2 or min(factors) < 2:
        raise InputError(f"at least two factors of at least 2 are wanted, got {list(factors)}")
    for size in (size for stream in spec.streams for size in stream.vocab_sizes):
        if prod(factors) != size:
            raise InputError(f"factors {list(factors)} make {prod(factors)} codes, a codebook has {size}")
    split = (replace(s, vocab_sizes=tuple(factors) * len(s.vocab_sizes)) for s in spec.streams)
    return replace(spec, streams=tuple(split))
