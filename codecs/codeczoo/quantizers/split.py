"""Several quantizers on the same latent, whose codes are summed."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.layered import Layered, equal_dim, joined
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.tokenwise import Step, Tokenwise


class Split(Layered):
    """Every part quantizes the whole latent by itself and the values are summed, so each keeps a meaning of its own.

    Codebooks of the first part come first; any prefix decodes that ends between layers. By itself, the gradient is the
    sum of those of the parts. Quantizer dropout is that of the last part, and counts the codebooks of all.
    Losses: for each name the mean over the codebooks: those of a part weigh as much as it has codebooks.

    Source: Mimi (arXiv 2410.00037, github.com/kyutai-labs/moshi): one semantic codebook and a stack of acoustic ones,
    Split([Projected(Residual([semantic]), D, bias=False), Projected(Residual(acoustic, depth), D, bias=False)]).

    Args:
        parts: quantizers of equal dim. Only the last may have quantizer dropout.

    Raises:
        ConfigError: for no part, unequal dim, or dropout of another part: what is left would be no prefix.
    """

    def __init__(self, parts: Sequence[Tokenwise]) -> None:
        sizes = joined(parts, "Split")
        super().__init__(parts, sizes, equal_dim(parts, "Split"))
        wrong = [k for k, part in enumerate(parts[:-1]) if part.drops]
        if wrong:
            raise ConfigError(f"Split: only the last of {len(parts)} parts may have quantizer dropout, so has {wrong}")
        self.drops = parts[-1].drops

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """See Tokenwise."""
        return tuple(size for part in self.inner for size in part.layer_sizes)

    def draw(self, batch: int, device: torch.device) -> Tensor | None:
        """See Tokenwise."""
        drawn = self.inner[-1].draw(batch, device)
        return None if drawn is None else drawn + sum(len(part.layer_sizes) for part in self.inner[:-1])

    def through(self, x: Tensor, mean: Mean) -> Step:
        """See Tokenwise."""
        return self._summed(x, mean, lambda part, given, share: part.through(given, share))

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        return self._summed(x, mean, lambda part, given, share: part.quantize(given, share, estimator))

    def _summed(self, x: Tensor, mean: Mean, work: Callable[[Tokenwise, Tensor, Mean], Step]) -> Step:
        values, index, first = [], [], 0
        losses: dict[str, Tensor] = {}
        for part in self.inner:
            last = first + len(part.layer_sizes)
            share, first = mean.part(first, last), last
            taken = None if share.rows is None else share.rows[:, None]  # (n, 1)
            step = work(part, x if taken is None else torch.where(taken, x, 0.0), share)
            values.append(step.value if taken is None else torch.where(taken, step.value, 0.0))
            index.append(step.index if taken is None else step.index * taken)
            weight = len(part.vocab_sizes) / len(self.vocab_sizes)
            for name, loss in step.losses.items():
                losses[name] = losses.get(name, 0) + loss * weight
        return Step(x, reduce(torch.add, values), torch.cat(index, 1), losses)

    def choose_first(self, x: Tensor, n: int) -> Tensor:
        """See Tokenwise."""
        index = []
        for part in self.inner:
            if n > 0:
                index.append(part.choose_first(x, min(n, len(part.vocab_sizes))))
            n -= len(part.vocab_sizes)
        return torch.cat(index, 1)

    def look_up(self, index: Tensor) -> Tensor:
        """Index (n, K) or its first codebooks to rows (n, D). Raises InputError for a prefix that splits a layer."""
        n, first, values = index.shape[1], 0, []
        for part in self.inner:
            last = first + len(part.vocab_sizes)
            if first < n:
                if last > n and "codebooks" not in part.prefixes:
                    raise self.prefix_error(n)
                values.append(part.look_up(index[:, first:last]))
            first = last
        if not values or first < n:
            raise self.prefix_error(n)
        return reduce(torch.add, values)

    def initialize_rows(self, x: Tensor, keep: Tensor | None) -> None:
        """See Tokenwise: every part starts from the latent."""
        for part in self.inner:
            if part.starting:
                part.initialize_rows(x, keep)
