"""Residual finite scalar quantization: every layer refines the levels of the one before.

Source: vector-quantize-pytorch's ResidualFSQ (github.com/lucidrains/vector-quantize-pytorch).
Differs: the gradient of the reconstruction reaches the soft clamp with gain 1 at any depth; all in float32; scales are
exact. Cosmos-Tokenizer's, which does not rescale what is left over, is `Residual([FSQ(levels), ...])`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.dropout import Depth
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.fsq import FLOAT_EXACT, SymmetricFSQ
from codeczoo.quantizers.layout import check_width
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.tokenwise import Step


class _Layer(SymmetricFSQ):
    """Symmetric levels over -L^-k..L^-k, k the number of the layer; what lies outside gets the outer ones."""

    scale: Tensor

    def __init__(self, levels: Sequence[int], k: int) -> None:
        super().__init__(levels)
        self.register_buffer("scale", (self.levels**k).float(), persistent=False)

    def bound(self, x: Tensor) -> Tensor:
        return x * self.scale * self.span

    def slope(self, x: Tensor) -> Tensor:
        return self.scale + torch.zeros_like(x)

    def values(self, steps: Tensor) -> Tensor:
        return super().values(steps) / self.scale


class ResidualFSQ(Residual):
    """Layers of SymmetricFSQ, each L times finer than the one before, after a soft clamp to what they can reach.

    No losses. Any prefix of the codebooks decodes.

    Args:
        levels: number of levels L of each of the D channels, 2..65536; their product is the vocabulary of each layer.
        n_layers: K, at least 1; L^(K - 1) is at most 2^24, as float32 holds nothing finer.
        depth: how many layers take part in training, per batch or per sample; None: all.
        estimator: how gradients pass; None: straight through.

    Raises:
        ConfigError: levels or n_layers out of range.
    """

    reach: Tensor

    def __init__(
        self, levels: Sequence[int], n_layers: int, depth: Depth | None = None, estimator: Estimator | None = None
    ) -> None:
        first = SymmetricFSQ(levels)
        if n_layers < 1 or max(levels) ** (n_layers - 1) > FLOAT_EXACT:
            raise ConfigError(f"ResidualFSQ: n_layers >= 1 and levels^(n_layers - 1) <= 2^24, got {levels}, {n_layers}")
        super().__init__([_Layer(levels, k) for k in range(n_layers)], depth, estimator)
        self.register_buffer("reach", first.levels / (first.levels - 1), persistent=False)

    def soft_clamp(self, x: Tensor) -> Tensor:
        """Rows (n, D) to what all layers together can reach: L / (L - 1) to either side."""
        check_width(x, self.dim, "channels of z")
        return (x / self.reach).tanh() * self.reach

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        return super().quantize(self.soft_clamp(x), mean, estimator)

    def choose_first(self, x: Tensor, n: int) -> Tensor:
        """See Tokenwise. Needs not unpack the codes to know their values, as Residual does."""
        rest, index = self.soft_clamp(x), []
        for layer in self.inner[:n]:
            assert isinstance(layer, _Layer)
            steps = layer.steps(rest)
            rest = rest - layer.values(steps)
            index.append(layer.codes(steps))
        return torch.cat(index, 1)
