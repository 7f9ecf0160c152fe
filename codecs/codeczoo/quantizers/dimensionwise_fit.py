"""Fits of a Dimensionwise quantizer to the latents of a frozen model, gathered over batches and ranks."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from codeczoo.quantizers.dimensionwise import Dimensionwise
from codeczoo.quantizers.layout import check_width, rows
from codeczoo.quantizers.ranks import gathered, summed


class Fit(ABC):
    """Fits a Dimensionwise quantizer to latents: give batches to `observe`, then call `finish`, on every rank.

    The result does not depend on how latents are divided among batches and ranks, up to rounding.

    Args:
        quantizer: what is fitted.
    """

    def __init__(self, quantizer: Dimensionwise) -> None:
        self.quantizer = quantizer

    @torch.no_grad()
    def observe(self, z: Tensor, valid: Tensor | None = None) -> None:
        """z (B, D, *S), valid bool (B, *S) or None."""
        x, keep = rows(z, valid)
        check_width(x, self.quantizer.dim, "channels of z")
        self.add(x, keep)

    @abstractmethod
    def add(self, x: Tensor, keep: Tensor | None) -> None:
        """Rows (n, D), 0 where masked, and which count, bool (n,) or None."""

    @abstractmethod
    def finish(self) -> None:
        """Sets the quantizer's values. Raises InputError when no rank saw latents, or some are not finite."""


class Extremes(Fit):
    """The ends are the least and the greatest number of each channel."""

    def __init__(self, quantizer: Dimensionwise) -> None:
        super().__init__(quantizer)
        self.low = torch.full_like(quantizer.entries[:, 0], torch.inf)  # (D,)
        self.high = -self.low

    def add(self, x: Tensor, keep: Tensor | None) -> None:
        """See Fit."""
        low = x if keep is None else torch.where(keep[:, None], x, torch.inf)
        high = x if keep is None else torch.where(keep[:, None], x, -torch.inf)
        self.low = torch.cat([self.low[None], low]).amin(0)
        self.high = torch.cat([self.high[None], high]).amax(0)

    def finish(self) -> None:
        """See Fit."""
        self.quantizer.span(gathered(self.low[None]).amin(0), gathered(self.high[None]).amax(0))


class Moments(Fit):
    """The ends are `width` standard deviations from the mean of each channel: for latents that are nearly normal."""

    def __init__(self, quantizer: Dimensionwise) -> None:
        super().__init__(quantizer)
        self.sums = torch.zeros(3, quantizer.dim, dtype=torch.float64, device=quantizer.entries.device)

    def add(self, x: Tensor, keep: Tensor | None) -> None:
        """See Fit."""
        x = x.double()
        count = torch.ones_like(x) if keep is None else keep.double()[:, None].expand_as(x)
        self.sums += torch.stack([count.sum(0), x.sum(0), x.square().sum(0)])

    def finish(self) -> None:
        """See Fit."""
        count, total, squares = summed(self.sums)
        mean = total / count
        reach = (squares / count - mean.square()).clamp(min=0).sqrt() * self.quantizer.width
        self.quantizer.span(mean - reach, mean + reach)


class Quantiles(Fit):
    """The values are the medians of L equally frequent parts of each channel, for latents of any distribution.

    Counts numbers by the upper half of their 32 bits, so that a value is off by at most a 256th of itself.
    """

    def __init__(self, quantizer: Dimensionwise) -> None:
        super().__init__(quantizer)
        self.counts = quantizer.entries.new_zeros(quantizer.dim, 1 << 16, dtype=torch.int64)

    def add(self, x: Tensor, keep: Tensor | None) -> None:
        """See Fit."""
        bits = x.contiguous().view(torch.int32).long()
        place = torch.where(bits < 0, ~bits & 0x7FFFFFFF, bits + 0x80000000) >> 16  # grows with the number
        count = torch.ones_like(place) if keep is None else keep.long()[:, None].expand_as(place)
        self.counts.scatter_add_(1, place.t(), count.t())

    def finish(self) -> None:
        """See Fit."""
        total, levels = summed(self.counts).cumsum(1).double(), self.quantizer.entries.shape[1]
        share = (torch.arange(levels, device=total.device) + 0.5) / levels
        wanted = total[:, -1:] * share  # (D, L)
        at = torch.searchsorted(total, wanted)
        before = torch.where(at > 0, total.gather(1, (at - 1).clamp(min=0)), 0.0)
        within = (wanted - before) / (total.gather(1, at) - before)
        low, high = _number(at), _number(at + 1)
        self.quantizer.fix(low + within * (high - low))


def _number(place: Tensor) -> Tensor:
    """The least number that Quantiles counts at a place, float64."""
    bits = torch.where(place < 0x8000, ~(place << 16) & 0xFFFFFFFF, (place << 16) - 0x80000000)
    return torch.where(bits > 0x7FFFFFFF, bits - (1 << 32), bits).int().view(torch.float32).double()
