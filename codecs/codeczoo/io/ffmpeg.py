"""FFmpeg's libraries through PyAV: where they are, and their errors as one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from codeczoo.core.errors import InputError, MissingError


def library(wish: str, extra: str = "video") -> Any:
    """The module `av`. Raises MissingError: the wish that cannot be met, and the extra to install."""
    try:
        import av
    except (ImportError, OSError):
        raise MissingError(f'{wish}: pip install "codeczoo[{extra}]"') from None
    return av


@contextmanager
def clear(what: str) -> Iterator[None]:
    """Errors of FFmpeg, and of PyAV where the media change midway, as one line. Raises InputError that begins so."""
    av = library(what)
    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} ({getattr(error, 'strerror', None) or one_line(error)})") from None


def one_line(error: Exception) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
