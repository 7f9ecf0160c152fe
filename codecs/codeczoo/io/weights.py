"""Weights files: our own checkpoints (safetensors with a self-describing header) and the authors' (many kinds)."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from codeczoo.core.errors import InputError, MissingError, WeightsError
from codeczoo.io import torchscript
from codeczoo.io.files import atomic

HEADER = "codeczoo"  # key of the safetensors metadata that holds our JSON
Renames = Sequence[tuple[str, str]]


def write_checkpoint(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes tensors and header beside `path`, then renames."""
    tensors = {key: value.detach().contiguous().cpu() for key, value in state.items()}
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, {"format": "pt", HEADER: json.dumps(header)})
        temporary.chmod(mode)  # safetensors lets nobody but the owner read what it writes


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write_checkpoint` made. Raises WeightsError."""
    return read_tensors(path), read_header(path)


def read_header(path: Path) -> dict[str, Any]:
    """Header of a codeczoo checkpoint, without torch work. Raises WeightsError for anything else."""
    text = _safetensors_metadata(path).get(HEADER)
    if text is None:
        raise WeightsError(f"{path}: no codeczoo checkpoint (its header describes no codec); see codeczoo import")
    try:
        return dict(json.loads(text))
    except ValueError:
        raise WeightsError(f"{path}: the header is not JSON") from None


def read_literals(path: Path) -> dict[str, Any]:
    """The Python literals in the header of a safetensors file, by name. Raises WeightsError for anything else."""
    try:
        return {key: ast.literal_eval(text) for key, text in _safetensors_metadata(path).items()}
    except (ValueError, SyntaxError):
        raise WeightsError(f"{path}: its header is not of Python literals") from None


def _safetensors_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(str(path), "pt") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None


def given(path: str | Path | None, need: str, how: str) -> Path:
    """The local weights file that somebody named; nothing is ever downloaded.

    Args:
        path: None where nobody did.
        need: who needs what, for the message.
        how: the commands that get the file and what to do without it, for the message.

    Raises:
        MissingError: no such file.
    """
    if path is None or not Path(path).is_file():
        where = "no path is given" if path is None else f"there is no file {path}"
        raise MissingError(f"{need} and {where}. {how}")
    return Path(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a weights file, never unpickling objects.

    Takes .safetensors, and .pt .pth .ckpt .bin .th read with `weights_only=True`; there a state dict under
    "state_dict", "model" or "ema" is looked up. TorchScript archives (.jit) are read as data too. Of a folder the .jit
    files are read together, as Cosmos tokenizers are published.

    Raises:
        InputError: no such file.
        WeightsError: a file that cannot be read or holds no state dict.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        _safetensors_metadata(path)
        with safe_open(str(path), "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    if path.is_dir():
        return _read_halves(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if torchscript.is_archive(path):
        return torchscript.read_archive(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and EOF errors of many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(f"{path}: cannot be read as weights only ({reason[0].partition('. ')[0]})") from None
    for key in ("state_dict", "model", "ema"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path}: holds no state dict")
    return dict(found)


def _read_halves(folder: Path) -> dict[str, Tensor]:
    """The tensors of encoder.jit and decoder.jit. Raises InputError, WeightsError."""
    halves = [folder / name for name in ("encoder.jit", "decoder.jit")]
    for path in halves:
        if not path.is_file():
            raise InputError(f"{folder}: a folder of weights wants encoder.jit and decoder.jit; {path.name} is absent")
    first, second = map(torchscript.read_archive, halves)
    for key in first.keys() & second.keys():
        raise WeightsError(f"{folder}: both archives hold {key}")
    return first | second


def rename(key: str, renames: Renames) -> str:
    """The key after every (pattern, replacement) in order."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def map_keys(
    found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]], renames: Renames, unused: Sequence[str]
) -> dict[str, str]:
    """Which of the authors' tensors goes where: {their key: our key}, by shapes alone.

    Args:
        found: shapes of the authors' tensors by their keys.
        wanted: shapes of our tensors by our keys.
        renames: (pattern, replacement) from their keys to ours.
        unused: patterns of their keys that inference does not need.

    Raises:
        WeightsError: a tensor without a place, a place without a tensor, or a shape that does not fit (but for trailing
            1s: a 1x1 convolution may be a linear layer here, or the other way round).
    """
    places: dict[str, str] = {}
    for key, shape in found.items():
        if any(re.search(pattern, key) for pattern in unused):
            continue
        ours = rename(key, renames)
        if ours not in wanted:
            raise WeightsError(f"weights have {key} (here {ours}), which this codec has not")
        if ours in places.values():
            raise WeightsError(f"weights have two tensors for {ours}; the second is {key}")
        if not _fits(tuple(shape), tuple(wanted[ours])):
            raise WeightsError(f"{key} is {tuple(shape)}, this codec wants {tuple(wanted[ours])}")
        places[key] = ours
    missing = sorted(set(wanted) - set(places.values()))
    if missing:
        raise WeightsError(f"weights lack {len(missing)} tensors of this codec, first {missing[0]}")
    return places


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    short, long = sorted((found, wanted), key=len)
    return long == short + (1,) * (len(long) - len(short))


def load_original(codec: nn.Module, state: Mapping[str, Tensor], renames: Renames, unused: Sequence[str]) -> None:
    """Loads the authors' tensors into the codec, all of them and nothing else. Raises WeightsError."""
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    places = map_keys({key: value.shape for key, value in state.items()}, wanted, renames, unused)
    codec.load_state_dict({ours: state[key].reshape(wanted[ours]) for key, ours in places.items()}, strict=True)


def load_strict(codec: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """codec.load_state_dict(strict) whose failure is one line. Raises WeightsError."""
    own = codec.state_dict()
    for key in own.keys() ^ state.keys():
        raise WeightsError(f"{where}: {'lacks' if key in own else 'has an unknown'} tensor {key}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise WeightsError(f"{where}: {key} is {tuple(value.shape)}, the codec wants {tuple(own[key].shape)}")
    codec.load_state_dict(dict(state), strict=True)


def state_hash(state: Mapping[str, Tensor]) -> str:
    """16 hex digits over names, types, shapes and values; the same for the same weights on any device."""
    digest = blake2b(digest_size=8)
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
