"""Manifests: .jsonl, .csv or .tsv with a path, and whatever else is said of each file."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from codeczoo.core.errors import InputError
from codeczoo.export.inputs.entry import Absent, Input, plain

SUFFIXES = (".jsonl", ".csv", ".tsv")
NAMES = ("path", "file_name", "file", "filename", "audio_filepath", "image", "audio", "video")  # of the paths


def listed(path: Path, column: str | None) -> Iterator[Input]:
    """The files of a manifest, in its order, lazily. Paths are relative to the manifest.

    Args:
        path: of the manifest.
        column: that has the paths; None: the first of NAMES that the first entry has.

    Raises:
        InputError: the manifest cannot be read, or has no such column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from files_of(_rows(path, file), path, column)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _rows(path: Path, file: Iterable[str]) -> Iterator[dict[str, Any]]:
    if path.suffix.lower() != ".jsonl":
        yield from csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        return
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} is no object")
        yield row


def files_of(rows: Iterable[dict[str, Any]], manifest: Path, column: str | None) -> Iterator[Input]:
    """The files of rows that have a path in `column`; arguments and errors as for `listed`."""
    for number, row in enumerate(rows, 1):
        column = column or next((name for name in NAMES if isinstance(row.get(name), str)), None)
        if column is None or (number == 1 and column not in row):
            has, wanted = ", ".join(map(str, row)), f"'{column}'" if column else f"of {', '.join(NAMES)}"
            raise InputError(f"{manifest}: no column {wanted}, it has {has}; --column says which has the paths")
        yield _file(manifest, row.get(column), plain({k: v for k, v in row.items() if k != column and k}), number)


def _file(manifest: Path, value: Any, about: dict[str, Any] | None, number: int) -> Input:
    if not isinstance(value, str) or not value:
        return Absent(f"{manifest.stem}/{number}", str(manifest.absolute()), 0, about, f"entry {number} has no path")
    path = manifest.parent / value
    inside = not Path(value).is_absolute() and ".." not in Path(value).parts
    stem = Path(value) if inside else Path(path.name)
    try:
        size = path.stat().st_size
    except OSError:  # told when it is read
        size = 0
    return Input(stem.with_suffix("").as_posix(), str(path.absolute()), size, about)
