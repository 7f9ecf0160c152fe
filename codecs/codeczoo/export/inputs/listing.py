"""Which inputs the arguments of a command mean."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from codeczoo.core.errors import InputError
from codeczoo.export.inputs import archives, manifests
from codeczoo.export.inputs.entry import Input
from codeczoo.io.files import Found, matches

TABLES = (".parquet", ".arrow")  # tables.SUFFIXES, whose import wants pyarrow
STATE, SPLITS = "state.json", "dataset_dict.json"  # of Hugging Face's save_to_disk


def inputs(paths: Iterable[str], suffixes: Sequence[str], column: str | None = None) -> Iterator[Input]:
    """All inputs that `paths` mean, lazily, in an order that depends on names alone; ids may be the same.

    Args:
        paths: files, folders and patterns as `io.files.find` takes them; tar shards, also in folders; folders of
            Hugging Face's `save_to_disk`; manifests and parquet files that are named, or meant by a pattern that ends
            in their suffix.
        suffixes: of files with media or tokens, lower case with the dot.
        column: of manifests and data sets; None: the one that has media or paths.

    Raises:
        InputError: a path that does not exist, cannot be read or holds nothing of it.
    """
    for text in paths:
        found = _of(Path(text), suffixes, column)
        first = next(found, None)
        if first is None:
            raise InputError(f"nothing to read in {text}: it lists no file")
        yield first
        yield from found


def _of(given: Path, suffixes: Sequence[str], column: str | None) -> Iterator[Input]:
    if (given / SPLITS).is_file():
        for split in _json(given / SPLITS)["splits"]:
            yield from _data_set(given / split, Path(split), column)
    elif (given / STATE).is_file():
        yield from _data_set(given, Path(), column)
    else:
        listing = given.suffix.lower() in (*manifests.SUFFIXES, *TABLES)
        wanted = (*suffixes, archives.SUFFIX, *([given.suffix.lower()] if listing else []))
        for found in matches(given, wanted):
            yield from _inside(found, suffixes, column)


def _inside(found: Found, suffixes: Sequence[str], column: str | None) -> Iterator[Input]:
    suffix = found.path.suffix.lower()
    if suffix == archives.SUFFIX:
        return archives.members(found, suffixes)
    if suffix in manifests.SUFFIXES:
        return manifests.listed(found.path, column)
    if suffix in TABLES:
        from codeczoo.export.inputs import tables

        return tables.rows(found, column)
    return iter([_file(found)])


def _file(found: Found) -> Input:
    try:
        return Input(found.stem.as_posix(), str(found.path.absolute()), found.path.stat().st_size)
    except OSError as error:
        raise InputError(f"{found.path}: {error.strerror}") from None


def _data_set(folder: Path, base: Path, column: str | None) -> Iterator[Input]:
    """The rows of a folder that save_to_disk wrote."""
    from codeczoo.export.inputs import tables

    for file in _json(folder / STATE)["_data_files"]:
        path = folder / file["filename"]
        yield from tables.rows(Found(path, base / path.stem), column)


def _json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        return values
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
