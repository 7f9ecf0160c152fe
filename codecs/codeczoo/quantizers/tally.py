"""What training forwards gather for the next update of a codebook."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Tally:
    """Tensors by name that grow between two updates. Not buffers: checkpoints and DDP's broadcasts do not know them."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Adds to what is held."""
        held = self.held.get(name)
        self.held[name] = value if held is None else held + value

    def take(self) -> dict[str, Tensor]:
        """What is held, empty when no training forward came; forgets it."""
        held, self.held = self.held, {}
        return held


class Stateful(nn.Module, ABC):
    """A module whose state follows from the batches it saw, not from gradients."""

    @abstractmethod
    def update(self) -> None:
        """Folds in what was gathered since the last call: once per optimizer step, on every rank."""


@torch.no_grad()
def update(module: nn.Module) -> None:
    """Updates every codebook inside `module` that learns from the batches it saw.

    Call it once after each optimizer step, on every rank. With gradient accumulation, or with several ranks, the result
    is that of one process and one forward on the concatenated batch.
    """
    for part in module.modules():
        if isinstance(part, Stateful):
            part.update()
