"""Product quantization: groups of channels, each with a quantizer of its own."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.layered import Layered, joined
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.tokenwise import Step, Tokenwise


class Grouped(Layered):
    """The first quantizer gets the first channels, and so on; K and D are the sums of theirs.

    Codebooks are ordered by depth: the first layers of all groups, then the second layers, and so on. So for groups of
    residual quantizers a prefix of whole depths is a coarse version of the latent, and decodes; of groups of one layer
    only all codebooks do. Quantizer dropout is drawn once, by the first group, and holds for all groups.
    By itself, gradients pass as the groups let them.
    Losses: for each name the mean over the groups, weighted by their channels.

    Source: product quantization (Jegou et al., TPAMI 2011); groups of residual ones: HiFi-Codec (arXiv 2305.02765).
    Differs: vector-quantize-pytorch keeps a codes axis for the groups; here K is one axis, coarse to fine.

    Args:
        quantizers: of the groups, each with equally many layers.

    Raises:
        ConfigError: for no group, or different numbers of layers.
    """

    def __init__(self, quantizers: Sequence[Tokenwise]) -> None:
        joined(quantizers, "Grouped")
        layers = [len(group.layer_sizes) for group in quantizers]
        if len(set(layers)) > 1:
            raise ConfigError(f"Grouped: groups must have equally many layers, got {layers}")
        order = _by_depth(quantizers, layers[0])
        sizes = tuple(v for g, first, last in order for v in quantizers[g].vocab_sizes[first:last])
        super().__init__(quantizers, sizes, sum(group.dim for group in quantizers))
        self.drops = quantizers[0].drops

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """See Tokenwise."""
        return tuple(map(sum, zip(*(group.layer_sizes for group in self.inner), strict=True)))

    def draw(self, batch: int, device: torch.device) -> Tensor | None:
        """See Tokenwise."""
        return self.inner[0].draw(batch, device)

    def priors(self) -> tuple[Tensor | None, ...]:
        """See Quantizer."""
        order = _by_depth(self.inner, len(self.layer_sizes))
        return tuple(prior for g, first, last in order for prior in self.inner[g].priors()[first:last])

    def through(self, x: Tensor, mean: Mean) -> Step:
        """See Tokenwise."""
        return self._together([group.through(part, mean) for group, part in self._parts(x)])

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        return self._together([group.quantize(part, mean, estimator) for group, part in self._parts(x)])

    def choose_first(self, x: Tensor, n: int) -> Tensor:
        """See Tokenwise."""
        depth = self._depth(n)
        found = [group.choose_first(part, sum(group.layer_sizes[:depth])) for group, part in self._parts(x)]
        return self._merged(found, depth)[:, :n]

    def look_up(self, index: Tensor) -> Tensor:
        """Index (n, K) or that of the first depths to rows (n, D). Raises InputError for other prefixes."""
        depth = self._depth(index.shape[1])
        if sum(self.layer_sizes[:depth]) != index.shape[1]:
            raise self.prefix_error(index.shape[1])
        of_group: list[list[Tensor]] = [[] for _ in self.inner]
        order = _by_depth(self.inner, depth)
        pieces = index.split([last - first for _, first, last in order], 1)
        for (g, _, _), piece in zip(order, pieces, strict=True):
            of_group[g].append(piece)
        values = [group.look_up(torch.cat(own, 1)) for group, own in zip(self.inner, of_group, strict=True)]
        return torch.cat(values, 1)

    def initialize_rows(self, x: Tensor, keep: Tensor | None) -> None:
        """See Tokenwise: every group starts."""
        for group, part in self._parts(x):
            if group.starting:
                group.initialize_rows(part, keep)

    def _parts(self, x: Tensor) -> list[tuple[Tokenwise, Tensor]]:
        return list(zip(self.inner, x.split([group.dim for group in self.inner], 1), strict=True))

    def _depth(self, n: int) -> int:
        """How many depths the first n codebooks reach."""
        ends = list(accumulate(self.layer_sizes))
        if not 1 <= n <= ends[-1]:
            raise self.prefix_error(n)
        return next(depth for depth, end in enumerate(ends, 1) if end >= n)

    def _merged(self, index: Sequence[Tensor], depth: int) -> Tensor:
        return torch.cat([index[g][:, first:last] for g, first, last in _by_depth(self.inner, depth)], 1)

    def _together(self, steps: Sequence[Step]) -> Step:
        losses: dict[str, Tensor] = {}
        for group, step in zip(self.inner, steps, strict=True):
            for name, loss in step.losses.items():
                losses[name] = losses.get(name, 0) + loss * (group.dim / self.dim)
        index = self._merged([step.index for step in steps], len(self.layer_sizes))
        latent, value = torch.cat([step.latent for step in steps], 1), torch.cat([step.value for step in steps], 1)
        return Step(latent, value, index, losses)


def _by_depth(groups: Sequence[Tokenwise], depth: int) -> list[tuple[int, int, int]]:
    """The layers of all groups to a depth, in order: number of the group, and its codebooks from .. to before ..."""
    order = []
    for d in range(depth):
        for g, group in enumerate(groups):
            first = sum(group.layer_sizes[:d])
            order.append((g, first, first + group.layer_sizes[d]))
    return order
