"""What a codec is trained to minimise, adversaries aside."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError, nearest
from codeczoo.core.types import Reconstruction
from codeczoo.losses.base import Term


class Weighted(NamedTuple):
    """A loss and its weight.

    Args:
        weight: in the total.
        value: scalar with its graph.
    """

    weight: Tensor | float
    value: Tensor


def weighted_sum(losses: Mapping[str, Weighted]) -> Tensor:
    """The scalar that the losses add up to; 0 for none."""
    return sum((weight * value for weight, value in losses.values()), torch.zeros(()))


@dataclass
class Losses:
    """One batch's losses.

    Args:
        media: of the terms that read x_hat alone, by name.
        own: weighted sum of the others: terms that read anything else, and the codec's own losses.
        values: every unweighted loss by name, detached, for logging.
    """

    media: dict[str, Weighted]
    own: Tensor
    values: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """Weighted sum of all."""
        return self.own + weighted_sum(self.media)


class Objective(nn.Module):
    """Weighted sum of terms and of the codec's own losses. Every one has a weight and every weight is of one.

    A weight of 0 switches a loss off: its term is not computed.

    Args:
        terms: by name.
        weights: by name of a term or of a loss that the codec gives ("commitment", "codebook", ...).

    Raises:
        ConfigError: a term without a weight, or no loss at all.
    """

    def __init__(self, terms: dict[str, Term], weights: dict[str, float]) -> None:
        super().__init__()
        for name in terms:
            if name not in weights:
                raise ConfigError(f"objective: term '{name}' has no weight; add objective.weights.{name}")
        if not any(weights.values()):
            raise ConfigError("objective: no loss has a weight other than 0")
        self.terms = nn.ModuleDict({name: term for name, term in terms.items() if weights[name] != 0})
        self.unused = frozenset(terms) - frozenset(self.terms)
        self.weights = dict(weights)

    @property
    def reads(self) -> frozenset[str]:
        """Fields of a Reconstruction that the terms need."""
        return frozenset().union(*(term.reads for term in self.terms.values()))  # type: ignore[arg-type]

    @property
    def media(self) -> list[str]:
        """Names of the terms that read x_hat alone."""
        return [name for name, term in self.terms.items() if term.reads == {"x_hat"}]

    def forward(self, x: Tensor, reconstruction: Reconstruction) -> Losses:
        """Losses of one batch.

        Raises:
            ConfigError: a loss of the codec without a weight, or a weight that belongs to nothing.
        """
        self.check(reconstruction.losses)
        found = {name: term(x, reconstruction) for name, term in self.terms.items()} | reconstruction.losses
        losses = {name: Weighted(self.weights[name], value) for name, value in found.items()}
        media = {name: losses[name] for name in self.media}
        own = {name: loss for name, loss in losses.items() if name not in media and loss.weight != 0}
        return Losses(media, weighted_sum(own), {name: value.detach() for name, value in found.items()})

    def check(self, own: Mapping[str, Tensor]) -> None:
        """Raises ConfigError unless weights and losses match one to one; `own` are the codec's."""
        known = {*self.terms, *self.unused, *own}
        for name in own:
            if name in self.terms or name in self.unused:
                raise ConfigError(f"objective: the codec gives a loss '{name}' too; rename the term")
            if name not in self.weights:
                raise ConfigError(f"objective: the codec's loss '{name}' has no weight; add objective.weights.{name}")
        for name in self.weights:
            if name not in known:
                raise ConfigError(f"objective: weight '{name}' belongs to no term and no loss; {nearest(name, known)}")
