"""Which parts of a codec are trained, from which weights they start, and how they save memory."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from codeczoo import zoo
from codeczoo.core.base import Quantizer
from codeczoo.core.errors import ConfigError, WeightsError, nearest
from codeczoo.quantizers.tables import TableVQ


def freeze(codec: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Stops the training of parameters.

    Args:
        codec: whose parts are frozen.
        names: dotted names of modules ("encoder", "head.decoder") or of single parameters.

    Returns: the frozen modules, which must stay in evaluation mode.
    Raises: ConfigError for a name that is neither, or when nothing is left to train.
    """
    modules, parameters = dict(codec.named_modules()), dict(codec.named_parameters())
    frozen = []
    for name in names:
        if not name or (name not in modules and name not in parameters):
            near = nearest(name, {*modules, *parameters} - {""})
            raise ConfigError(f"freeze: the codec has no part '{name}'; {near}")
        if name in modules:
            frozen.append(modules[name].requires_grad_(False).eval())
        else:
            parameters[name].requires_grad_(False)
    if not any(p.requires_grad for p in codec.parameters()):
        raise ConfigError("freeze: nothing is left to train")
    return frozen


def set_checkpointing(module: nn.Module) -> None:
    """Makes every submodule that can recompute its activations in backward do so. Raises ConfigError when none can."""
    able = [m for m in module.modules() if isinstance(getattr(m, "checkpointing", None), bool)]
    if not able:
        raise ConfigError(f"checkpointing: no part of {type(module).__name__} can recompute its activations")
    for part in able:
        part.checkpointing = True  # type: ignore[assignment]


def waiting(codec: nn.Module) -> list[Quantizer]:
    """The quantizers that begin from data and have not begun, or not with all of their layers."""
    return [m for m in codec.modules() if isinstance(m, Quantizer) and m.starting]


@contextmanager
def starting_codebooks(codec: nn.Module) -> Iterator[None]:
    """Inside, quantizers that begin from data begin from the first latents that they get."""
    hooks = [quantizer.register_forward_pre_hook(_start, with_kwargs=True) for quantizer in waiting(codec)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _start(quantizer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
    assert isinstance(quantizer, Quantizer)
    quantizer.initialize(*given[:2], **{name: named[name] for name in ("z", "valid") if name in named})


class WarmStart:
    """Weights to start from, out of a codeczoo checkpoint.

    Codebooks may come without what training keeps beside them, as the shipped ones do: the codec's moving averages
    then begin as if every entry had been used equally often.

    Args:
        path: checkpoint file, folder or shipped name.
        prefixes: parts to take, {name in the checkpoint: name in the codec}, for instance
            {decoder: head.decoder}. None takes all of it, and both must then have the same tensors.
    """

    def __init__(self, path: str, prefixes: dict[str, str] | None = None) -> None:
        self.path, self.prefixes = path, prefixes

    def apply(self, codec: nn.Module) -> None:
        """Copies the weights into `codec`.

        Raises:
            InputError: no such checkpoint.
            WeightsError: a tensor is missing on either side or has another shape.
        """
        source, wanted = zoo.load_autoencoder(self.path).state_dict(), codec.state_dict()
        taken = source if self.prefixes is None else self._renamed(source)
        targets = [""] if self.prefixes is None else list(self.prefixes.values())
        plain = _plain_codebooks(codec, taken)
        beside = [f"{name}." for name in plain]  # what the tables begin from their entries
        missing = [
            name for name in wanted
            if name not in taken and any(_below(name, t) for t in targets) and not name.startswith(tuple(beside))
        ]
        odd = [name for name in taken if name not in wanted or taken[name].shape != wanted[name].shape]
        for problem, names in (("do not fit", odd), ("are missing", missing)):
            if names:
                raise WeightsError(f"warm start from {self.path}: {len(names)} tensors {problem}, e.g. {names[0]}")
        codec.load_state_dict(taken, strict=False)  # the rest keeps its start; what is missing was refused above
        for table in plain.values():
            table.begin(table.codebook.detach().clone(), torch.ones(len(table.codebook)))

    def _renamed(self, source: dict[str, Tensor]) -> dict[str, Tensor]:
        taken: dict[str, Tensor] = {}
        for old, new in (self.prefixes or {}).items():
            part = {new + name[len(old):]: value for name, value in source.items() if _below(name, old)}
            if not part:
                raise WeightsError(f"warm start from {self.path}: it has no '{old}'; {nearest(old, _parts(source))}")
            taken |= part
        return taken


def _plain_codebooks(codec: nn.Module, taken: Collection[str]) -> dict[str, TableVQ]:
    """Tables of the codec of which `taken` has the entries alone, though they have more, by name."""
    found = {}
    for name, part in codec.named_modules():
        if isinstance(part, TableVQ):
            own = {f"{name}.{key}" for key in part.state_dict()}
            if own & set(taken) == {f"{name}.codebook"} != own:
                found[name] = part
    return found


def _below(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(prefix + ".")


def _parts(names: dict[str, Tensor]) -> set[str]:
    return {".".join(n.split(".")[:depth]) for n in names for depth in (1, 2)}
