"""WebDataset shards: tar files whose members of one name, up to its first dot, are one sample."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

from codeczoo.core.errors import InputError
from codeczoo.export.inputs.entry import Absent, Input, plain
from codeczoo.io.files import Found

SUFFIX = ".tar"
TEXTS = ("txt", "text", "caption", "cls", "label", "json")  # members that say something of the sample
LONGEST = 2**20  # bytes of them


@dataclass(frozen=True)
class Member(Input):
    """A member of a tar file, which is a piece of that file.

    Args:
        id, path, bytes, about: see Input.
        name: of the member.
        start: its first byte.
        beside: suffix, first byte and size of the sample's other members that say something of it.
    """

    name: str = ""
    start: int = 0
    beside: tuple[tuple[str, int, int], ...] = ()

    @property
    def where(self) -> str:
        """See Input."""
        return f"{self.path}/{self.name}"

    @property
    def key(self) -> str:
        """See Input."""
        return f"{super().key}\0{self.start}"

    def found(self) -> Found:
        """See Input."""
        return Found(Path(self.where), Path(self.id), partial(_piece, self.path, self.start, self.bytes))

    def said(self) -> dict[str, Any] | None:
        """See Input: text under its member's suffix, the fields of JSON under their names."""
        values = dict(self.about or {})
        for suffix, start, size in self.beside:
            text = _piece(self.path, start, size).decode(errors="replace")
            values |= fields_of(suffix, text)
        return plain(values)


def members(archive: Found, suffixes: Sequence[str]) -> Iterator[Input]:
    """The samples of a tar file, in its order, lazily.

    Raises InputError for a file that is no tar file, or is compressed: pieces of those cannot be read.
    """
    try:
        tar = tarfile.open(archive.path, "r:")  # noqa: SIM115
    except tarfile.ReadError as error:
        raise InputError(f"{archive.path}: not a plain tar file ({error}); a .tar.gz is to be unpacked") from None
    except OSError as error:
        raise InputError(f"{archive.path}: {error.strerror or error}") from None
    with tar:
        for key, group in groupby(_files(tar), _key):
            yield _sample(archive, key, list(group), suffixes)
        if _damaged(tar):
            stem, why = f"{archive.stem.as_posix()}/rest", "the rest of this tar file is damaged"
            yield Absent(stem, str(archive.path.absolute()), 0, None, why, True)


def _sample(archive: Found, key: str, files: list[tarfile.TarInfo], suffixes: Sequence[str]) -> Input:
    path, stem = str(archive.path.absolute()), archive.stem.as_posix()
    extensions = {file.name[len(key) + 1 :].lower(): file for file in files}
    media = next((file for extension, file in extensions.items() if f".{extension}" in suffixes), None)
    if media is None:
        has = ", ".join(sorted(extensions))
        return Absent(f"{stem}/{key}", path, 0, None, f"sample {key} has {has}, and nothing that this codec takes")
    beside = tuple(
        (name, file.offset_data, file.size)
        for name, file in extensions.items()
        if name in TEXTS and file.size <= LONGEST
    )
    return Member(f"{stem}/{key}", path, media.size, None, media.name, media.offset_data, beside)


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members with content, up to where the file is damaged."""
    with suppress(tarfile.ReadError):
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # which would be all of them in the end
            if info.isfile() and not info.issparse() and not PurePath(info.name).name.startswith("."):
                yield info


def _damaged(tar: tarfile.TarFile) -> bool:
    """Whether that was not the end: a block of zeros stands there, or the end of the file between two members."""
    file: Any = tar.fileobj
    if file.seek(0, 2) < tar.offset:
        return True
    file.seek(tar.offset)
    return any(file.read(tarfile.BLOCKSIZE))


def _key(info: tarfile.TarInfo) -> str:
    folder, _, name = info.name.removeprefix("./").rpartition("/")
    return f"{folder}/{name.partition('.')[0]}" if folder else name.partition(".")[0]


def _piece(path: str, start: int, size: int) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(start)
        data = file.read(size)
    if len(data) < size:
        raise InputError("the tar file ends within it")
    return data


def fields_of(suffix: str, text: str) -> dict[str, Any]:
    """What a member or a file beside the media says: text under its suffix, the fields of JSON under their names."""
    if suffix != "json":
        return {suffix: text.strip()}
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {"json": values}
