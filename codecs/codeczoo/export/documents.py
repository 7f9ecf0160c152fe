"""documents.jsonl: what is known of each document besides its ids, a line for each, where a format holds ids alone."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError
from codeczoo.export.dataset import Document

NAME = "documents.jsonl"


class DocumentsWriter:
    """Writes the lines, in order.

    Args:
        folder: of the export.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / NAME).open("w", encoding="utf-8")

    def add(self, document: Document) -> None:
        """The next line."""
        self._file.write(json.dumps(document.to_dict()) + "\n")

    def close(self) -> None:
        """Finishes the file."""
        self._file.close()


class DocumentsReader:
    """Reads any line; finds all of them when the first is asked for.

    Args:
        folder: of the export.
        media: of its codec.
    """

    def __init__(self, folder: Path, media: str) -> None:
        self.path, self.media = folder / NAME, media

    def __getitem__(self, i: int) -> Document:
        """Document i. Raises FormatError."""
        if not 0 <= i < len(self._lines) - 1:
            raise FormatError(f"{self.path}: no line {i + 1}, it has {len(self._lines) - 1}")
        try:
            values = json.loads(bytes(self._text[self._lines[i] : self._lines[i + 1]]))
        except ValueError:
            raise FormatError(f"{self.path}: line {i + 1} is not JSON") from None
        return Document.from_dict(values, self.media)

    @cached_property
    def _text(self) -> NDArray[np.uint8]:
        try:
            return np.memmap(self.path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise FormatError(f"{self.path}: {error}") from None

    @cached_property
    def _lines(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.flatnonzero(self._text == ord("\n")) + 1])
