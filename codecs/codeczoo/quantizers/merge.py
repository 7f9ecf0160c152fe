"""How a level of a top-down quantizer takes up what the coarser levels gave."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from codeczoo.nn.conv3d import FrameConv
from codeczoo.nn.stage3d import Stage


class Merge(nn.Module, ABC):
    """A strategy between two neighbouring levels.

    Attributes:
        up: from what the coarser levels give to the finer grid; no step of it may see later ones.
        dim: channels of the finer level's feature and value.
        given: channels of what `join` gives.
    """

    up: Stage
    dim: int
    given: int

    @abstractmethod
    def latent(self, feature: Tensor, above: Tensor) -> Tensor:
        """What the finer level quantizes, (B, dim, t, h, w), from its feature and what came up, on its grid."""

    @abstractmethod
    def join(self, above: Tensor, value: Tensor | None) -> Tensor:
        """What came up and the finer level's value, or None without it, to what all give, (B, given, t, h, w)."""


class ResidualMerge(Merge):
    """A finer level quantizes what the coarser ones leave over of its feature, and its value is added to theirs.

    What they gave is a constant there: so gradients of the sum reach the feature of every level with gain 1.

    Args:
        up: see Merge.
    """

    def __init__(self, up: Stage) -> None:
        super().__init__()
        self.up, self.dim, self.given = up, up.outputs, up.outputs

    def latent(self, feature: Tensor, above: Tensor) -> Tensor:
        """See Merge."""
        return feature - above.detach()

    def join(self, above: Tensor, value: Tensor | None) -> Tensor:
        """See Merge."""
        return above if value is None else above + value


class ConcatMerge(Merge):
    """A finer level quantizes a mix of its feature and what the coarser ones gave; values are put side by side.

    Source: VQ-VAE-2 (arXiv 1906.00446).
    Differs: what comes up is the same for both, where the paper has a way up of its own to the decoder.

    Args:
        up: see Merge.
        dim: channels of the finer level's feature and value.
    """

    def __init__(self, up: Stage, dim: int) -> None:
        super().__init__()
        self.up, self.dim, self.given = up, dim, up.outputs + dim
        self.mix = FrameConv(self.given, dim, 1)

    def latent(self, feature: Tensor, above: Tensor) -> Tensor:
        """See Merge."""
        return self.mix(torch.cat([above, feature], 1))

    def join(self, above: Tensor, value: Tensor | None) -> Tensor:
        """See Merge: zeros stand for a value that is not there."""
        if value is None:
            value = above.new_zeros(len(above), self.dim, *above.shape[2:])
        return torch.cat([above, value], 1)
