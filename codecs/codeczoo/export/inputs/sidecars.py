"""Side-car files: FILE.txt, FILE.json and their like beside FILE.jpg say something of it, as members of a tar do."""

from pathlib import Path
from typing import Any

from codeczoo.core.errors import InputError
from codeczoo.export.inputs.archives import LONGEST, TEXTS, fields_of
from codeczoo.export.inputs.entry import plain


def beside(path: Path) -> dict[str, Any]:
    """Text under its file's suffix, the fields of JSON under their names; only text, numbers and truth values.

    Raises InputError for a side-car that is too long or no text, OSError where it cannot be read.
    """
    values: dict[str, Any] = {}
    for suffix in TEXTS:
        file = path.with_suffix(f".{suffix}")
        if not file.is_file():
            continue
        if file.stat().st_size > LONGEST:
            raise InputError(f"{file} has more than {LONGEST} bytes")
        try:
            values |= fields_of(suffix, file.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise InputError(f"{file}: {error}") from None
    return plain(values) or {}
