"""Decoders of audio files behind one interface: soundfile for what libsndfile knows, PyAV for the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from re import MULTILINE, findall
from typing import Any, Protocol

from codeczoo.core.errors import InputError, MissingError
from codeczoo.io.audio_containers import ContainerSource, Samples
from codeczoo.io.ffmpeg import one_line

UNKNOWN = 2**62  # libsndfile's frame count where a stream tells none is near 2^63
UNSAID = 2**31 - 2**16  # a RIFF chunk at least this long was written to a pipe, where the length was not known
RESERVOIR = 24 * 1152  # frames decoded before the place sought in an MP3, whose packets lean on up to 511 bytes before


class Source(Protocol):
    """An open audio file.

    Attributes:
        rate: Hz.
        channels: C.
        frames: T, exact, or None where only decoding tells.
        duration: seconds, perhaps only nearly right, or None.
    """

    rate: int
    channels: int
    frames: int | None
    duration: float | None

    def seek(self, start: int) -> None:
        """The next `read` begins with frame `start`."""

    def read(self, frames: int) -> Samples:
        """The next frames, float32 (t, C); t is smaller at the end. Raises InputError for damaged data."""

    def close(self) -> None:
        """Lets go of the file."""


@contextmanager
def opened(source: str | Path | bytes) -> Iterator[Source]:
    """The file or its bytes, told by content. Raises InputError as `io.audio.read`."""
    where = "audio data" if isinstance(source, bytes) else str(source)
    if isinstance(source, bytes):
        empty = not source
    else:
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{where} is a folder" if path.is_dir() else f"no such file: {where}")
        empty = not path.stat().st_size
    if empty:
        raise InputError(f"{where} is empty")
    found = _open(source, where)
    try:
        yield found
    finally:
        found.close()


def _open(source: str | Path | bytes, where: str) -> Source:
    try:
        import soundfile
    except (ImportError, OSError):
        raise MissingError('audio files want soundfile: pip install "codeczoo[audio]"') from None
    try:
        return SoundFileSource(source, where)
    except (soundfile.SoundFileError, TypeError):  # TypeError: the name ends in .raw, which libsndfile takes literally
        return ContainerSource(source, where)


class SoundFileSource:
    """What libsndfile reads; seeks to the exact frame in all its formats.

    Ogg and headerless MP3 carry no length: of a truncated one, what is there is all there is.
    """

    def __init__(self, source: str | Path | bytes, where: str) -> None:
        import soundfile

        self.where, self._error = where, soundfile.SoundFileError
        self._file: Any = soundfile.SoundFile(BytesIO(source) if isinstance(source, bytes) else source)
        # soundfile sets the position anew after every read where it can; in an MP3 that loses the bit reservoir.
        self._file.seekable = lambda: False
        self._at = 0
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self.frames = self._file.frames if self._file.frames < UNKNOWN else None
        self.duration = None if self.frames is None else self.frames / self.rate
        chunks = findall(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", self._file.extra_info, MULTILINE)
        if any(int(there) < int(said) < UNSAID for said, there in chunks):
            self.close()
            raise InputError(f"{where} is truncated: {chunks[0][1]} of {chunks[0][0]} bytes of samples")

    def seek(self, start: int) -> None:
        """See Source."""
        start = start if self.frames is None else min(start, self.frames)
        back = min(start, RESERVOIR) if self._file.format == "MP3" else 0
        try:
            self._file.seek(start - back)
            if back:
                self._file.read(back, dtype="float32")
            self._at = start
        except self._error as error:
            raise InputError(f"cannot seek in {self.where}: {one_line(error)}") from None

    def read(self, frames: int) -> Samples:
        """See Source."""
        try:
            samples = self._file.read(frames, dtype="float32", always_2d=True)
        except self._error as error:
            raise InputError(f"cannot read {self.where}: {one_line(error)}") from None
        self._at += len(samples)
        if self.frames is not None and len(samples) < frames and self._at < self.frames:
            raise InputError(f"{self.where} is truncated: {self._at} of {self.frames} frames")
        return samples

    def close(self) -> None:
        """See Source."""
        self._file.close()
