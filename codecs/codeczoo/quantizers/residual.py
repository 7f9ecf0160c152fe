"""Residual quantization: each layer quantizes what the layers before it left over.

Source: SoundStream (arXiv 2107.03312), RQ-VAE (arXiv 2203.01941); the one estimator around all layers is that of
audiocraft and moshi.
Differs: residuals are taken of detached values and the estimator is applied once, to the sum. So the gradient of the
reconstruction reaches the encoder with gain 1 at any depth, and every layer's commitment loss reaches it too.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Quantized
from codeczoo.quantizers.dropout import Depth
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.tokenwise import Step, Tokenwise, grid, rows


class Residual(Tokenwise):
    """A stack of quantizers; any prefix of its codebooks decodes.

    Losses: for each name the mean over the layers, each averaged over the tokens that it takes part in.
    Layers that start from data do so one layer a batch, and take no part before.

    Args:
        layers: coarse to fine, of equal dim; their own estimators are not used.
        depth: how many layers take part in training, per batch or per sample; None: all.
        estimator: how gradients pass; None: straight through.
    """

    prefixes = ("codebooks",)

    def __init__(
        self, layers: Sequence[Tokenwise], depth: Depth | None = None, estimator: Estimator | None = None
    ) -> None:
        if not layers:
            raise ConfigError("Residual: at least one layer is wanted")
        if len({layer.dim for layer in layers}) > 1:
            raise ConfigError(f"Residual: layers must have equal dim, got {[layer.dim for layer in layers]}")
        super().__init__(tuple(v for layer in layers for v in layer.vocab_sizes), layers[0].dim, estimator)
        self.layers, self.depth = nn.ModuleList(layers), depth

    @property
    def starting(self) -> bool:  # type: ignore[override]
        """Whether a layer waits for `initialize`."""
        return any(layer.starting for layer in self._layers())

    def forward(self, z: Tensor, valid: Tensor | None = None, depth: Tensor | None = None) -> Quantized:
        """See Quantizer.forward.

        Args:
            z: (B, D, *S).
            valid: bool (B, *S), or None.
            depth: int64 (B,), layers that take part in each sample; None: as `self.depth` draws them in training, and
                all in evaluation. Codes of the others are 0, and `Quantized.depth` says how many there are.
        """
        if depth is None and self.training and self.depth is not None:
            depth = self.depth(z.shape[0], len(self.layers), z.device)
        with torch.autocast(z.device.type, enabled=False):
            x, keep = rows(z, valid)
            active = None if keep is None else keep[:, None].expand(-1, len(self.layers))  # (n, layers)
            if depth is not None:
                among = torch.arange(len(self.layers), device=z.device) < depth[:, None]  # (B, layers)
                among = among.repeat_interleave(math.prod(z.shape[2:]), 0)
                active = among if active is None else active & among
            mean = Mean(active, len(x), x.device, across=self.training)
            return replace(self.finish(z, keep, self.quantize(x, mean, self.estimator)), depth=depth)

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        rest, value = x, torch.zeros_like(x)
        index: list[Tensor] = []
        losses: dict[str, Tensor] = {}
        for k, layer in enumerate(self._layers()):
            if layer.starting:
                index.append(x.new_zeros(len(x), len(layer.vocab_sizes), dtype=torch.int64))
                continue
            share = mean.layer(k)
            given = rest if share.keep is None else torch.where(share.keep[:, None], rest, 0.0)
            step = layer.quantize(given, share, estimator)
            part, chosen = step.value, step.index
            if share.keep is not None:
                part, chosen = part * share.keep[:, None], chosen * share.keep[:, None]
            rest, value = rest - part.detach(), value + part
            index.append(chosen)
            for name, loss in step.losses.items():
                losses[name] = losses.get(name, 0) + loss / len(self.layers)
        return Step(x, value, torch.cat(index, 1), losses)

    @torch.no_grad()
    def encode(self, z: Tensor, n_codebooks: int | None = None) -> Tensor:
        """z (B, D, *S) to codes int64 (B, K, *S), or to the first codebooks of them. Raises InputError."""
        with torch.autocast(z.device.type, enabled=False):
            return grid(self.choose(rows(z)[0], n_codebooks), z)

    def choose(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        """See Tokenwise."""
        wanted = self._count(n_codebooks)
        index: list[Tensor] = []
        for layer in self._layers():
            if sum(i.shape[1] for i in index) >= wanted:
                break
            index.append(layer.choose(x))
            x = x - layer.look_up(index[-1])
        return torch.cat(index, 1)[:, :wanted]

    def look_up(self, index: Tensor) -> Tensor:
        """Index (n, K) or its first codebooks to rows (n, D). Raises InputError for a prefix that splits a layer."""
        first, value = 0, None
        for layer in self._layers():
            if first == index.shape[1]:
                break
            last = first + len(layer.vocab_sizes)
            part = layer.look_up(index[:, first:last])
            value, first = part if value is None else value + part, last
        if value is None or first != index.shape[1]:
            most = len(self.vocab_sizes)
            raise InputError(f"{index.shape[1]} codebooks: this quantizer has {most}, and whole layers decode")
        return value

    def initialize_rows(self, x: Tensor, keep: Tensor | None) -> None:
        """Starts the first layer that waits, from what the layers before it leave over."""
        for layer in self._layers():
            if layer.starting:
                layer.initialize_rows(x, keep)
                return
            x = x - layer.look_up(layer.choose(x))
            x = x if keep is None else torch.where(keep[:, None], x, 0.0)

    def _layers(self) -> Iterator[Tokenwise]:
        return iter(self.layers)  # type: ignore[arg-type]

    def _count(self, n: int | None) -> int:
        most = len(self.vocab_sizes)
        if n is not None and not 1 <= n <= most:
            raise InputError(f"n_codebooks must be 1..{most}, got {n}")
        return n or most
