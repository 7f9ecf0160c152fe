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
    per_second = spec["unit"] == "second"
    bits = [s["rate"] * sum(log2(v) for v in s["vocab_sizes"]) for s in spec["streams"]]
    size = "any size" if spec["input_size"] is None else "x".join(map(str, spec["input_size"]))
    channels = {1: "mono", 2: "stereo"}.get(spec["channels"], f"{spec['channels']} channels")
    facts = {
        "media": f"{spec['media']}, " + (f"{spec['sample_rate']} Hz, {channels}" if per_second else size),
        "tokens": ", ".join(_stream(stream, per_second) for stream in spec["streams"]),
        "bits": f"{sum(bits) / 1000:.4g} kbit/s" if per_second else f"{_short(sum(bits))} per {spec['unit']}",
        "prefixes": ", ".join(spec["prefixes"]) or "none",
    }
    if len(bits) > 1 and not per_second:
        names = [stream["name"] for stream in spec["streams"]]
        pairs = (f"{name}: {_short(n)}" for name, n in zip(names, bits, strict=True))
        facts["bits_of_streams"] = f"{', '.join(pairs)} per {spec['unit']}"
    if spec.get("window"):
        length, step = (n / spec["sample_rate"] for n in spec["window"])
        facts["windows"] = f"of {length:g} s every {step:g} s, coded by themselves: no continuous stream"
    return facts


def _stream(stream: dict[str, Any], per_second: bool) -> str:
    """E.g. "75 Hz of 8*1024", "32 of 4096", "16x16 of 8192", of video "one of 64000 per 4x8x8"."""
    books = "+".join(_repeats(stream["vocab_sizes"]))
    if stream.get("stride"):
        return f"one of {books} per {'x'.join(map(str, stream['stride']))}"
    if per_second:
        return f"{stream['rate']:g} Hz of {books}"
    return f"{'x'.join(str(n or '?') for n in stream['shape'])} of {books}"


def _short(number: float) -> str:
    """Whole numbers as they are, others with four digits."""
    return f"{number:g}" if number == round(number) else f"{number:.4g}"


def _repeats(sizes: Iterable[int]) -> list[str]:
    """[1024, 1024, 512] as ["2*1024", "512"]."""
    groups = [(size, len(list(group))) for size, group in groupby(sizes)]
    return [f"{n}*{size}" if n > 1 else str(size) for size, n in groups]
