"""Format "hf": a data set of Hugging Face `datasets` as it lies on disk, which `datasets.load_from_disk` memory-maps.

data-00000-of-00002.arrow ..   a row per document, columns as in export.arrow; a file ends at BYTES
dataset_info.json, state.json  what `load_from_disk` looks for; the header stands in header.json alone

Parquet is smaller; `datasets.load_dataset` reads that too, and writes these files to its cache first.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from codeczoo.core.errors import FormatError
from codeczoo.export import arrow

BYTES = 500_000_000


class Writer(arrow.Writer):
    """Keeps one record batch in memory."""

    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype)
        self._count = self._bytes = 0
        self._file: pa.RecordBatchStreamWriter | None = None

    def _write(self, table: pa.Table) -> None:
        if self._file is None:
            self._file = pa.ipc.new_stream(self._path(self._count), self.schema)
            self._count += 1
        self._file.write_table(table)
        self._bytes += table.nbytes
        if self._bytes >= BYTES:
            self._end()

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._bytes = None, 0

    def _path(self, number: int) -> str:
        return str(self.folder / f"data-{number:05}.arrow")

    def _close(self, header: str) -> None:
        self._flush()
        self._end()
        names = [f"data-{i:05}-of-{self._count:05}.arrow" for i in range(self._count)]
        for i, name in enumerate(names):
            Path(self._path(i)).rename(self.folder / name)
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": sha256(header.encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (self.folder / "state.json").write_text(json.dumps(state, indent=2) + "\n")
        (self.folder / "dataset_info.json").write_text("{}\n")  # columns and types stand in the files themselves


class Reader(arrow.Reader):
    """Memory-maps all files."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self._batches: list[pa.RecordBatch] = []
        try:
            for path in sorted(folder.glob("data-*.arrow")):
                self._batches += pa.ipc.open_stream(pa.memory_map(str(path))).read_all().to_batches()
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"{folder}: {error}") from None
        super().__init__(folder, header, [batch.num_rows for batch in self._batches])

    def _table(self, number: int) -> pa.Table:
        return pa.table(self._batches[number])
