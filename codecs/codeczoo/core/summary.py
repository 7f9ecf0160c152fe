"""What a codec's tokens are, in words: for `list`, `info` and model cards. Imports nothing heavy."""

from collections.abc import Iterable
from itertools import groupby
from math import log2
from pathlib import PurePath
from typing import Any


def summary(spec: dict[str, Any]) -> dict[str, Any]:
    """Tokens, vocabulary and bits of a TokenSpec in its plain form."""
    per_second = spec["unit"] == "second"
    bits = [s["rate"] * sum(log2(v) for v in s["vocab_sizes"]) for s in spec["streams"]]
    size = "any size" if spec["input_size"] is None else "x".join(map(str, spec["input_size"]))
    channels = {1: "mono", 2: "stereo"}.get(spec["channels"], f"{spec['channels']} channels")
    facts = {
        "media": f"{spec['media']}, " + (f"{spec['sample_rate']} Hz, {channels}" if per_second else size),
        "tokens": ", ".join(_stream(stream, per_second) for stream in spec["streams"]) or "none: continuous latents",
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


def model_card(name: str, header: dict[str, Any]) -> str:
    """README of a model repository on the Hugging Face Hub.

    Args:
        name: owner/name.
        header: of the weights file.
    """
    extra, spec = header["extra"], header["spec"]
    about = {"class": header["class"], "parameters": f"{header['parameters']:,}", **summary(spec)}
    about |= {key: value for key, value in extra.items() if isinstance(value, str | int | float)}
    lines = [
        "---", "library_name: codeczoo", f"license: {extra.get('licence', 'other')}",
        f"tags: [codeczoo, tokenizer, {spec['media']}]", "---", "", f"# {name.rpartition('/')[2]}", "",
        f"A discrete {spec['media']} tokenizer of codeczoo.", "",
        "```python", "import codeczoo", "", f'codec = codeczoo.load("{name}")', "tokens = codec.encode(x)",
        "x_hat = codec.decode(tokens)", "```", "", "```sh", f"codeczoo encode FILES -o tokens --codec {name}",
        "codeczoo decode tokens -o decoded", "```", "", "| | |", "|---|---|",
        *(f"| {key.replace('_', ' ')} | {value} |" for key, value in about.items()), "",
    ]  # fmt: skip
    if header["recipe"]:
        lines += ["## Recipe", "", "```yaml", header["recipe"].rstrip(), "```", ""]
    return "\n".join(lines)


def without_paths(recipe: str) -> str:
    """The text of a recipe with names alone in place of absolute paths: where files lay says nothing to others."""
    import yaml

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list):
            return [plain(one) for one in value]
        return PurePath(value).name if isinstance(value, str) and value.startswith("/") else value

    return yaml.safe_dump(plain(yaml.safe_load(recipe)), sort_keys=False) if recipe else recipe
