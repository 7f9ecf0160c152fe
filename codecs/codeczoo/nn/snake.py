"""The periodic activation of DAC."""

import torch
from torch import Tensor, nn

from codeczoo.nn import fast1d
from codeczoo.nn.stream import Layer


class Snake(Layer):
    """x + sin^2(alpha x) / alpha, alpha learned for each channel.

    Source: arXiv 2006.08195 as in DAC (arXiv 2306.06546), with its 1e-9 beside alpha.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        if fast1d.applies(x):
            alpha = self.alpha.view(-1)
            inverse = 1 / (alpha + 1e-9)
            return fast1d.in_cache(x, lambda piece: torch.addcmul(piece, (alpha * piece).sin_().square_(), inverse))
        return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)
