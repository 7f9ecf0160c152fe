"""Format "webdataset": tar files of a `.npy` and a `.json` per document, as WebDataset streams them.

tokens-000000.tar   000000000.tokens.npy, 000000000.json, 000000001.tokens.npy ..; DOCUMENTS in each but the last

The array has the shape of the pattern: (L,) or (rows, L). Keys are numbers because WebDataset cuts names at their first
dot; the id stands in the JSON. Nothing in the files depends on the time or the user.
"""

import io
import json
import tarfile
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError
from codeczoo.export import dataset
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import Ids

DOCUMENTS = 1000  # in a tar file
ARRAY, ABOUT = "tokens.npy", "json"


class Writer(dataset.Writer):
    """Appends to one tar file at a time."""

    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype)
        self._tar: tarfile.TarFile | None = None

    def _add(self, document: Document, ids: Ids) -> None:
        number = self.documents - 1
        if number % DOCUMENTS == 0:
            self._end()
            self._tar = tarfile.open(self.folder / name_of(number), "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        buffer = io.BytesIO()
        np.save(buffer, ids.T.astype(np.dtype(self.dtype).newbyteorder("<")))  # (rows, L) or (L,)
        self._put(f"{number:09}.{ARRAY}", buffer.getvalue())
        self._put(f"{number:09}.{ABOUT}", json.dumps(document.to_dict()).encode())

    def _put(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o644
        self._tar.addfile(entry, io.BytesIO(data))

    def _end(self) -> None:
        if self._tar is not None:
            self._tar.close()

    def _close(self, header: str) -> None:
        self._end()


class Reader(dataset.Reader):
    """Keeps the tar file that was asked for last open, and its list of members."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        super().__init__(folder, header)
        self._opened: tuple[str, tarfile.TarFile] | None = None
        self._lock = Lock()  # threads read one after the other
        for number in range(0, len(self), DOCUMENTS):
            if not (folder / name_of(number)).is_file():
                raise FormatError(f"{folder / name_of(number)} is not there")
        self._member(len(self) - 1, ABOUT)

    def _ids(self, i: int) -> NDArray[Any]:
        try:
            return np.load(io.BytesIO(self._member(i, ARRAY)), allow_pickle=False).T.reshape(
                -1
            )  # (rows, L) -> (L * rows,)
        except ValueError as error:
            raise FormatError(f"{self.folder}: document {i}: {error}") from None

    def document(self, i: int) -> Document:
        i = self._number(i)
        try:
            return Document.from_dict(json.loads(self._member(i, ABOUT)), self.spec.media)
        except ValueError:
            raise FormatError(f"{self.folder}: document {i}: what is known of it is not JSON") from None

    def _member(self, i: int, kind: str) -> bytes:
        with self._lock:
            return self._read(name_of(i), f"{i:09}.{kind}")

    def _read(self, name: str, member: str) -> bytes:
        try:
            if self._opened is None or self._opened[0] != name:
                if self._opened is not None:
                    self._opened[1].close()
                self._opened = (name, tarfile.open(self.folder / name))  # noqa: SIM115
            file = self._opened[1].extractfile(member)
            assert file is not None
            return file.read()
        except (OSError, KeyError, tarfile.TarError) as error:
            raise FormatError(f"{self.folder / name}: {error}") from None


def name_of(document: int) -> str:
    """The tar file that a document is in."""
    return f"tokens-{document // DOCUMENTS:06}.tar"
