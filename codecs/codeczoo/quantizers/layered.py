"""What quantizers made of quantizers share: quantizer dropout, prefixes of their codebooks, starting."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Prefix, Quantized
from codeczoo.quantizers.dropout import kept
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.layout import grid, rows, whole_numbers
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.tokenwise import Tokenwise


class Layered(Tokenwise):
    """Base of quantizers made of others.

    Args:
        inner: the quantizers.
        vocab_sizes: see Quantizer.
        dim: D.
        estimator: how gradients pass; None: straight through.
    """

    prefixes: tuple[Prefix, ...] = ("codebooks",)

    def __init__(
        self, inner: Sequence[Tokenwise], vocab_sizes: tuple[int, ...], dim: int, estimator: Estimator | None = None
    ) -> None:
        super().__init__(vocab_sizes, dim, estimator)
        self.layers = nn.ModuleList(inner)

    @property
    def starting(self) -> bool:  # type: ignore[override]
        """Whether one of the quantizers waits for `initialize`."""
        return any(layer.starting for layer in self.inner)

    @property
    def inner(self) -> list[Tokenwise]:
        """The quantizers."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    @abstractmethod
    def layer_sizes(self) -> tuple[int, ...]:
        """See Tokenwise."""

    def priors(self) -> tuple[Tensor | None, ...]:
        """See Quantizer: those of the quantizers, one after the other."""
        return tuple(prior for layer in self.inner for prior in layer.priors())

    @abstractmethod
    def choose_first(self, x: Tensor, n: int) -> Tensor:
        """See Tokenwise."""

    def forward(self, z: Tensor, valid: Tensor | None = None, depth: Tensor | None = None) -> Quantized:
        """See Quantizer.forward.

        Args:
            z: (B, D, *S).
            valid: bool (B, *S), or None.
            depth: int64 (B,), layers that take part in each sample; None: as `draw` says in training, and all in
                evaluation. Codes of the others are 0, and `Quantized.depth` says how many codebooks there are.
        """
        if depth is None and self.training:
            depth = self.draw(z.shape[0], z.device)
        layers = len(self.layer_sizes)
        with torch.autocast(z.device.type, enabled=False):
            x, keep = rows(z, valid)
            active = keep
            if depth is not None:
                among = kept(depth, layers)  # (B, layers)
                among = among.repeat_interleave(math.prod(z.shape[2:]), 0)  # (n, layers)
                active = among if keep is None else among & keep[:, None]
            mean = Mean(active, len(x), x.device, across=self.training).part(0, layers)
            found = self.finish(z, keep, self.through(x, mean))
        if depth is None:
            return found
        ends = whole_numbers([0, *accumulate(self.layer_sizes)], z.device)
        return replace(found, depth=ends[depth])

    @torch.no_grad()
    def encode(self, z: Tensor, n_codebooks: int | None = None) -> Tensor:
        """z (B, D, *S) to codes int64 (B, K, *S), or to the first codebooks of them. Raises InputError."""
        most = len(self.vocab_sizes)
        if n_codebooks is not None and not 1 <= n_codebooks <= most:
            raise InputError(f"n_codebooks must be 1..{most}, got {n_codebooks}")
        with torch.autocast(z.device.type, enabled=False):
            return grid(self.choose_first(rows(z)[0], n_codebooks or most), z)

    def choose(self, x: Tensor) -> Tensor:
        """See Tokenwise."""
        return self.choose_first(x, len(self.vocab_sizes))

    def prefix_error(self, n: int) -> InputError:
        """What to raise for n codebooks that do not decode."""
        most = len(self.vocab_sizes)
        return InputError(f"{n} codebooks: this {type(self).__name__} has {most}, and whole layers of it decode")


def joined(quantizers: Sequence[Tokenwise], what: str) -> tuple[int, ...]:
    """The vocabulary sizes of all, one after the other. Raises ConfigError where there are none."""
    if not quantizers:
        raise ConfigError(f"{what}: at least one quantizer is wanted")
    return tuple(v for quantizer in quantizers for v in quantizer.vocab_sizes)


def equal_dim(quantizers: Sequence[Tokenwise], what: str) -> int:
    """The latent channels of all. Raises ConfigError where they differ."""
    if len({quantizer.dim for quantizer in quantizers}) > 1:
        raise ConfigError(f"{what}: quantizers must have equal dim, got {[quantizer.dim for quantizer in quantizers]}")
    return quantizers[0].dim
