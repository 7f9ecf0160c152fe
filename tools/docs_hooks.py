"""For mkdocs.yml: model cards are found, not listed; docstrings are text, not Markdown."""

import re
from pathlib import Path
from typing import Any

import griffe

MARKUP = re.compile(r"`[^`]*`|[*\[]")  # code in backticks stays code
NEXT_ERROR = re.compile(r"(?<=\.) (?=[A-Z]\w*Error: )")  # "Raises:" sections often name several in a line


def on_config(config: Any) -> Any:
    """Puts every docs/models/*.md behind the index of the section Models. MkDocs calls it."""
    folder = Path(config["docs_dir"]) / "models"
    cards = sorted(f"models/{path.name}" for path in folder.glob("*.md") if path.name != "index.md")
    section = next(item["Models"] for item in config["nav"] if "Models" in item)
    section += [card for card in cards if card not in section]
    return config


def escaped(text: str) -> str:
    """A docstring whose shapes, (B, K, *S), and indices, codes[:, k], Markdown leaves alone; an error a line."""
    text = NEXT_ERROR.sub("\n    ", text)
    return MARKUP.sub(lambda found: found[0] if found[0][0] == "`" else f"\\{found[0]}", text)


class Docstrings(griffe.Extension):
    """Escapes what Markdown would take for emphasis and links."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Griffe calls it once for each object."""
        if obj.docstring:
            obj.docstring.value = escaped(obj.docstring.value)
