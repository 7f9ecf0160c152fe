"""What language models say of codes: reports of `recipes/lm/train.py` beside the codecs of `codeczoo report`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codeczoo.core.errors import InputError

KINDS = {"uniform": "all codes alike", "unigram": "how often each occurs", "bigram": "the id before", "model": "model"}


def models(paths: Sequence[str], codecs: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The reports of each codec, by its name.

    Args:
        paths: of reports, or NAME=PATH where the codec is known by its name.
        codecs: weights hash of each codec, by name.

    Raises:
        InputError: no such report, or it is of none of the codecs.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for given in paths:
        before, _, after = given.partition("=")
        name, path = (before, after) if before in codecs and after else (None, given)
        facts = _read(Path(path))
        if name is None:
            name = next((name for name, own in codecs.items() if own == facts.get("weights_hash")), None)
        if name is None:
            whose = facts.get("codec") or "a codec that it does not name"
            raise InputError(
                f"--lm {given}: it is of {whose}, with other weights than {', '.join(codecs)}; NAME=PATH says which"
            )
        found.setdefault(name, []).append(facts)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--lm {path}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(facts, dict) or not _numbers(facts.get("bits_of_an_id")) or unit_of(facts) is None:
        raise InputError(f"--lm {path}: no report of recipes/lm/train.py")
    return facts


def _numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, int | float) for value in values.values())


def unit_of(facts: Mapping[str, Any]) -> str | None:
    """What bits are told of: "picture" or "second"."""
    return next((unit for unit in ("picture", "second") if _numbers(facts.get(f"bits_per_{unit}"))), None)


def lines(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One report as lines of a table."""
    unit = unit_of(facts)
    bits, per_id = facts[f"bits_per_{unit}"], facts["bits_of_an_id"]
    size = facts.get("parameters")
    model = f"model, {size / 1e6:.2f} M parameters" if size else KINDS["model"]
    return [
        {
            "known": model if name == "model" else KINDS[name],
            f"bits of a {unit}": f"{bits[name]:,.0f}",
            "bits of an id": f"{per_id[name]:.3f}",
            "of all alike": f"{bits[name] / bits['uniform']:.1%}" if bits.get("uniform") else "",
        }
        for name in KINDS
        if name in bits and name in per_id
    ]
