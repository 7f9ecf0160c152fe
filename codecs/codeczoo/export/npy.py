"""Format "npy": one flat file of ids, as nanoGPT and its kin memory-map it, and an index beside it.

tokens.bin       all ids one after the other, little endian, no header: np.memmap(path, dtype), and .reshape(-1, rows)
                 for patterns with a row for each codebook
offsets.npy      int64 (documents + 1,): document i is tokens[offsets[i]:offsets[i + 1]]
documents.jsonl  see export.documents
"""

from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError
from codeczoo.export import dataset
from codeczoo.export.dataset import Document
from codeczoo.export.documents import DocumentsReader, DocumentsWriter
from codeczoo.export.patterns import Ids

TOKENS, OFFSETS = "tokens.bin", "offsets.npy"


class Writer(dataset.Writer):
    """Appends to tokens.bin and documents.jsonl; keeps 8 bytes a document in memory."""

    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype)
        self._bin = (folder / TOKENS).open("wb")
        self._documents = DocumentsWriter(folder)
        self._offsets = array("q", [0])

    def _add(self, document: Document, ids: Ids) -> None:
        self._bin.write(ids.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes())
        self._documents.add(document)
        self._offsets.append(self.tokens)

    def _close(self, header: str) -> None:
        self._bin.close()
        self._documents.close()
        np.save(self.folder / OFFSETS, np.array(self._offsets))


class Reader(dataset.Reader):
    """Memory-maps the ids."""

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
        self._documents = DocumentsReader(folder, self.spec.media)

    def _ids(self, i: int) -> NDArray[Any]:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def document(self, i: int) -> Document:
        return self._documents[self._number(i)]
