"""Recipes and weights files by name, read without torch: for `list` and `info`."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from codeczoo.core.errors import ConfigError, WeightsError


def recipes() -> dict[str, Path]:
    """All recipes by name, e.g. "image/titok_s128_stage2"."""
    root = Path(str(files("codeczoo.recipes")))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def card(path: Path) -> dict[str, Any]:
    """The `card:` mapping of a recipe, empty when it has none. Raises ConfigError."""
    import yaml

    try:
        recipe = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    found = recipe.get("card") if isinstance(recipe, dict) else None
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"{path}: card must be a mapping, got {found!r}")
    return found or {}


def weights_header(path: Path) -> dict[str, Any]:
    """The header of a codeczoo weights file. Raises WeightsError.

    `io.weights.read_header` reads the same; this one reads the few bytes itself because that one imports torch.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError
            return dict(json.loads(json.loads(file.read(length))["__metadata__"]["codeczoo"]))
    except (ValueError, KeyError, TypeError):
        raise WeightsError(f"{path}: no codeczoo weights file") from None
