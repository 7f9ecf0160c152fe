"""Format "parquet": part-00000.parquet with a row per document; `datasets.load_dataset("parquet", ...)` reads it.

Columns: id, tokens (a list; step by step where the pattern has rows), length (of that list), size, grid, fit (JSON),
sha256, gains, about (JSON). The header stands in header.json and, as JSON, in the file's metadata under "codeczoo". Ids
are dictionary coded and compressed with zstd: about as many bits as the vocabulary needs.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError, MissingError
from codeczoo.export import dataset
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import Ids

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise MissingError('parquet needs pyarrow: pip install "codeczoo[export]"') from None

COLUMNS = ("id", "size", "grid", "fit", "sha256", "gains", "about")  # all but the ids and their number
ROWS, IDS = 1000, 2**20  # a row group is full at so many documents or ids


def schema_of(dtype: str) -> pa.Schema:
    """Columns of a part."""
    numbers = pa.list_(pa.int64())
    return pa.schema(
        {
            "id": pa.string(),
            "tokens": pa.list_(pa.type_for_alias(dtype)),
            "length": pa.int32(),
            "size": numbers,
            "grid": numbers,
            "fit": pa.string(),
            "sha256": pa.string(),
            "gains": pa.list_(pa.float32()),
            "about": pa.string(),
        }
    )


class Writer(dataset.Writer):
    """Keeps one row group in memory.

    Args:
        folder, dtype: see dataset.Writer.
        name: of the file.
    """

    def __init__(self, folder: Path, dtype: str, name: str = "part-00000.parquet") -> None:
        super().__init__(folder, dtype)
        self._schema = schema_of(dtype)
        self._documents: list[Document] = []
        self._ids: list[Ids] = []
        self._waiting = 0
        self._file = pq.ParquetWriter(
            folder / name,
            self._schema,
            compression="zstd",
            use_dictionary=["tokens.list.element", "size.list.element", "grid.list.element", "fit"],
        )

    def _add(self, document: Document, ids: Ids) -> None:
        self._documents.append(document)
        self._ids.append(ids)
        self._waiting += len(ids)
        if len(self._ids) >= ROWS or self._waiting >= IDS:
            self._flush()

    def _flush(self) -> None:
        if not self._ids:
            return
        lengths = np.array([len(ids) for ids in self._ids], dtype=np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        flat = np.concatenate(self._ids).astype(self.dtype)
        rows = [document.to_dict() for document in self._documents]
        rows = [row | {key: row.get(key) and json.dumps(row[key]) for key in ("fit", "about")} for row in rows]
        columns: dict[str, Any] = {key: [row.get(key) for row in rows] for key in COLUMNS}
        columns |= {"tokens": pa.ListArray.from_arrays(offsets, pa.array(flat)), "length": lengths}
        self._file.write_table(pa.table({name: columns[name] for name in self._schema.names}, schema=self._schema))
        self._documents, self._ids, self._waiting = [], [], 0

    def _close(self, header: str) -> None:
        self.finish({"codeczoo": header})

    def finish(self, metadata: dict[str, str]) -> None:
        """Ends the file, without a header.json, and puts this into it."""
        self._flush()
        self._file.add_key_value_metadata(metadata)
        self._file.close()


class Reader(dataset.Reader):
    """Reads a row group at a time and keeps the last one."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        super().__init__(folder, header)
        try:
            self._files = [pq.ParquetFile(path) for path in sorted(folder.glob("part-*.parquet"))]
        except pa.ArrowException as error:
            raise FormatError(f"{folder}: {error}") from None
        self._groups = [(file, g) for file in self._files for g in range(file.num_row_groups)]
        self._starts = np.cumsum([0, *(file.metadata.row_group(g).num_rows for file, g in self._groups)])
        if self._starts[-1] != len(self):
            raise FormatError(f"{folder}: {self._starts[-1]} documents in its parts, {len(self)} in its header")
        self._loaded: tuple[int, pa.Table] | None = None

    def _ids(self, i: int) -> NDArray[Any]:
        table, row = self._row(i)
        return table["tokens"][row].values.to_numpy()

    def document(self, i: int) -> Document:
        table, row = self._row(i)
        values = {key: table[key][row].as_py() for key in COLUMNS if key in table.column_names}
        plain = {key: json.loads(values[key]) for key in ("fit", "about") if values.get(key)}
        return Document.from_dict(values | plain, self.spec.media)

    def _row(self, i: int) -> tuple[pa.Table, int]:
        i = self._number(i)
        group = int(np.searchsorted(self._starts, i, side="right")) - 1
        if self._loaded is None or self._loaded[0] != group:
            file, g = self._groups[group]
            self._loaded = (group, file.read_row_group(g))
        return self._loaded[1], i - int(self._starts[group])
