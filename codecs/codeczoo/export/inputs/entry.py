"""One input of an export, as a line of JSON keeps it: a file; what lies inside another file is a kind of its own."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from codeczoo.io.files import Found


@dataclass(frozen=True)
class Input:
    """A file.

    Args:
        id: of its document: a relative path, distinct among all inputs that are there.
        path: of the file, absolute.
        bytes: of it, roughly.
        about: what a manifest says of it: plain values by name; None where nothing does.
    """

    KINDS: ClassVar[dict[str, type["Input"]]] = {}

    id: str
    path: str
    bytes: int
    about: dict[str, Any] | None = None

    def __init_subclass__(cls) -> None:
        Input.KINDS[cls.__name__.lower()] = cls

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.path

    @property
    def key(self) -> str:
        """The same for two inputs that are the same."""
        return os.path.realpath(self.path)

    def found(self) -> Found:
        """The input as commands read it."""
        return Found(Path(self.where), Path(self.id))

    def said(self) -> dict[str, Any] | None:
        """`about`, with what is said where the input lies. Raises OSError or a CodeczooError."""
        return self.about

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `input_of` is the inverse."""
        kind = {} if type(self) is Input else {"kind": type(self).__name__.lower()}
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return kind | {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Absent(Input):
    """Something that was listed, and nothing can be read there.

    Args:
        id, path, bytes, about: see Input.
        why: a line.
        failed: whether something is wrong with it.
    """

    why: str = ""
    failed: bool = False


def input_of(values: dict[str, Any]) -> Input:
    """The inverse of `Input.to_dict`. Raises KeyError, TypeError."""
    rest = dict(values)
    return Input.KINDS[rest.pop("kind", "input")](**rest)


Input.KINDS["input"] = Input


def plain(values: dict[str, Any]) -> dict[str, Any] | None:
    """Those that are text, numbers or truth values; None where none is."""
    return {k: v for k, v in values.items() if isinstance(v, str | int | float | bool)} or None
