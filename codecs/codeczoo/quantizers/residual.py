"""Residual quantization: each layer quantizes what the layers before it left over.

Source: SoundStream (arXiv 2107.03312), RQ-VAE (arXiv 2203.01941); the one estimator around all layers is that of
audiocraft and moshi.
Differs: residuals are taken of detached values and the estimator is applied once, to the sum. So the gradient of the
reconstruction reaches the encoder with gain 1 at any depth, and every layer's commitment loss reaches it too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from codeczoo.quantizers.dropout import Depth
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.layered import Layered, equal_dim, joined
from codeczoo.quantizers.ranks import Mean, idle
from codeczoo.quantizers.tally import Stateful
from codeczoo.quantizers.tokenwise import Step, Tokenwise
from codeczoo.quantizers.vq import EMAVQ


class Residual(Layered, Stateful):
    """A stack of quantizers; any prefix of its codebooks decodes.

    Losses: for each name the mean over the layers, each averaged over the tokens that it takes part in.
    Layers that start from data do so one layer a batch, and take no part before.
    Memory of a training step over plain codebooks does not grow with their number, but for the codes: what commitment
    losses pull by is summed, and moving averages get their latents in `update`, again from x and the codes.

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
        self.held: tuple[Tensor, Tensor, Tensor | None] | None = None

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
        pull: Tensor | None = None
        index: list[Tensor] = []
        losses: dict[str, Tensor] = {}
        first, later = 0, self._learns_later()
        for layer in self.inner:
            last = first + len(layer.layer_sizes)
            share, first = mean.part(first, last), last
            taken = None if share.rows is None else share.rows[:, None]  # (n, 1)
            if layer.starting and self.training:  # in evaluation the layer says what is missing
                index.append(x.new_zeros(len(x), len(layer.vocab_sizes), dtype=torch.int64))
                value = idle(value, layer)
                continue
            given = rest if taken is None else torch.where(taken, rest, 0.0)
            known = layer.only_commits and x.requires_grad  # then no graph of the layer need be kept
            work = layer.match if later and isinstance(layer, EMAVQ) else layer.quantize
            step = work(given.detach() if known else given, share, estimator)
            part, chosen = step.value, step.index
            if taken is not None:
                part, chosen = torch.where(taken, part, 0.0), chosen * taken
            rest, value = rest - part.detach(), value + part
            index.append(chosen)
            for name, loss in step.losses.items():
                losses[name] = losses.get(name, 0) + loss / len(self.layers)
            if known:
                left = (rest if taken is None else torch.where(taken, rest, 0.0)).detach()
                own = left * (share.scale * (2 / self.dim / len(self.layers)))
                pull = own if pull is None else pull + own
        if pull is not None:
            losses["commitment"] = _Pulling.apply(losses["commitment"], x, pull)
        codes = torch.cat(index, 1)
        if later:
            self.held = x.detach(), codes, mean.keep
        return Step(x, value, codes, losses)

    def _learns_later(self) -> bool:
        """Whether `update` can find again what each layer got: only it moves their entries, and one batch is held."""
        return self.held is None and all(
            isinstance(layer, EMAVQ) and layer.only_commits and layer.training and not layer.starting
            for layer in self.inner
        )

    @torch.no_grad()
    def update(self) -> None:
        """See Stateful: layers learn from the batch that was held, one after the other."""
        if self.held is None:
            return
        (rest, index, keep), self.held = self.held, None
        for k, layer in enumerate(self.inner):
            assert isinstance(layer, EMAVQ)
            counts = keep if keep is None or keep.ndim == 1 else keep[:, k]
            given = rest if counts is None else torch.where(counts[:, None], rest, 0.0)
            rest = given - layer.look_up(index[:, k : k + 1])
            layer.watch(given, index[:, k], counts)
            layer.update()

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


class _Pulling(torch.autograd.Function):
    """A loss and its gradient with respect to x, (n, D), which is known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, x: Tensor, pull: Tensor) -> Tensor:
        ctx.save_for_backward(pull)
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (pull,) = ctx.saved_tensors
        return grad, grad * pull, None
