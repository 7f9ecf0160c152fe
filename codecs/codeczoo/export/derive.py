"""An export in another format: its documents, written again."""

from importlib import import_module
from pathlib import Path
from typing import Any

from codeczoo.export.dataset import Reader


def derive(reader: Reader, folder: Path, format_: str, dtype: str) -> dict[str, Any]:
    """Writes all documents of an export into an empty folder; returns the header.

    Args:
        reader: of the export.
        folder: exists and is empty.
        format_: one of codeczoo.export.FORMATS.
        dtype: one of codeczoo.export.DTYPES, large enough for every id.
    """
    writer = import_module(f"codeczoo.export.{format_}").Writer(folder, dtype)
    for i in range(len(reader)):
        writer.add(reader.document(i), reader.ids(i))
    header: dict[str, Any] = writer.close(reader.header | {"format": format_})
    return header
