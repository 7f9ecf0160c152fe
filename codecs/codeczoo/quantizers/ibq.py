"""Index backpropagation: the gradient goes through the probabilities of all entries.

Source: IBQ, "Scalable Image Tokenization with Index Backpropagation Quantization" (arXiv 2412.02692), as SEED-Voken
trains it (github.com/TencentARC/SEED-Voken).
Differs: probabilities exist for a chunk of tokens at a time and are computed again in the backward pass, in float32;
means are over the tokens of all ranks; the logarithm of the batch entropy has no 1e-5, which with 2^18 entries is more
than the mean probability.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.bit_entropy import of_distribution
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.lookup import chunk_rows, highest
from codeczoo.quantizers.penalties import Penalty
from codeczoo.quantizers.ranks import Mean, summed_with_gradient, world_size
from codeczoo.quantizers.tables import Matching
from codeczoo.quantizers.tokenwise import Step

FEWEST = 64  # rows of a chunk: fewer would read a large table once for little work


class Propagation(Estimator):
    """Forward the value, backward whatever way it was made: index backpropagation, which has no identity path."""

    to_codebook = True

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """See Estimator."""
        return value


class Entropy(nn.Module):
    """"sample_entropy" H(p) of each token, averaged, and "batch_entropy" -H of the mean p, in nats; p are softmaxed
    scores. Minimised together: each token is sure, all entries are used. The batch is that of all ranks.

    Args:
        temperature: of the softmax, above 0.
    """

    def __init__(self, temperature: float = 0.01) -> None:
        super().__init__()
        if temperature <= 0:
            raise ConfigError(f"Entropy: temperature must be positive, got {temperature}")
        self.temperature = temperature

    def forward(self, x: Tensor, table: Tensor, mean: Mean) -> dict[str, Tensor]:
        """Losses of latents (n, D), 0 where masked, with a table (V, D)."""
        weight = x.new_ones(len(x)) if mean.keep is None else mean.keep.float()
        each, total = _Probabilities.apply(x, table, weight, 1 / self.temperature)
        share = mean.of_sum(total)  # (V,)
        if self.training:
            share = summed_with_gradient(share) / world_size()
        return {"sample_entropy": mean(each), "batch_entropy": -of_distribution(share)}


class IBQ(Matching):
    """The entry of the greatest product z.e. Every entry gets gradient from every token.

    Losses, per token and channel: "index" (value - z)^2, whose gradient goes through the probabilities too,
    "commitment" (z - sg(code))^2, "codebook" (code - sg(z))^2; as published they are weighted 1, 1, 0.25, and the
    entropies 0.05 each. In `Residual` give `estimator=Propagation()`.

    Args:
        vocab_size: V, entries.
        dim: D, channels of a latent.
        entropy: losses on how the probabilities spread; None: none.
        penalty: losses of the table itself; None: none.
    """

    def __init__(
        self, vocab_size: int, dim: int, entropy: Entropy | None = None, penalty: Penalty | None = None
    ) -> None:
        super().__init__(vocab_size, dim, Propagation(), penalty)
        self.entropy = entropy
        self.codebook = nn.Parameter(torch.randn(vocab_size, dim))

    def table(self) -> Tensor:
        """See Matching."""
        return self.codebook

    def find(self, x: Tensor, table: Tensor, adjust: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """See Matching."""
        return highest(x, table, adjust=adjust)

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        step, table = super().quantize(x, mean, estimator), self.table()
        if self.training:
            step.value = _Value.apply(x, table, step.index[:, 0])
        counted = step.value if mean.keep is None else step.value * mean.keep[:, None]
        step.losses["index"] = mean.of_sum(F.mse_loss(counted, x, reduction="sum") / self.dim)
        if self.entropy is not None:
            step.losses |= self.entropy(x, table, mean)
        return step


class _Value(torch.autograd.Function):
    """Forward onehot @ table; backward as if it were (onehot + p - sg(p)) @ table with p = softmax(x table^T)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(x, table, index)
        return F.embedding(index, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, table, index = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            to_table = torch.zeros_like(table).index_add_(0, index, grad)
            to_x = []
            rows = _rows(table)
            for part, g in zip(x.split(rows), grad.split(rows), strict=True):
                p = (part @ table.t()).softmax(1)  # (rows, V)
                to_scores = _through_softmax(p, g @ table.t())
                to_x.append(to_scores @ table)
                to_table.addmm_(to_scores.t(), part)
        return torch.cat(to_x), to_table, None


class _Probabilities(torch.autograd.Function):
    """Of p = softmax(sharpness x table^T): the entropy of each row, (n,), and the sum of p weighted by row, (V,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, weight: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, table, weight)
        ctx.sharpness = sharpness
        total, each, rows = x.new_zeros(len(table)), [], _rows(table)
        for part, w in zip(x.split(rows), weight.split(rows), strict=True):
            logs = (part @ table.t() * sharpness).log_softmax(1)  # (rows, V)
            p = logs.exp()
            each.append(-(p * logs).sum(1))
            total = total + w @ p
        return torch.cat(each), total

    @staticmethod
    def backward(ctx: Any, to_each: Tensor, to_total: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, table, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            to_table, to_x = torch.zeros_like(table), []
            rows = _rows(table)
            for part, w, g in zip(x.split(rows), weight.split(rows), to_each.split(rows), strict=True):
                logs = (part @ table.t() * ctx.sharpness).log_softmax(1)
                to_p = torch.addcmul(w[:, None] * to_total, g[:, None], logs, value=-1)
                to_scores = _through_softmax(logs.exp(), to_p) * ctx.sharpness
                to_x.append(to_scores @ table)
                to_table.addmm_(to_scores.t(), part)
        return torch.cat(to_x), to_table, None, None


def _through_softmax(p: Tensor, grad: Tensor) -> Tensor:
    return p * (grad - (p * grad).sum(1, keepdim=True))


def _rows(table: Tensor) -> int:
    return max(FEWEST, chunk_rows(len(table), table.device))
