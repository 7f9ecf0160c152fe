"""Residual quantization: each layer quantizes what the layers before it left over.

Source: SoundStream (arXiv 2107.03312), RQ-VAE (arXiv 2203.01941); the one estimator around all layers is that of
audiocraft and moshi.
Differs: residuals are taken of detached values and the estimator is applied once, to the sum. So the gradient of the
reconstruction reaches the encoder with gain 1 at any depth, and every layer's commitment loss reaches it too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from codeczoo.quantizers.dropout import Depth
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.layered import Layered, equal_dim, joined
from codeczoo.quantizers.ranks import Mean, idle
from codeczoo.quantizers.tokenwise import Step, Tokenwise


class Residual(Layered):
    """A stack of quantizers; any prefix of its codebooks decodes.

    Losses: for each name the mean over the layers, each averaged over the tokens that it takes part in.
    Layers that start from data do so one layer a batch, and take no part before.

    Args:
        layers: coarse to fine, of equal dim; their own estimators and their quantizer dropout are not used.
        depth: how many layers take part in training, per batch or per sample; None: all.
        estimator: how gradients pass; None: straight through.
    """

    def __init__(
        self, layers: Sequence[Tokenwise], depth: Depth | None = None, estimator: Estimator | None = None
    ) -> None:
        sizes = joined(layers, "Residual")
        super().__init__(layers, sizes, equal_dim(layers, "Residual"), estimator)
        self.depth, self.drops = depth, depth is not None

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """See Tokenwise."""
        return tuple(size for layer in self.inner for size in layer.layer_sizes)

    def draw(self, batch: int, device: torch.device) -> Tensor | None:
        """See Tokenwise."""
        return None if self.depth is None else self.depth(batch, len(self.layer_sizes), device)

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        rest, value = x, torch.zeros_like(x)
        index: list[Tensor] = []
        losses: dict[str, Tensor] = {}
        first = 0
        for layer in self.inner:
            last = first + len(layer.layer_sizes)
            share, first = mean.part(first, last), last
            if layer.starting and self.training:  # in evaluation the layer says what is missing
                index.append(x.new_zeros(len(x), len(layer.vocab_sizes), dtype=torch.int64))
                value = idle(value, layer)
                continue
            given = rest if share.rows is None else torch.where(share.rows[:, None], rest, 0.0)
            step = layer.quantize(given, share, estimator)
            part, chosen = step.value, step.index
            if share.rows is not None:
                part, chosen = torch.where(share.rows[:, None], part, 0.0), chosen * share.rows[:, None]
            rest, value = rest - part.detach(), value + part
            index.append(chosen)
            for name, loss in step.losses.items():
                losses[name] = losses.get(name, 0) + loss / len(self.layers)
        return Step(x, value, torch.cat(index, 1), losses)

    def choose_first(self, x: Tensor, n: int) -> Tensor:
        """See Tokenwise."""
        index: list[Tensor] = []
        for layer in self.inner:
            size = len(layer.vocab_sizes)
            if size >= n:
                index.append(layer.choose_first(x, n))
                break
            index.append(layer.choose(x))
            x, n = x - layer.look_up(index[-1]), n - size
        return torch.cat(index, 1)

    def look_up(self, index: Tensor) -> Tensor:
        """Index (n, K) or its first codebooks to rows (n, D). Raises InputError for a prefix that splits a layer."""
        first, value, n = 0, None, index.shape[1]
        for layer in self.inner:
            if first >= n:
                break
            last = first + len(layer.vocab_sizes)
            if last > n and "codebooks" not in layer.prefixes:
                raise self.prefix_error(n)
            part = layer.look_up(index[:, first:last])
            value, first = part if value is None else value + part, last
        if value is None or first < n:
            raise self.prefix_error(n)
        return value

    def initialize_rows(self, x: Tensor, keep: Tensor | None) -> None:
        """Starts the first layer that waits, from what the layers before it leave over."""
        for layer in self.inner:
            if layer.starting:
                layer.initialize_rows(x, keep)
                return
            x = x - layer.look_up(layer.choose(x))
            x = x if keep is None else torch.where(keep[:, None], x, 0.0)
