"""Quantizer dropout: how many layers of a residual quantizer take part in a training sample.

Drawn from torch's generator, as masks of fixed shape: nothing depends on what was drawn but values, so ranks may draw
differently and compiled graphs stay.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.layout import whole_numbers


class Depth(nn.Module, ABC):
    """A rule."""

    @abstractmethod
    def forward(self, batch: int, layers: int, device: torch.device) -> Tensor:
        """Layers for each sample, int64 (batch,), in 1..layers."""


class UniformDepth(Depth):
    """For a share of the samples any number of layers, equally likely; all layers for the others.

    Source: SoundStream (arXiv 2107.03312); the share is that of DAC (arXiv 2306.06546).

    Args:
        share: probability that a sample loses layers at all, 0..1.
        least: fewest layers.
    """

    def __init__(self, share: float = 1.0, least: int = 1) -> None:
        super().__init__()
        if not 0 <= share <= 1 or least < 1:
            raise ConfigError(f"UniformDepth: share in 0..1 and least >= 1, got {share}, {least}")
        self.share, self.least = share, least

    def forward(self, batch: int, layers: int, device: torch.device) -> Tensor:
        """See Depth."""
        _check(self.least, layers)
        drawn = torch.randint(self.least, layers + 1, (batch,), device=device)
        return torch.where(torch.rand(batch, device=device) < self.share, drawn, layers)


class ChosenDepth(Depth):
    """One of the numbers of layers that the codec's bitrates have, equally likely.

    Source: EnCodec (arXiv 2210.13438), which trains its bandwidths only.

    Args:
        depths: numbers of layers.
    """

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        if not depths or min(depths) < 1:
            raise ConfigError(f"ChosenDepth: depths must be at least 1 and not empty, got {list(depths)}")
        self.depths = tuple(depths)

    def forward(self, batch: int, layers: int, device: torch.device) -> Tensor:
        """See Depth."""
        _check(max(self.depths), layers)
        which = torch.randint(len(self.depths), (batch,), device=device)
        return whole_numbers(self.depths, device)[which]


class PowerDepth(Depth):
    """1, 2, 4 .. or all layers, equally likely.

    Source: FlexTok (arXiv 2502.13967), of positions.
    """

    def forward(self, batch: int, layers: int, device: torch.device) -> Tensor:
        """See Depth."""
        exponent = torch.randint((layers - 1).bit_length() + 1, (batch,), device=device)
        return (1 << exponent).clamp(max=layers)


class RoundedDepth(Depth):
    """Any number of layers, equally likely, rounded up to a power of two or to all layers.

    Source: FlexTok (arXiv 2502.13967), of positions.
    """

    def forward(self, batch: int, layers: int, device: torch.device) -> Tensor:
        """See Depth."""
        drawn = torch.randint(1, layers + 1, (batch,), device=device)
        return (1 << drawn.double().log2().ceil().long()).clamp(max=layers)


class PerBatch(Depth):
    """One draw of another rule for the whole batch.

    Args:
        rule: what is drawn.
    """

    def __init__(self, rule: Depth) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, batch: int, layers: int, device: torch.device) -> Tensor:
        """See Depth."""
        return self.rule(1, layers, device).expand(batch)


def kept(counts: Tensor, n: int) -> Tensor:
    """Which of n layers, scales or positions stay where the first `counts` (B,) do, bool (B, n).

    Tail drop of 1D tokens is a rule's draw over positions: `kept(rule(batch, n, device), n)` as `valid`.
    """
    return torch.arange(n, device=counts.device) < counts[:, None]


def _check(wanted: int, layers: int) -> None:
    if wanted > layers:
        raise ConfigError(f"quantizer dropout wants {wanted} layers of a quantizer with {layers}")
