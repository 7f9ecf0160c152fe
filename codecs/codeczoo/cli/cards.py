"""Recipes and weights files by name, read without torch: for `list` and `info`."""

import json
from collections.abc import Iterable
from importlib.resources import files
from itertools import groupby
from math import log2
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


def summary(spec: dict[str, Any]) -> dict[str, Any]:
    """Tokens, vocabulary and bits of a TokenSpec in its plain form."""
    per_second, streams = spec["unit"] == "second", []
    for stream in spec["streams"]:
        grid = f"{stream['rate']:g} Hz" if per_second else "x".join(str(n or "?") for n in stream["shape"])
        streams.append(f"{grid} of {'+'.join(map(str, _repeats(stream['vocab_sizes'])))}")
    bits = sum(s["rate"] * sum(log2(v) for v in s["vocab_sizes"]) for s in spec["streams"])
    size = "any size" if spec["input_size"] is None else "x".join(map(str, spec["input_size"]))
    channels = {1: "mono", 2: "stereo"}.get(spec["channels"], f"{spec['channels']} channels")
    facts = {
        "media": f"{spec['media']}, " + (f"{spec['sample_rate']} Hz, {channels}" if per_second else size),
        "tokens": ", ".join(streams),
        "bits": f"{bits / 1000:.4g} kbit/s" if per_second else f"{bits:g} per {spec['unit']}",
        "prefixes": ", ".join(spec["prefixes"]) or "none",
    }
    if spec.get("window"):
        length, step = (n / spec["sample_rate"] for n in spec["window"])
        facts["windows"] = f"of {length:g} s every {step:g} s, coded by themselves: no continuous stream"
    return facts


def _repeats(sizes: Iterable[int]) -> list[str]:
    """[1024, 1024, 512] as ["2*1024", "512"]."""
    groups = [(size, len(list(group))) for size, group in groupby(sizes)]
    return [f"{n}*{size}" if n > 1 else str(size) for size, n in groups]
