"""Which files a command reads, and how a file appears: whole or not at all."""

import glob
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from codeczoo.core.errors import InputError


class Found(NamedTuple):
    """An input file and where its output belongs: a relative path without suffix, distinct among all found."""

    path: Path
    stem: Path

    def output(self, folder: Path, suffix: str) -> Path:
        """The output file. The suffix is appended: stems may hold dots of their own, so never `stem.with_suffix`."""
        return folder / self.stem.with_name(self.stem.name + suffix)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Gives a hidden temporary sibling with the same suffix; it becomes `path` when the block succeeds, else it goes.

    Missing parent folders are made. The block should only write: any OSError in it means that `path` cannot be written.

    Raises:
        InputError: `path` cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".{secrets.token_hex(8)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def content(source: str | Path | bytes, name: str) -> tuple[str, bytes]:
    """What messages call a source, and its bytes: of a file, or already in memory (then `name`). Raises InputError."""
    if isinstance(source, bytes):
        return name, source
    try:
        return str(source), Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"{source}: {error.strerror or error}") from None


def find(paths: Iterable[str | Path], suffixes: Sequence[str]) -> list[Found]:
    """The files that `paths` mean, each once, in a fixed order, hidden ones left out.

    A file named in full is taken whatever its suffix. Folders are searched to any depth (links followed), glob patterns
    with `*`, `?`, `[...]` and `**` are expanded, and both give only files with one of `suffixes`. Output stems are
    relative to the folder, or to the part of a pattern before its first wildcard. Where two stems would be the same
    (a.png, a.jpg), they keep their suffix, then get parent folders in front, until they differ.

    Args:
        paths: files, folders, patterns.
        suffixes: lower case with the dot, e.g. (".png", ".jpg").

    Raises:
        InputError: a path that does not exist, cannot be read or holds no such file.
    """
    found: dict[str, Found] = {}
    for given in paths:
        matches = list(_matches(Path(given), frozenset(suffixes)))
        if not matches:
            raise InputError(f"nothing to read in {given}: no file ending in {', '.join(suffixes)}")
        for match in matches:
            found.setdefault(os.path.realpath(match.path), match)
    return _distinct(list(found.values()))


def _matches(given: Path, suffixes: frozenset[str]) -> Iterator[Found]:
    if given.is_dir():
        yield from _walk(given, given, suffixes)
    elif given.exists():
        yield Found(given, Path(given.stem))
    elif glob.has_magic(str(given)):
        fixed = Path(*takewhile(lambda part: not glob.has_magic(part), given.parts[:-1]))
        for path in sorted(map(Path, glob.glob(str(given), recursive=True))):  # noqa: PTH207, Path.glob takes no root
            if path.is_dir():
                yield from _walk(path, fixed, suffixes)
            elif path.suffix.lower() in suffixes:
                yield Found(path, path.relative_to(fixed).with_suffix(""))
    else:
        raise InputError(f"no such file or folder: {given}")


def _walk(top: Path, base: Path, suffixes: frozenset[str]) -> Iterator[Found]:
    seen = set()
    for folder, folders, names in os.walk(top, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(folder)
        if real in seen:  # A link back to a folder above would never end.
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in suffixes and not name.startswith("."):
                yield Found(path, path.relative_to(base).with_suffix(""))


def _unreadable(error: OSError) -> None:
    raise InputError(f"cannot read folder {error.filename}: {error.strerror}")


def _distinct(found: list[Found]) -> list[Found]:
    """The same files with stems that differ."""
    stems, level = [f.stem for f in found], [0] * len(found)
    while True:
        keys = [os.path.normcase(stem) for stem in stems]
        count = Counter(keys)
        if len(count) == len(stems):
            return [Found(f.path, stem) for f, stem in zip(found, stems, strict=True)]
        # Of the files in a clash, only the least changed ones change again: a.png, a.jpg, a.png.png stay short.
        least: dict[str, int] = {}
        for key, n in zip(keys, level, strict=True):
            least[key] = min(n, least.get(key, n))
        for i, key in enumerate(keys):
            if count[key] > 1 and level[i] == least[key]:
                level[i] += 1
                stems[i] = _longer(found[i], level[i])


def _longer(found: Found, level: int) -> Path:
    """The stem with its suffix (level 1) and `level - 1` more parent folders in front."""
    stem = found.stem.with_name(found.path.name)
    parts = Path(os.path.abspath(found.path)).parts[1:]  # noqa: PTH100, `..` must not lead out of the output folder
    if level > len(parts) + 1:  # Links and `..` can make one path of two files.
        raise InputError(f"{found.path}: its output cannot be told from that of another input")
    return Path(*parts[-(len(stem.parts) + level - 1) :])
