"""Losses of a codebook itself, whatever the latents are."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F


class Penalty(nn.Module, ABC):
    """A rule without state."""

    @abstractmethod
    def forward(self, table: Tensor) -> dict[str, Tensor]:
        """Table (V, D) float32, as it is compared, to unweighted scalars by name."""


class Orthogonality(Penalty):
    """"orthogonality": the mean over all V^2 pairs of the squared cosine between two different entries.

    Source: arXiv 2112.00384, as in vector-quantize-pytorch (github.com/lucidrains/vector-quantize-pytorch).
    Differs: the sum of V x V squared cosines is that of the D x D products of channels, |E E^T|^2 = |E^T E|^2; so it is
    exact over all entries in the memory of D^2, and no random subset is drawn.
    """

    def forward(self, table: Tensor) -> dict[str, Tensor]:
        """See Penalty."""
        unit = F.normalize(table, dim=1)
        pairs = (unit.t() @ unit).square().sum()  # of all (i, j)
        same = unit.square().sum(1).square().sum()  # of (i, i)
        return {"orthogonality": (pairs - same) / len(table) ** 2}
