"""Exponential moving average of a module's trainable weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError


class EMA(nn.Module):
    """Shadow copies of the parameters that require a gradient; buffers and frozen parameters are never averaged.

    Source: github.com/bytedance/1d-tokenizer modeling/modules/ema_model.py: the decay warms up as (1+s)/(10+s), and the
    first update copies the weights.

    Args:
        module: whose weights are averaged; it stays the caller's own (not a child of this one).
        decay: 0..1, share of the old average that is kept at an update.

    Attributes:
        updates: so far; whoever saves the state dict must save it too (FSDP's checkpoints take tensors only).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ConfigError(f"ema must be at least 0 and less than 1, got {decay}")
        self.decay, self.updates = decay, 0
        self._parameters_of = {n: p for n, p in module.named_parameters() if p.requires_grad}
        for name, parameter in self._parameters_of.items():
            self.register_buffer(_buffer(name), parameter.detach().clone())

    def shadows(self) -> list[Tensor]:
        """The averages, in the order of the parameters."""
        return [self._buffers[_buffer(name)] for name in self._parameters_of]  # type: ignore[misc]

    def current_decay(self) -> float:
        """Decay of the next update."""
        s = self.updates
        return 0.0 if s == 0 else min(self.decay, (1 + s) / (10 + s))

    @torch.no_grad()
    def update(self) -> None:
        """Moves the averages towards the weights."""
        torch._foreach_lerp_(self.shadows(), list(self._parameters_of.values()), 1 - self.current_decay())
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has the averages as its weights. Its own come back even after an error."""
        parameters: list[Tensor] = list(self._parameters_of.values())
        with torch.no_grad():
            own = [p.detach().clone() for p in parameters]
            _copy(parameters, self.shadows())
        try:
            yield
        finally:
            with torch.no_grad():
                _copy(parameters, own)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):  # sharded tensors have no foreach copy
        target.copy_(source)


def _buffer(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name may hold no dot
