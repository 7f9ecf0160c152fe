"""A quantizer of few channels between two projections, and the look-up by angle that DAC puts there."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.estimators import Estimator, StraightThrough
from codeczoo.quantizers.layered import Layered
from codeczoo.quantizers.lookup import nearest
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.tokenwise import Step, Tokenwise
from codeczoo.quantizers.vq import VQ


class Projected(Layered):
    """out_proj(quantizer(in_proj(z))): codes of few channels for a latent of many.

    By itself, gradients pass as the inner quantizer lets them and are then those of the projections. As a layer of
    another quantizer its value trains both projections and not the latent, which that quantizer's one estimator trains.

    Source: factorised codes of ViT-VQGAN (arXiv 2110.04627); layers of DAC (arXiv 2306.06546), whose projections have a
    bias; the halves of Mimi (arXiv 2410.00037), whose have none.
    Differs: DAC trains its projections with weight norm, these are plain: fold g * v / |v| when loading. As a layer
    the inner code is always straight through to the projected latent.

    Args:
        quantizer: of the projected latent; its dim is the number of channels between the projections.
        dim: D, channels in and out.
        bias: whether the projections add one.
    """

    def __init__(self, quantizer: Tokenwise, dim: int, bias: bool = True) -> None:
        if dim < 1:
            raise ConfigError(f"Projected: dim must be at least 1, got {dim}")
        super().__init__([quantizer], quantizer.vocab_sizes, dim)
        self.in_proj = nn.Linear(dim, quantizer.dim, bias)
        self.out_proj = nn.Linear(quantizer.dim, dim, bias)
        self.straight = StraightThrough()
        self.drops, self.prefixes = quantizer.drops, quantizer.prefixes

    @property
    def quantizer(self) -> Tokenwise:
        """The one between the projections."""
        return self.inner[0]

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """See Tokenwise."""
        return self.quantizer.layer_sizes

    def draw(self, batch: int, device: torch.device) -> Tensor | None:
        """See Tokenwise."""
        return self.quantizer.draw(batch, device)

    def through(self, x: Tensor, mean: Mean) -> Step:
        """See Tokenwise."""
        step = self.quantizer.through(self._inwards(x, mean.rows), mean)
        return replace(step, latent=x, value=self.out_proj(step.value))

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        step = self.quantizer.quantize(self._inwards(x, mean.rows), mean, estimator)
        code = self.straight(self._inwards(x.detach(), mean.rows), step.value)
        return Step(x, self.out_proj(code), step.index, step.losses)

    def choose_first(self, x: Tensor, n: int) -> Tensor:
        """See Tokenwise."""
        return self.quantizer.choose_first(self.in_proj(x), n)

    def look_up(self, index: Tensor) -> Tensor:
        """See Tokenwise."""
        return self.out_proj(self.quantizer.look_up(index))

    def initialize_rows(self, x: Tensor, keep: Tensor | None) -> None:
        """See Tokenwise."""
        self.quantizer.initialize_rows(self._inwards(x, keep), keep)

    def _inwards(self, x: Tensor, keep: Tensor | None) -> Tensor:
        latent = self.in_proj(x)  # (n, d)
        return latent if keep is None else torch.where(keep[:, None], latent, 0.0)


class AngularVQ(VQ):
    """VQ by angle whose codes have a length: compared on the unit sphere, trained and returned as they are.

    Source: DAC (arXiv 2306.06546, github.com/descriptinc/descript-audio-codec); VAR with `using_znorm`.
    Differs: a latent's scores are not divided by its length, which changes no choice.
    Losses and arguments: see VQ. Entries start as normal numbers, as DAC's do.
    """

    def make_table(self, vocab_size: int, dim: int) -> None:
        """See TableVQ."""
        self.codebook = nn.Parameter(torch.randn(vocab_size, dim))

    def find(self, x: Tensor, table: Tensor, adjust: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """See Matching. `adjust` gets cosines, up to a constant."""
        return nearest(F.normalize(x, dim=-1), F.normalize(table, dim=-1), adjust)
