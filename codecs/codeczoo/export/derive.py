"""An export in another format: its documents, written again."""

from pathlib import Path
from typing import Any

from codeczoo.export.dataset import Reader, format_module


def derive(reader: Reader, folder: Path, format_: str, dtype: str) -> dict[str, Any]:
    """Writes all documents of an export into an empty folder; returns the header.

    Args:
        reader: of the export.
        folder: exists and is empty.
        format_: one of codeczoo.export.FORMATS.
        dtype: from the format's `Writer.dtype_for`.
    """
    writer = format_module(format_).Writer(folder, dtype)
    for i in range(len(reader)):
        writer.add(reader.document(i), reader.ids(i))
    header: dict[str, Any] = writer.close(reader.header | {"format": format_})
    return header
