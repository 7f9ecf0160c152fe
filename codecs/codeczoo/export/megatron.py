"""Format "megatron": an indexed data set, tokens.bin and tokens.idx, as Megatron-LM and its kin train from.

tokens.bin       all ids one after the other, little endian, no header
tokens.idx       9 bytes MMIDIDX; uint64 version 1; uint8 type; uint64 sequences; uint64 documents + 1; int32 length and
                 int64 first byte of every sequence; int64 first sequence of every document; little endian
documents.jsonl  see export.documents

A document is one sequence. Source: megatron-core 0.16.1, whose IndexedDataset reads this in tests.
"""

from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError, InputError
from codeczoo.export import dataset
from codeczoo.export.dataset import Document
from codeczoo.export.documents import DocumentsReader, DocumentsWriter
from codeczoo.export.patterns import Ids

TOKENS, INDEX = "tokens.bin", "tokens.idx"
MAGIC = b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little")
NUMBERS = {"uint16": 8, "int32": 4}  # of NumPy's types in Megatron's own list; it has no uint32
UINT16 = 65500  # the size of the smallest vocabulary that Megatron itself does not store as uint16
MOST = 2**31 - 1  # ids of a document


class Writer(dataset.Writer):
    """Appends to tokens.bin and documents.jsonl; keeps 4 bytes a document in memory."""

    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype)
        self._bin = (folder / TOKENS).open("wb")
        self._documents = DocumentsWriter(folder)
        self._lengths = array("i")

    @staticmethod
    def dtype_for(vocab_size: int, wanted: str = "auto") -> str:
        """See dataset.Writer."""
        if wanted == "uint32":
            raise InputError("format megatron has no uint32; --dtype auto, uint16 or int32")
        if wanted == "auto":
            wanted = "uint16" if vocab_size < UINT16 else "int32"
        return dataset.dtype_for(vocab_size, wanted)

    def _add(self, document: Document, ids: Ids) -> None:
        if ids.size > MOST:
            raise InputError(f"a document of {ids.size} ids is too long for format megatron")
        self._bin.write(ids.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes())
        self._documents.add(document)
        self._lengths.append(ids.size)

    def _close(self, header: str) -> None:
        self._bin.close()
        self._documents.close()
        lengths = np.array(self._lengths, dtype="<i4")
        with (self.folder / INDEX).open("wb") as file:
            file.write(MAGIC + bytes([NUMBERS[self.dtype]]))
            file.write(np.array([len(lengths), len(lengths) + 1], dtype="<u8").tobytes())
            file.write(lengths.tobytes())
            ends = np.cumsum(lengths, dtype=np.int64) * np.dtype(self.dtype).itemsize
            file.write(np.concatenate([[0], ends[:-1]]).astype("<i8").tobytes())
            file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())


class Reader(dataset.Reader):
    """Memory-maps both files."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        super().__init__(folder, header)
        dtype = np.dtype(header["dtype"]).newbyteorder("<")
        try:
            index = np.memmap(folder / INDEX, np.uint8, mode="r")
            self.flat: NDArray[Any] = np.memmap(folder / TOKENS, dtype, mode="r")
        except (OSError, ValueError) as error:
            raise FormatError(f"{folder}: {error}") from None
        n, head = len(self), len(MAGIC) + 1 + 16
        if bytes(index[: len(MAGIC)]) != MAGIC or len(index) != head + 12 * n + 8 * (n + 1):
            raise FormatError(f"{folder / INDEX}: no index of {n} documents")
        self.lengths = index[head : head + 4 * n].view("<i4")
        self.starts = index[head + 4 * n : head + 12 * n].view("<i8") // dtype.itemsize
        if self.starts[-1] + self.lengths[-1] != len(self.flat):
            raise FormatError(f"{folder}: {TOKENS} and {INDEX} do not fit together")
        self._documents = DocumentsReader(folder, self.spec.media)

    def _ids(self, i: int) -> NDArray[Any]:
        return self.flat[self.starts[i] : self.starts[i] + self.lengths[i]]

    def document(self, i: int) -> Document:
        return self._documents[self._number(i)]
