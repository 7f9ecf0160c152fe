"""Format "litdata": chunks that LitData's StreamingDataset and TokensLoader stream, as LitGPT trains from.

chunk-0-0.bin    uint32: documents n, n + 1 offsets of their bytes from the file's start; then all ids; little endian
index.json       of every chunk its bytes, documents and ids; how the ids are stored
documents.jsonl  see export.documents

Source: the layout of litdata 0.2.30 .. 0.2.76, which reads this in tests. Its TokensLoader takes a chunk as one row
of ids and drops what is left over at its end, so chunks are large.
Differs: `chunk_bytes` are those of the ids alone; newer versions of litdata write the size of the file: 0.2.30 then
waits for ever.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError, InputError
from codeczoo.export import dataset
from codeczoo.export.dataset import Document
from codeczoo.export.documents import DocumentsReader, DocumentsWriter
from codeczoo.export.patterns import Ids

INDEX = "index.json"
BYTES = 64_000_000  # of ids; a chunk ends with the document that reaches them
MOST = 2**32 - 1  # what a chunk's offsets can count to
NUMBERS = {"uint16": 5, "uint32": 6, "int32": 2}  # of NumPy's types in litdata's own list


class Writer(dataset.Writer):
    """Keeps one chunk in memory."""

    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype)
        self._documents = DocumentsWriter(folder)
        self._ids: list[NDArray[Any]] = []
        self._chunks: list[dict[str, Any]] = []
        self._waiting = 0

    def _add(self, document: Document, ids: Ids) -> None:
        self._documents.add(document)
        self._ids.append(ids.reshape(-1).astype(np.dtype(self.dtype).newbyteorder("<")))
        self._waiting += self._ids[-1].nbytes
        if self._waiting >= BYTES:
            self._flush()

    def _flush(self) -> None:
        n = len(self._ids)
        head = 4 + 4 * (n + 1)
        if head + self._waiting > MOST:
            raise InputError(f"a document of {self._waiting} bytes of ids is too long for format litdata")
        ends = np.cumsum([0, *(ids.nbytes for ids in self._ids)])
        name = f"chunk-0-{len(self._chunks)}.bin"
        with (self.folder / name).open("wb") as file:
            file.write(np.array([n, *(head + ends)], dtype="<u4").tobytes())
            for ids in self._ids:
                file.write(ids.tobytes())
        dim = sum(map(len, self._ids))
        self._chunks.append({"chunk_bytes": int(ends[-1]), "chunk_size": n, "dim": dim, "filename": name})
        self._ids, self._waiting = [], 0

    def _close(self, header: str) -> None:
        if self._ids:
            self._flush()
        self._documents.close()
        config = {
            "chunk_bytes": BYTES,
            "chunk_size": None,
            "compression": None,
            "data_format": [f"no_header_numpy:{NUMBERS[self.dtype]}"],
            "data_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
            "encryption": None,
            "item_loader": "TokensLoader",
        }
        (self.folder / INDEX).write_text(json.dumps({"chunks": self._chunks, "config": config}))


class Reader(dataset.Reader):
    """Memory-maps the chunk that was asked for last."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        super().__init__(folder, header)
        self._dtype = np.dtype(header["dtype"]).newbyteorder("<")
        try:
            self._chunks = json.loads((folder / INDEX).read_text())["chunks"]
            self._starts = np.cumsum([0, *(int(chunk["chunk_size"]) for chunk in self._chunks)])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{folder / INDEX}: {error}") from None
        if self._starts[-1] != len(self):
            raise FormatError(f"{folder}: {self._starts[-1]} documents in its chunks, {len(self)} in its header")
        for chunk in self._chunks:
            self._check(folder / chunk["filename"], 4 * (chunk["chunk_size"] + 2) + chunk["chunk_bytes"])
        self._mapped: tuple[int, NDArray[np.uint8]] | None = None
        self._documents = DocumentsReader(folder, self.spec.media)

    @staticmethod
    def _check(path: Path, size: int) -> None:
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise FormatError(f"{path}: {found} bytes, {size} are wanted")

    def _ids(self, i: int) -> NDArray[Any]:
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        mapped = self._mapped  # once: other threads read too
        if mapped is None or mapped[0] != number:
            path = self.folder / self._chunks[number]["filename"]
            self._mapped = mapped = (number, np.memmap(path, np.uint8, mode="r"))
        data, i = mapped[1], i - int(self._starts[number])
        start, end = data[4 + 4 * i : 12 + 4 * i].view("<u4")
        return data[start:end].view(self._dtype)

    def document(self, i: int) -> Document:
        return self._documents[self._number(i)]
