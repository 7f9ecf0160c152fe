"""Errors whose text is one clear line: what, where, what is allowed. The CLI prints them and exits with 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class CodeczooError(Exception):
    """Base of every error that the user can mend."""


class InputError(CodeczooError, ValueError):
    """Media or an argument of the wrong shape, range, type or name."""


class FormatError(CodeczooError, ValueError):
    """A file that is not what it should be: truncated, corrupt, foreign, from a newer version."""


class WeightsError(CodeczooError, ValueError):
    """Weights that do not fit the codec, or a weights file that cannot be read."""


class ConfigError(CodeczooError, ValueError):
    """A recipe or configuration tree with an unknown key, name or class."""


class MissingError(CodeczooError, ImportError):
    """Something optional is not there: a package or a weights file. The text says the command that gets it."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Half a sentence for an unknown `name`: the close ones when there are any, else all that are allowed."""
    names = sorted(allowed)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"allowed: {', '.join(names)}" if names else "nothing is allowed here"
