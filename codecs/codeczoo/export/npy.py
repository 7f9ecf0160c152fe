"""Format "npy": one flat file of ids, as nanoGPT and its kin memory-map it, and an index beside it.

tokens.bin       all ids one after the other, little endian, no header: np.memmap(path, dtype), and .reshape(-1, rows)
                 for patterns with a row for each codebook
offsets.npy      int64 (documents + 1,): document i is tokens[offsets[i]:offsets[i + 1]]
documents.jsonl  one line per document: id, size, grid, fit, sha256, gains where there are any
"""

import json
from array import array
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError
from codeczoo.export import dataset
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import Ids

TOKENS, OFFSETS, DOCUMENTS = "tokens.bin", "offsets.npy", "documents.jsonl"


class Writer(dataset.Writer):
    """Appends to tokens.bin and documents.jsonl; keeps 8 bytes a document in memory."""

    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype)
        self._bin = (folder / TOKENS).open("wb")
        self._lines = (folder / DOCUMENTS).open("w")
        self._offsets = array("q", [0])

    def _add(self, document: Document, ids: Ids) -> None:
        self._bin.write(ids.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes())
        self._lines.write(json.dumps(document.to_dict()) + "\n")
        self._offsets.append(self.tokens)

    def _close(self, header: str) -> None:
        self._bin.close()
        self._lines.close()
        np.save(self.folder / OFFSETS, np.array(self._offsets))


class Reader(dataset.Reader):
    """Memory-maps the ids; finds the lines of documents.jsonl when the first is asked for."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        super().__init__(folder, header)
        dtype = np.dtype(header["dtype"]).newbyteorder("<")
        try:
            self.offsets: NDArray[np.int64] = np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False)
            self.flat: NDArray[Any] = np.memmap(folder / TOKENS, dtype, mode="r")
        except (OSError, ValueError) as error:
            raise FormatError(f"{folder}: {error}") from None
        if len(self.offsets) != len(self) + 1 or self.offsets[-1] != len(self.flat):
            raise FormatError(f"{folder}: {TOKENS} and {OFFSETS} do not fit together")

    def _ids(self, i: int) -> NDArray[Any]:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def document(self, i: int) -> Document:
        i = self._number(i)
        start, end = self._lines[i], self._lines[i + 1]
        return Document.from_dict(json.loads(bytes(self._text[start:end])), self.spec.media)

    @cached_property
    def _text(self) -> NDArray[np.uint8]:
        return np.memmap(self.folder / DOCUMENTS, np.uint8, mode="r")

    @cached_property
    def _lines(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.flatnonzero(self._text == ord("\n")) + 1])
