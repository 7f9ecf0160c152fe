"""Which files a command reads, and how a file appears: whole or not at all."""

import glob
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Found(NamedTuple):
    """An input file and where its output belongs.

    Args:
        path: of the file. Of what lies inside another file, the path of that one with its own name below it.
        stem: a relative path without suffix, distinct among all found.
        load: gives the content of what lies inside another file; raises OSError or a CodeczooError.
    """

    path: Path
    stem: Path
    load: Callable[[], bytes] | None = None

    def source(self) -> Path | bytes:
        """What readers of media take: the path, or the content of what lies inside another file."""
        return self.path if self.load is None else self.load()

    def read(self) -> bytes:
        """The content. Raises OSError."""
        return self.path.read_bytes() if self.load is None else self.load()

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
        for match in matches(Path(given), suffixes):
            found.setdefault(os.path.realpath(match.path), match)
    return told_apart(list(found.values()))


def matches(given: Path, suffixes: Sequence[str]) -> Iterator[Found]:
    """The files that one path means, as `find` has it, but lazily, and stems may be the same. Raises InputError."""
    found = _matches(given, frozenset(suffixes))
    first = next(found, None)
    if first is None:
        raise InputError(f"nothing to read in {given}: no file ending in {', '.join(suffixes)}")
    yield first
    yield from found


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


def told_apart(found: Sequence[Found]) -> list[Found]:
    """The same files with stems that differ, as `find` has it."""
    import numpy as np

    keys = np.fromiter((stem_key(f.stem) for f in found), np.uint64, len(found))
    level = levels(keys, found.__getitem__)
    return [f._replace(stem=distinct(f, n)) for f, n in zip(found, level, strict=True)]


def levels(keys: "NDArray[np.uint64]", found: Callable[[int], Found]) -> list[int]:
    """The level at which `distinct` makes the stem of each file differ from all others.

    Args:
        keys: `stem_key` of the stem of each file.
        found: gives file i; called for those whose stems clash.
    """
    import numpy as np

    keys, level = keys.copy(), np.zeros(len(keys), np.int16)
    while True:
        ordered = np.sort(keys)
        clash = np.flatnonzero(np.isin(keys, ordered[1:][ordered[1:] == ordered[:-1]]))
        if not len(clash):
            return level.tolist()
        # Of the files in a clash, only the least changed ones change again: a.png, a.jpg, a.png.png stay short.
        _, group = np.unique(keys[clash], return_inverse=True)
        least = np.full(group.max() + 1, np.iinfo(np.int16).max)
        np.minimum.at(least, group, level[clash])
        for i in clash[level[clash] == least[group]].tolist():
            level[i] += 1
            keys[i] = stem_key(distinct(found(i), int(level[i])))


def stem_key(stem: Path) -> int:
    """64 bits of a stem, the same where two outputs could not stand beside one another."""
    return int.from_bytes(blake2b(os.fsencode(os.path.normcase(stem)), digest_size=8).digest(), "little")


def distinct(found: Found, level: int) -> Path:
    """The stem; with its suffix at level 1, and `level - 1` more parent folders in front at higher ones."""
    if not level:
        return found.stem
    stem = found.stem.with_name(found.path.name)
    parts = Path(os.path.abspath(found.path)).parts[1:]  # noqa: PTH100, `..` must not lead out of the output folder
    if level > len(parts) + 1:  # Links and `..` can make one path of two files.
        raise InputError(f"{found.path}: its output cannot be told from that of another input")
    return Path(*parts[-(len(stem.parts) + level - 1) :])
