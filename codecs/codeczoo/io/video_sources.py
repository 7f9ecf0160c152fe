"""Clips behind one interface, be they files or folders of frames.

A clip is frames on a regular grid of times: frame k is what is shown at k / rate seconds. Of files whose frames come
irregularly some are therefore repeated or left out, and the clip keeps time with its sound.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from re import split
from typing import Any, Protocol

import numpy as np

from codeczoo.core.errors import InputError
from codeczoo.io import image
from codeczoo.io.video_container import Container, Picture, Pixels

FOLDER_RATE = Fraction(25)  # of a folder of frames, which says nothing of time
GAP = 600  # seconds between two frames that are still believed
AHEAD = 2  # seconds behind a frame that was read that are decoded, not sought; frames in between are not drawn


class Source(Protocol):
    """An open clip.

    Attributes:
        picture: of its own, whatever the grid's rate.
        duration: seconds, as headers say, or None.
        start: seconds, when frame 0 is shown by the clock of the sound.
        has_audio: whether there is sound.
    """

    picture: Picture
    duration: Fraction | None
    start: Fraction
    has_audio: bool

    def seek(self, start: int) -> None:
        """The next `read` begins with frame `start` of the grid."""

    def read(self, frames: int) -> Pixels:
        """The next frames (t, H, W, 3); t is smaller at the end. Raises InputError for damaged data."""

    def close(self) -> None:
        """Lets go of the file."""


@contextmanager
def opened(source: str | Path | bytes, rate: Fraction | None = None) -> Iterator[Source]:
    """The clip with a grid of `rate` frames a second; None: its own. Raises InputError as `io.video.read`."""
    where = "video data" if isinstance(source, bytes) else str(source)
    found: Source
    if isinstance(source, bytes):
        empty, folder = not source, False
    else:
        path = Path(source)
        if not path.exists():
            raise InputError(f"no such file: {where}")
        empty, folder = not path.stat().st_size, path.is_dir()
    if empty:
        raise InputError(f"{where} is empty")
    found = FolderSource(Path(where), rate) if folder else FileSource(Container(source, where), rate)
    try:
        yield found
    finally:
        found.close()


class FileSource:
    """A file's frames on the grid; its first frame is at 0.

    A frame is shown from its own time on, up to the next one's. The grid may be ahead of that by half a frame, so that
    clocks that are rounded change nothing and other rates get the nearest frames.
    """

    def __init__(self, container: Container, rate: Fraction | None) -> None:
        self._container = container
        self.picture, self.duration = container.picture, container.duration
        self.start, self.has_audio = container.start, container.has_audio
        self._grid = rate or self.picture.rate
        self._begin(container.first, container.time(container.first), 0)

    def _begin(self, frame: Any, time: Fraction, at: int) -> None:
        """Goes on from a frame that is shown from `time` on, the grid being at frame `at`."""
        self._at = self._until = at  # the first frame of the grid that shows `_following`
        self._following, self._since, self._slack = frame, time, 1 / (2 * self.picture.rate)
        self._shown: Any = None
        self._drawn: Pixels | None = None

    def seek(self, start: int) -> None:
        """See Source."""
        ahead = 0 if self._shown is None else AHEAD * self._grid
        if self._at <= start <= self._at + ahead:
            self._at = start
            return
        container, back = self._container, 1 / self.picture.rate
        while container.seekable and (time := start / self._grid - back) > 0:
            frame = container.seek(time)
            if frame is not None and frame.pts is not None and (found := container.time(frame)) * self._grid <= start:
                self._begin(frame, found, start)
                return
            back = 4 * back + 1
        frame = container.rewind()
        self._begin(frame, container.time(frame), start)

    def read(self, frames: int) -> Pixels:
        """See Source."""
        found: list[Pixels] = []
        while len(found) < frames and self._reach(self._at):
            if self._drawn is None:
                self._drawn = self._container.draw(self._shown)
            found.append(self._drawn)
            self._at += 1
        return _stacked(found, self.picture)

    def _reach(self, at: int) -> bool:
        """Makes `_shown` what is shown at frame `at`; False behind the end."""
        own = 1 / self.picture.rate
        while self._until <= at:
            if self._following is None:
                return False
            self._shown, self._drawn = self._following, None
            self._following = self._container.next()
            if self._following is None:
                said = self._container.length(self._shown)
                self._since += max(own, said if said <= GAP else Fraction(0))
                self._check_end()
            else:
                length = self._container.time(self._following) - self._since
                if not -1 <= length <= GAP:
                    raise InputError(f"{self._container.where}: time stamps jump by {float(length):.3g} s")
                self._since, self._slack = self._since + length, min(length, own) / 2
            self._until = ceil((self._since - self._slack) * self._grid)
        return True

    def _check_end(self) -> None:
        """Raises InputError where there is less than Matroska files say; truncated ones of other kinds raise before."""
        said = self._container.end
        if said is not None and self.start + self._since < said - Fraction(3, 2) / self.picture.rate:
            where = self._container.where
            raise InputError(f"{where} is truncated: {float(self.start + self._since):.3f} of {float(said):.3f} s")

    def close(self) -> None:
        """See Source."""
        self._container.close()


class FolderSource:
    """A folder of pictures of one size, frames in the order of the numbers in their names.

    It tells no rate, so its own is FOLDER_RATE.
    """

    def __init__(self, folder: Path, rate: Fraction | None) -> None:
        paths = (path for path in folder.iterdir() if path.suffix.lower() in image.SUFFIXES and path.name[0] != ".")
        self.paths = sorted(paths, key=lambda path: [int(p) if p.isdigit() else p for p in split(r"(\d+)", path.stem)])
        if not self.paths:
            raise InputError(f"{folder} holds no frames: no file ending in {', '.join(image.SUFFIXES)}")
        self.picture = Picture(FOLDER_RATE, *image.read(self.paths[0]).shape[1:])
        self.duration: Fraction | None = len(self.paths) / FOLDER_RATE
        self.start, self.has_audio = Fraction(0), False
        self._grid, self._at = rate or FOLDER_RATE, 0

    def seek(self, start: int) -> None:
        """See Source."""
        self._at = start

    def read(self, frames: int) -> Pixels:
        """See Source."""
        wanted = (floor(k * FOLDER_RATE / self._grid + Fraction(1, 2)) for k in range(self._at, self._at + frames))
        found = [self._draw(self.paths[i]) for i in wanted if i < len(self.paths)]
        self._at += len(found)
        return _stacked(found, self.picture)

    def _draw(self, path: Path) -> Pixels:
        x = image.read(path).permute(1, 2, 0).numpy()  # (H, W, 3)
        if x.shape[:2] != (self.picture.height, self.picture.width):
            sizes = f"{self.picture.height}x{self.picture.width} to {x.shape[0]}x{x.shape[1]}"
            raise InputError(f"{path}: the frames of a clip have one size; it goes from {sizes}")
        return x

    def close(self) -> None:
        """See Source."""


def _stacked(frames: list[Pixels], picture: Picture) -> Pixels:
    return np.stack(frames) if frames else np.zeros((0, picture.height, picture.width, 3), np.uint8)
