"""The card of an export: README.md as the Hugging Face Hub shows it, and card.json for scripts."""

import json
from pathlib import Path
from typing import Any

from codeczoo import zoo
from codeczoo.core.errors import CodeczooError
from codeczoo.export.statistics import Statistics

README, CARD = "README.md", "card.json"
FILES = {"parquet": "part-*.parquet", "webdataset": "tokens-*.tar"}  # that `load_dataset` reads
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")  # the Hub's words
UNITS = {"image": "pictures", "audio": "recordings", "video": "clips"}
FACTS = ("codec", "weights_hash", "pattern", "vocab_size", "special_ids", "rows", "dtype", "text", "vary", "vocabulary")


def write(folder: Path, header: dict[str, Any], found: Statistics) -> None:
    """Writes the card of an export into its folder."""
    facts = {key: header.get(key) for key in FACTS}
    facts |= {"media": header["spec"]["media"], "format": header["format"], **found.to_dict()}
    (folder / CARD).write_text(json.dumps(facts, indent=2) + "\n")
    (folder / README).write_text(readme(facts))


def called(codec: str) -> str:
    """The codec's name in a title, whether it is here or not."""
    try:
        return zoo.title(codec)
    except CodeczooError:
        return Path(codec).stem


def pattern_in_words(pattern: dict[str, Any]) -> str:
    """A pattern of a header, e.g. "Flat (vocab_offset 0, offsets own)"; of digits, "Delay (..) of factors 8, 8, 8"."""
    name = pattern["_target_"].rpartition(".")[2]
    if name == "Factored":
        return f"{pattern_in_words(pattern['pattern'])} of factors {', '.join(map(str, pattern['factors']))}"
    options = {key: value for key, value in pattern.items() if not key.startswith("_") and value is not None}
    return f"{name} ({', '.join(f'{key} {value}' for key, value in options.items())})"


def readme(facts: dict[str, Any]) -> str:
    """Front matter and tables."""
    media, name = UNITS[facts["media"]], called(facts["codec"])
    size = SIZES[min(len(SIZES) - 1, max(0, len(str(facts["documents"])) - 3))]
    front = [
        "---",
        f"pretty_name: {json.dumps(f'Tokens of {media}, {name}')}",
        "tags:",
        "- codeczoo",
        f"- {facts['media']}",
    ]
    front += ["size_categories:", f"- {size}"]
    if facts["format"] in FILES:
        front += ["configs:", "- config_name: default", "  data_files:", "  - split: train"]
        front += [f'    path: "{FILES[facts["format"]]}"']
    unit = "picture" if media == "pictures" else "second"
    length = facts["ids_per_document"]
    digits = " or digit" if "factors" in facts["pattern"] else ""
    rows = {
        "codec": f"{facts['codec']} (weights {facts['weights_hash']})",
        "pattern": pattern_in_words(facts["pattern"]),
        "ids": f"{facts['ids']:,} in {facts['documents']:,} documents, {facts['dtype']}, {facts['codes']:,} are codes",
        "ids of a document": f"{length['least']} to {length['most']}, {length['mean']:g} on average",
        "vocabulary": f"{facts['vocab_size']}: {', '.join(f'{k} {v}' for k, v in facts['special_ids'].items())}",
    }
    if facts["rows"] is not None:
        rows["rows"] = f"{facts['rows']}, a row for each codebook{digits}; stored step by step"
    if facts.get("text"):
        rows["text"] = f"ids of '{facts['text']['field']}' {facts['text']['place']} those of the media"
    if facts[f"{unit}s"]:
        bits = (
            f"{facts[f'bits_per_{unit}']:g} if all codes were as likely, {facts[f'entropy_per_{unit}']:g} by how often"
        )
        rows[f"bits per {unit}"] = f"{bits} each occurs ({facts[f'{unit}s']:g} {unit}s)"
    lines = [*front, "---", "", f"# Tokens of {media}, codec {name}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    lines += ["", f"| codebook{digits} | stream | codes | used | bits of a code |", "|---|---|---|---|---|"]
    for i, book in enumerate(facts["codebooks"]):
        if not book["codes"]:  # a prefix without it
            continue
        used = f"{book['used']} of {book['size']} ({book['used'] / book['size']:.1%})"
        lines.append(f"| {i} | {book['stream']} | {book['codes']:,} | {used} | {book['entropy']:.2f} |")
    lines += ["", "Back to media, exactly:", "", "```python", "import codeczoo, codeczoo.export", ""]
    lines += [
        'reader, codec = codeczoo.export.read("."), codeczoo.load("CODEC")',
        "x_hat = codec.decode(reader.tokens(0))",
    ]
    return "\n".join([*lines, "```", ""])
