"""Networks that a loss looks through but never trains or saves, and the reading of their weight files."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from codeczoo.core.errors import MissingError, WeightsError

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


def read_weights(path: str | Path | None, what: str, how: str) -> dict[str, Tensor]:
    """The state dict in a local .safetensors or torch file; never downloads, never unpickles objects.

    Args:
        path: the file; None counts as missing.
        what: whose weights, for messages.
        how: the commands that get the file and what to do without it, for messages.

    Raises:
        MissingError: no such file. The text ends with `how`.
        WeightsError: the file cannot be read or holds no tensors by name.
    """
    if path is None or not Path(path).is_file():
        where = "no path is given" if path is None else f"there is no file {path}"
        raise MissingError(f"{what} needs pretrained weights and {where}. {how}")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen types for broken files
        raise WeightsError(f"{what}: {path} cannot be read as weights ({type(error).__name__}: {error})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{what}: {path} is not a plain state dict (tensors by name)")
    return dict(state)


def load_exactly(net: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Loads `state` into `net`. Raises WeightsError that names what is missing, left over or of another shape."""
    wanted = net.state_dict()
    wrong = [f"no {name}" for name in wanted if name not in state]
    wrong += [f"unknown {name}" for name in state if name not in wanted]
    wrong += [
        f"{name} is {tuple(state[name].shape)} and not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(f"{what}: the weights do not fit: {'; '.join(wrong[:3])}{more}")
    net.load_state_dict(state)
