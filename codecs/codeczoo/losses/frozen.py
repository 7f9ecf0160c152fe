"""Networks that a loss looks through but never trains or saves, and where their weights come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from codeczoo.io.weights import given, read_tensors

Net = TypeVar("Net", bound=nn.Module)


class Frozen(nn.Module, Generic[Net]):
    """Holds a network that follows `.to(device)` yet is in no parameters(), state_dict() or train().

    The network is no registered child, so optimizers, checkpoints, DDP and FSDP do not see it; only `_apply`, which
    .to(), .cuda() and .cpu() go through, reaches it, and changes its device but not its dtype. Gradients still flow
    through it to its input.

    Args:
        net: set to eval mode and to require no gradient.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self._hidden = (net.requires_grad_(False).eval(),)  # a tuple, because nn.Module would register the module

    @property
    def net(self) -> Net:
        """The network itself."""
        return self._hidden[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen[Net]":
        super()._apply(fn, recurse)
        tensors = [*self.net.parameters(), *self.net.buffers()]
        if tensors:  # only the device: a cast to half precision must not round the network
            self.net.to(fn(torch.empty(0, device=tensors[0].device)).device)
        return self


def pretrained(path: str | Path | None, what: str, how: str) -> dict[str, Tensor]:
    """The state dict in a local weights file; nothing is ever downloaded.

    Args:
        path: see `io.weights.read_tensors`; None counts as missing.
        what: whose weights, for messages.
        how: the commands that get the file and what to do without it, for messages.

    Raises:
        MissingError: no such file. The text ends with `how`.
        WeightsError: the file cannot be read or holds no state dict.
    """
    return read_tensors(given(path, f"{what} needs pretrained weights", how))
