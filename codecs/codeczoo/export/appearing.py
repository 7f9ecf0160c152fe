"""Files of an export that several processes may write at once, any of which may be killed.

`io.files.atomic` is for one writer: what a killed one leaves has no name to be found by.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

from codeczoo.core.errors import InputError

PARTIAL = ".partial"  # suffix of files that are not there yet


@contextmanager
def appearing(path: Path, hint: str = "") -> Iterator[Path]:
    """Gives a hidden name of this process's own, beside `path`, that becomes `path` when all of it is on the disk.

    A process that is killed leaves it; `clean` finds it by its suffix.

    Args:
        path: the file to be; every process writes the same to it.
        hint: ends the message of the error.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.stem}-{gethostname()}-{os.getpid()}{PARTIAL}")
    try:
        yield temporary
        try:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except FileNotFoundError:
            if not path.is_file():  # else another process has made it, and cleaned up
                raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}{hint}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def clean(folder: Path) -> None:
    """Removes what processes that were killed have left in a folder where everything is there."""
    for left in folder.glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)
