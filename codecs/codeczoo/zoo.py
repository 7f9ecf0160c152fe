"""Codecs by name: load, save, from_original. Stands between floors 3 and 4."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import codeczoo
from codeczoo.core.base import Autoencoder, Codec
from codeczoo.core.config import build, resolve
from codeczoo.core.errors import ConfigError, InputError, WeightsError, nearest
from codeczoo.core.places import PACKAGE, is_recipe, shipped
from codeczoo.core.summary import model_card, without_paths
from codeczoo.core.types import Sampling
from codeczoo.io import hub
from codeczoo.io import weights as files


def find(name_or_path: str | Path) -> Path:
    """The weights file that a shipped name, a .safetensors file, a folder with one or a Hub id means.

    Raises InputError, MissingError.
    """
    path = Path(name_or_path)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        best = [p for p in found if p.name == "best.safetensors"] or found
        if len(best) != 1:
            raise InputError(f"{path}: wants one .safetensors file (or best.safetensors), found {len(found)}")
        return best[0]
    if path.is_file():
        return path
    if str(name_or_path) in shipped():
        return shipped()[str(name_or_path)]
    if is_recipe(str(name_or_path)):
        raise InputError(f"{name_or_path} is a recipe, which has no weights: train it, or name a run folder or a file")
    if hub.is_id(str(name_or_path)):
        if path.parent.is_dir():
            here = f"the folder {path.parent} is here, so it is not looked for on the Hugging Face Hub"
            raise InputError(f"{path}: no such file or folder; {here}")
        try:
            return hub.fetch(str(name_or_path))
        except InputError as error:
            raise InputError(f"no file or folder {path} is here, and on the Hugging Face Hub: {error}") from None
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"{path}: no such file or folder")
    hint = nearest(path.name, shipped())
    raise InputError(f"no codec '{name_or_path}' ships with codeczoo, and there is no such file; {hint}")


def title(name_or_path: str | Path) -> str:
    """What a table calls the codec that `load` would open: its recipe's name in a run folder, else its file's."""
    path = find(name_or_path)
    if hub.is_id(str(name_or_path)) and not Path(name_or_path).exists():
        return str(name_or_path).partition("/")[2].replace("/", "-")  # a branch may have some
    run = path.absolute().parent  # recipe/date/best.safetensors
    return run.parent.name if path.stem in ("best", "last") else path.stem


def load(name_or_path: str | Path) -> Codec:
    """A codec with its weights, in evaluation mode.

    Args:
        name_or_path: shipped name, local .safetensors file, folder that holds one, or owner/name on the Hugging Face
            Hub, or owner/name@revision; a local copy serves where no network is.

    Raises:
        InputError: nothing there, or a continuous autoencoder. WeightsError: not a codeczoo checkpoint, or from a
            newer version.
    """
    return _codec(load_autoencoder(name_or_path), str(name_or_path))


def load_autoencoder(name_or_path: str | Path) -> Autoencoder:
    """As `load`, also the continuous ones."""
    path = find(name_or_path)
    state, header = files.read_checkpoint(path)
    if "config" not in header:
        raise WeightsError(f"{path}: the header holds no codec configuration")
    codec = skeleton(header["config"])
    files.load_strict(codec, state, str(path))
    return codec


def _codec(found: Autoencoder, name: str) -> Codec:
    if not isinstance(found, Codec):
        what = f"{type(found).__name__} is a continuous autoencoder, a stage of codecs: it gives no tokens"
        raise InputError(f"{name}: {what}")
    return found


def skeleton(tree: Mapping[str, Any]) -> Autoencoder:
    """The codec of a configuration tree in evaluation mode, its weights still to come. Raises ConfigError.

    The tree may come out of a stranger's file, so nothing but network modules of codeczoo is called, and Sampling.
    """
    _only_modules(tree, "codec")
    codec = build(tree)
    if not isinstance(codec, Autoencoder):
        raise ConfigError(f"{tree.get('_target_')} is not a codec")
    return codec.eval()


def _only_modules(tree: Any, where: str) -> None:
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            found = resolve(tree["_target_"], where=where)
            if not (isinstance(found, type) and issubclass(found, nn.Module | Sampling)):
                raise ConfigError(f"{where}: {tree['_target_']} is no network module, which is all a codec is made of")
        for key, value in tree.items():
            _only_modules(value, f"{where}.{key}")
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            _only_modules(value, f"{where}[{i}]")


def save(
    path: str | Path, codec: Autoencoder, recipe: str = "", extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a checkpoint that `load` opens; the file appears whole or not at all.

    Args:
        path: ends in .safetensors.
        codec: built by `codeczoo.build` (or load, from_original), so that its configuration is known.
        recipe: text of the recipe that trained it.
        extra: further JSON values for the header (steps, metrics, licence ...).
        dtype: that matrices are stored in, e.g. torch.float16 for half the size; they are loaded as float32 again, so
            a few codes may differ from those of the codec at hand. None: as they are.
    """
    if codec.config is None:
        raise ConfigError("this codec was built by hand and cannot be described; use codeczoo.build(tree)")
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: a codec is saved as .safetensors")
    own = codec.state_dict()
    stored = {key: _narrow(value, dtype) for key, value in own.items()}
    header = {
        "version": codeczoo.__version__,
        "class": codec.config["_target_"],
        "config": codec.config,
        "spec": codec.spec.to_dict(),
        "recipe": recipe,
        "weights_hash": files.state_hash({key: stored[key].to(value.dtype) for key, value in own.items()}),
        "parameters": sum(p.numel() for p in codec.parameters()),
        **({"sampling": asdict(codec.sampling)} if codec.sampling else {}),
        "extra": dict(extra or {}),
    }
    files.write_checkpoint(Path(path), stored, header)


