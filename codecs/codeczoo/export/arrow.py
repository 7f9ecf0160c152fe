"""Documents as rows of an Arrow table, for the formats "parquet" and "hf".

Columns: id, tokens (a list; step by step where the pattern has rows), length (of that list), size, grid, fit (JSON),
sha256, gains, about (JSON).
"""

import json
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError
from codeczoo.export import dataset
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import Ids

COLUMNS = ("id", "size", "grid", "fit", "sha256", "gains", "about")  # all but the ids and their number
JSON = ("fit", "about")  # columns whose values are JSON
ROWS, IDS = 1000, 2**20  # a table is full at so many documents or ids


def schema_of(dtype: str) -> pa.Schema:
    """The columns and their types."""
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
    """Keeps one table in memory."""

    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype)
        self.schema = schema_of(dtype)
        self._documents: list[Document] = []
        self._ids: list[Ids] = []
        self._waiting = 0

    @abstractmethod
    def _write(self, table: pa.Table) -> None:
        """Appends the next rows."""

    def _add(self, document: Document, ids: Ids) -> None:
        self._documents.append(document)
        self._ids.append(ids.reshape(-1))  # (L, K) -> (L * K,)
        self._waiting += ids.size
        if len(self._ids) >= ROWS or self._waiting >= IDS:
            self._flush()

    def _flush(self) -> None:
        if not self._ids:
            return
        lengths = np.array([len(ids) for ids in self._ids], dtype=np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        flat = np.concatenate(self._ids).astype(self.dtype)
        rows = [document.to_dict() for document in self._documents]
        rows = [row | {key: row.get(key) and json.dumps(row[key]) for key in JSON} for row in rows]
        columns: dict[str, Any] = {key: [row.get(key) for row in rows] for key in COLUMNS}
        columns |= {"tokens": pa.ListArray.from_arrays(offsets, pa.array(flat)), "length": lengths}
        self._write(pa.table({name: columns[name] for name in self.schema.names}, schema=self.schema))
        self._documents, self._ids, self._waiting = [], [], 0


class Reader(dataset.Reader):
    """Reads a table at a time and keeps the last one.

    Args:
        folder, header: see dataset.Reader.
        lengths: rows of each table.
    """

    def __init__(self, folder: Path, header: dict[str, Any], lengths: list[int]) -> None:
        super().__init__(folder, header)
        self._starts = np.cumsum([0, *lengths])
        if self._starts[-1] != len(self):
            raise FormatError(f"{folder}: {self._starts[-1]} documents in its files, {len(self)} in its header")
        self._loaded: tuple[int, pa.Table] | None = None

    @abstractmethod
    def _table(self, number: int) -> pa.Table:
        """One of the tables."""

    def _ids(self, i: int) -> NDArray[Any]:
        table, row = self._row(i)
        return table["tokens"][row].values.to_numpy()

    def document(self, i: int) -> Document:
        table, row = self._row(self._number(i))
        return self._document({key: table[key][row].as_py() for key in COLUMNS if key in table.column_names})

    def _document(self, values: dict[str, Any]) -> Document:
        plain = {key: json.loads(values[key]) for key in JSON if values.get(key)}
        return Document.from_dict(values | plain, self.spec.media)

    def __iter__(self) -> Iterator[tuple[Document, NDArray[Any]]]:
        """See dataset.Reader; much faster than one after the other."""
        for number in range(len(self._starts) - 1):
            table = self._load(number).combine_chunks()
            rows = table.select([key for key in COLUMNS if key in table.column_names]).to_pylist()
            tokens = table["tokens"].chunk(0)
            offsets, flat = tokens.offsets.to_numpy(), tokens.values.to_numpy()
            for i, row in enumerate(rows):
                yield self._document(row), self._in_rows(i, flat[offsets[i] : offsets[i + 1]])

    def _row(self, i: int) -> tuple[pa.Table, int]:
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        loaded = self._loaded  # once: other threads read too
        if loaded is None or loaded[0] != number:
            self._loaded = loaded = (number, self._load(number))
        return loaded[1], i - int(self._starts[number])

    def _load(self, number: int) -> pa.Table:
        try:
            return self._table(number)
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"{self.folder}: {error}") from None
