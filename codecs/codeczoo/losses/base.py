"""What a loss term is, and its two kinds: those that read media and those that read logits."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from codeczoo.core.errors import InputError
from codeczoo.core.types import Reconstruction


class Term(nn.Module, ABC):
    """One unweighted term of an objective; weights live in the recipe.

    Attributes:
        reads: which fields of a Reconstruction it needs: "x_hat", "logits", "features". An objective whose terms read
            no "x_hat" lets the codec skip its pixels.
    """

    reads: ClassVar[frozenset[str]]

    def forward(self, x: Tensor, reconstruction: Reconstruction) -> Tensor:
        """The term's value, a float32 scalar, always computed in float32: autocast is off inside.

        Args:
            x: the batch, in the range of the codec.
            reconstruction: what the codec made of it.

        Raises:
            InputError: the codec did not give what the term reads.
        """
        for name in sorted(self.reads):
            if getattr(reconstruction, name) is None:
                raise InputError(f"{type(self).__name__} reads {name}, and this codec's training pass gives none")
        with torch.autocast(x.device.type, enabled=False):
            return self.value(x.float(), reconstruction)

    @abstractmethod
    def value(self, x: Tensor, reconstruction: Reconstruction) -> Tensor:
        """The scalar for x in float32, outside autocast; everything in `reads` is there."""


class MediaTerm(Term):
    """A term that compares x_hat with x."""

    reads = frozenset({"x_hat"})

    def value(self, x: Tensor, reconstruction: Reconstruction) -> Tensor:
        """Checks the shapes and hands both over in float32."""
        x_hat = reconstruction.x_hat
        if x_hat is None or x_hat.shape != x.shape:
            got = None if x_hat is None else tuple(x_hat.shape)
            raise InputError(f"{type(self).__name__}: x_hat {got} is not of the shape of x {tuple(x.shape)}")
        return self.compare(x, x_hat.float())

    @abstractmethod
    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The scalar for two float32 batches of one shape."""