def _narrow(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Raises InputError for numbers that the type does not hold."""
    if dtype is None or not value.is_floating_point() or value.ndim < 2:
        return value
    narrow = value.to(dtype)
    if not narrow.isfinite().all():
        raise InputError(f"weights hold numbers that {dtype} does not: save them as torch.bfloat16 or as they are")
    return narrow


def push_to_hub(
    codec: Autoencoder, repository: str, recipe: str = "", extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None, private: bool = False,
) -> str:
    """Puts the codec and a model card on the Hugging Face Hub, where `load(repository)` finds it; returns the address.

    Absolute paths in the recipe become names: where files lay here is nobody's business there.

    Args:
        codec, recipe, extra, dtype: see `save`; extra's "licence" and "data" stand in the card.
        repository: owner/name; made where it does not exist.
        private: for whom it is visible, where it is made.

    Raises:
        InputError: no such name, or the Hub refuses. MissingError: no huggingface_hub.
    """
    if not hub.is_id(repository) or "@" in repository:
        raise InputError(f"'{repository}' is no repository: owner/name")
    with TemporaryDirectory() as folder:
        path = Path(folder) / hub.WEIGHTS
        save(path, codec, without_paths(recipe), extra, dtype)
        (Path(folder) / hub.CARD).write_text(model_card(repository, files.read_header(path)))
        return hub.upload(Path(folder), repository, private)


def weights_hash(codec: Autoencoder) -> str:
    """16 hex digits that tell these weights from any others."""
    return files.state_hash(codec.state_dict())


def systems() -> dict[str, str]:
    """Names of the systems whose published checkpoints load, and the modules that know how."""
    media = ("image", "audio", "video")
    places = [path for m in media for path in sorted((PACKAGE / m).glob("*.py"))]
    return {p.stem: f"codeczoo.{p.parent.name}.{p.stem}" for p in places if "def original_tree(" in p.read_text()}


def from_original(
    system: str, weights: str | Path, config: str | Path | Mapping[str, Any], text_tower: str | None = None
) -> Codec:
    """The authors' own checkpoint as one of our codecs, in evaluation mode.

    Args:
        system: name of the codec's module, e.g. "titok"; see `codeczoo list`.
        weights: the authors' weights file (.safetensors, a pickle that is read as weights only, a TorchScript archive),
            or a folder with encoder.jit and decoder.jit.
        config: the authors' configuration: a JSON or YAML file, a .safetensors file with it in its header, or its
            content.
        text_tower: folder of a CLIP text tower, for TA-TiTok.

    Raises:
        InputError: unknown system, missing file, a continuous autoencoder. ConfigError: a configuration it does not
            know. WeightsError: tensors left over or missing.
    """
    return _codec(original(system, weights, config, text_tower), system)


def original(
    system: str, weights: str | Path, config: str | Path | Mapping[str, Any], text_tower: str | None = None
) -> Autoencoder:
    """As `from_original`, also the continuous ones."""
    module = _system(system)
    config = read_config(config)
    codec = original_skeleton(module, config)
    state = original_state(module, files.read_tensors(Path(weights)), config)
    files.load_original(codec, state, module.RENAMES, module.UNUSED)
    if text_tower is not None:
        _attach_text_tower(codec, text_tower)
    return codec


def _system(system: str) -> ModuleType:
    known = systems()
    if system not in known:
        raise InputError(f"no system '{system}' whose checkpoints load; {nearest(system, known)}")
    return import_module(known[system])


def read_config(config: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """The authors' configuration, read where it is a file. Raises InputError, ConfigError."""
    if isinstance(config, Mapping):
        return config
    if Path(config).suffix == ".safetensors":
        return files.read_literals(Path(config))
    try:
        return dict(yaml.safe_load(Path(config).read_text()))  # JSON is YAML
    except FileNotFoundError:
        raise InputError(f"{config}: no such file") from None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{config}: neither JSON nor YAML ({' '.join(str(error).split())})") from None


def original_skeleton(module: ModuleType, config: Mapping[str, Any]) -> Autoencoder:
    """The codec that the authors' configuration describes, its weights still to come."""
    with _complaining_of(module):
        return skeleton(module.original_tree(config))


def original_state(module: ModuleType, state: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' tensors as `RENAMES` wants them: a module's own `original_state` may reshape or join some."""
    if not hasattr(module, "original_state"):
        return state
    with _complaining_of(module):
        return dict(module.original_state(state, config))


@contextmanager
def _complaining_of(module: ModuleType) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError) as error:
        raise ConfigError(f"this configuration lacks {error}, which {module.__name__} wants") from None


def _attach_text_tower(codec: Autoencoder, path: str) -> None:
    """Keeps the empty caption's features in the codec, so that it decodes later without the tower."""
    from codeczoo.backbones.text import CLIPText, EmptyText
    from codeczoo.image.tatitok import TATiTok

    if not isinstance(codec, TATiTok) or codec.config is None:
        raise InputError(f"{type(codec).__name__} reads no text; text_tower is for tatitok")
    length, dim = codec.text_positional_embedding.shape[0], codec.text_project.in_features
    tower = EmptyText(length, dim)
    tower.features.copy_(CLIPText(path, length)([""], torch.device("cpu"))[0])
    codec.text_tower = tower
    target = f"{EmptyText.__module__}.{EmptyText.__qualname__}"
    codec.config["text_tower"] = {"_target_": target, "length": length, "dim": dim}
