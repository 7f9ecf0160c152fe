"""Format "parquet": part-000000.parquet with a row per document; `datasets.load_dataset("parquet", ...)` reads it.

Columns: see export.arrow. The header stands in header.json and, as JSON, in the file's metadata under "codeczoo". Ids
are dictionary coded and compressed with zstd: about as many bits as the vocabulary needs.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codeczoo.core.errors import FormatError
from codeczoo.export import arrow


class Writer(arrow.Writer):
    """Keeps one row group in memory.

    Args:
        folder, dtype: see dataset.Writer.
        name: of the file.
    """

    def __init__(self, folder: Path, dtype: str, name: str = "part-000000.parquet") -> None:
        super().__init__(folder, dtype)
        self._file = pq.ParquetWriter(
            folder / name,
            self.schema,
            compression="zstd",
            use_dictionary=["tokens.list.element", "size.list.element", "grid.list.element", "fit"],
        )

    def _write(self, table: pa.Table) -> None:
        self._file.write_table(table)

    def _close(self, header: str) -> None:
        self.finish({"codeczoo": header})

    def finish(self, metadata: dict[str, str]) -> None:
        """Ends the file, without a header.json, and puts this into it."""
        self._flush()
        self._file.add_key_value_metadata(metadata)
        self._file.close()


class Reader(arrow.Reader):
    """Reads a row group at a time; one file is open at a time, for there may be very many."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self._groups: list[tuple[Path, int]] = []
        lengths = []
        try:
            for path in sorted(folder.glob("part-*.parquet")):
                about = pq.read_metadata(path)
                self._groups += [(path, group) for group in range(about.num_row_groups)]
                lengths += [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        except pa.ArrowException as error:
            raise FormatError(f"{folder}: {error}") from None
        super().__init__(folder, header, lengths)

    def _table(self, number: int) -> pa.Table:
        path, group = self._groups[number]
        with pq.ParquetFile(path) as file:
            return file.read_row_group(group)
