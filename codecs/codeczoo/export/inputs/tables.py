"""Rows of data sets on disk: parquet files, and the .arrow files that Hugging Face's `save_to_disk` writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from codeczoo.core.errors import InputError, MissingError
from codeczoo.export.inputs.entry import Input, plain
from codeczoo.export.inputs.manifests import NAMES, files_of
from codeczoo.io.files import Found

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise MissingError('parquet and arrow files want pyarrow: pip install "codeczoo[export]"') from None

SUFFIXES = (".parquet", ".arrow")
KEPT = 2  # groups that are held, as threads read a little ahead
AT_ONCE = 1000  # rows that become Python's


@dataclass(frozen=True)
class Row(Input):
    """A row with the content of a file.

    Args:
        id, path, bytes, about: see Input.
        row: number in the file.
        column: binary, or with fields "bytes" and "path" as Hugging Face's Image and Audio have.
    """

    row: int = 0
    column: str = ""

    @property
    def where(self) -> str:
        """See Input."""
        return f"{self.path}/{self.row}"

    @property
    def key(self) -> str:
        """See Input."""
        return f"{super().key}\0{self.row}"

    def found(self) -> Found:
        """See Input."""
        return Found(Path(self.where), Path(self.id), self._content)

    def said(self) -> dict[str, Any] | None:
        """See Input: the plain values of the row's other columns."""
        table = opened(self.path)
        others = [name for name in table.schema.names if name != self.column]
        return plain((self.about or {}) | table.row(self.row, others))

    def _content(self) -> bytes:
        value = opened(self.path).row(self.row, [self.column])[self.column]
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if data is None and path:
            return (Path(self.path).parent / path).read_bytes()
        if data is None:
            raise InputError(f"column {self.column} is empty")
        return bytes(data)


class Table:
    """A file of rows, which are read in groups.

    Args:
        path: ends in one of SUFFIXES.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path, self._lock = path, Lock()
        self._held: dict[int, pa.Table] = {}
        try:
            if path.lower().endswith(".parquet"):
                file = pq.ParquetFile(path)
                counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
                self.schema, self._read = file.schema_arrow, file.read_row_group
            else:
                batches = _batches(path)
                counts = [len(batch) for batch in batches]
                self.schema, self._read = batches[0].schema, lambda g: pa.Table.from_batches([batches[g]])
        except (OSError, IndexError, pa.ArrowException) as error:
            raise InputError(f"{path}: not a file of rows ({error})") from None
        self._starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, number: int, columns: list[str]) -> dict[str, Any]:
        """One row, by the names of columns. Raises InputError."""
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        row = self._group(group).slice(number - int(self._starts[group]), 1).select(columns)
        values: dict[str, Any] = row.to_pylist()[0]
        return values

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows. Raises InputError."""
        for group in range(len(self._starts) - 1):
            for batch in self._group(group).to_batches(AT_ONCE):
                yield from batch.to_pylist()

    def _group(self, group: int) -> pa.Table:
        with self._lock:
            if group not in self._held:
                for old in list(self._held)[: 1 - KEPT]:
                    del self._held[old]
                try:
                    self._held[group] = self._read(group)
                except (OSError, pa.ArrowException) as error:
                    raise InputError(f"{self.path}: {error}") from None
            return self._held[group]


@lru_cache(maxsize=2)
def opened(path: str) -> Table:
    """The table of a file; the last ones stay open."""
    return Table(path)


def _batches(path: str) -> list[pa.RecordBatch]:
    """Of an .arrow file, as views of the file."""
    memory = pa.memory_map(path)
    try:
        return list(pa.ipc.open_stream(memory))
    except pa.ArrowInvalid:
        file = pa.ipc.open_file(memory)
        return [file.get_batch(i) for i in range(file.num_record_batches)]


def rows(file: Found, column: str | None) -> Iterator[Input]:
    """What the rows of a file hold or name, in order, lazily.

    Args:
        file: of rows.
        column: that has the media or their paths; None: the first that has media, else that has paths.

    Raises:
        InputError: the file cannot be read, or has no such column.
    """
    path = str(file.path.absolute())
    table = opened(path)
    if column is not None and column not in table.schema.names:
        raise InputError(f"{file.path}: no column '{column}', it has {', '.join(table.schema.names)}")
    holding = [f.name for f in table.schema if _holds(f.type)]
    if column not in holding and (column is not None or not holding):
        named = [name for name in (column, *NAMES) if name in table.schema.names]
        if not named:
            has = ", ".join(table.schema.names)
            raise InputError(f"{file.path}: no column of media or paths, it has {has}; --column says which it is")
        yield from files_of(table.rows(), file.path, named[0])
        return
    each = file.path.stat().st_size // max(1, len(table))
    for number in range(len(table)):
        yield Row(f"{file.stem.as_posix()}/{number:06d}", path, each, None, number, column or holding[0])


def _holds(kind: pa.DataType) -> bool:
    """Whether a column of this type has the content of files."""
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
