"""Decoders of audio files behind one interface: soundfile for what libsndfile knows, PyAV for the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from re import MULTILINE, findall
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import InputError, MissingError

KINDS = "wav, flac, mp3, ogg, opus, aiff, caf, m4a, aac, webm and the sound of mp4, mov, mkv"
UNKNOWN = 2**62  # libsndfile's frame count where a stream tells none is near 2^63
UNSAID = 2**31 - 2**16  # a RIFF chunk at least this long was written to a pipe, where the length was not known
PREROLL = 0.1  # seconds decoded before the place sought, until lossy decoders have settled
RESERVOIR = 24 * 1152  # frames decoded before the place sought in an MP3, whose packets lean on up to 511 bytes before
SLACK = 0.5  # seconds by which an mp4 may end before its header says
Samples = NDArray[np.float32]  # (T, C)


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
            raise InputError(f"cannot seek in {self.where}: {_line(error)}") from None

    def read(self, frames: int) -> Samples:
        """See Source."""
        try:
            samples = self._file.read(frames, dtype="float32", always_2d=True)
        except self._error as error:
            raise InputError(f"cannot read {self.where}: {_line(error)}") from None
        self._at += len(samples)
        if self.frames is not None and len(samples) < frames and self._at < self.frames:
            raise InputError(f"{self.where} is truncated: {self._at} of {self.frames} frames")
        return samples

    def close(self) -> None:
        """See Source."""
        self._file.close()


class ContainerSource:
    """What FFmpeg reads; frame 0 is the first one decoded, `frames` is unknown.

    Of these only mp4, mov and m4a say their length for sure: a truncated one of another kind just ends early.
    """

    def __init__(self, source: str | Path | bytes, where: str) -> None:
        try:
            import av
        except (ImportError, OSError):
            raise MissingError(f'{where} is nothing that soundfile reads: pip install "codeczoo[audio]"') from None
        self.where, self._av, self._source = where, av, source
        self._container: Any  # av.container.InputContainer
        self.frames: int | None = None
        self.duration: float | None = None
        self._total: int | None = None
        self._open()
        try:
            first = self._next()
            if first is None:
                raise InputError(f"{where} holds no samples")
        except InputError:
            self.close()
            raise
        self.rate, self.channels = first.sample_rate, len(first.layout.channels)  # HE-AAC's header says half the rate
        self._first_pts, self._tick = first.pts, Fraction(self._stream.time_base or 0)
        if self._stream.duration is not None:
            self.duration = float(self._stream.duration * self._tick)
        elif self._container.duration is not None:
            self.duration = self._container.duration / 1e6
        if self.duration is not None and "mp4" in self._container.format.name.split(","):
            self._total = round(self.duration * self.rate)
        self._hold(first, 0)

    def _open(self) -> None:
        with self._clear(f"{self.where} is not audio of a known kind; allowed: {KINDS}"):
            source = self._source
            self._container = self._av.open(BytesIO(source) if isinstance(source, bytes) else str(source))
        if not self._container.streams.audio:
            self.close()
            raise InputError(f"{self.where} has no audio track")
        self._stream = self._container.streams.audio[0]
        self._decoded = self._container.decode(self._stream)

    def _hold(self, frame: Any, at: int) -> None:
        """Goes on from a decoded frame, or the end, at frame number `at`."""
        self._at, self._held = at, np.zeros((0, self.channels), np.float32)
        if frame is not None:
            self._convert = self._av.AudioResampler("fltp", frame.layout, self.rate)
            self._held = self._samples(frame)

    def seek(self, start: int) -> None:
        """See Source. Where time stamps are coarser than a frame (Matroska) the file is decoded from its begin."""
        if self._first_pts is not None and 0 < self._tick * self.rate <= 1:
            pts = self._first_pts + int(Fraction(max(0, start - int(PREROLL * self.rate)), self.rate) / self._tick)
            with self._clear(f"cannot seek in {self.where}"):
                self._container.seek(pts, stream=self._stream)
                self._decoded = self._container.decode(self._stream)
            frame = self._next()
            at = 0 if frame is None else round((frame.pts - self._first_pts) * self._tick * self.rate)
        else:
            self.close()
            self._open()
            frame, at = self._next(), 0
        self._hold(frame, at)
        while self._at < start and len(self.read(min(start - self._at, self.rate))):
            pass

    def read(self, frames: int) -> Samples:
        """See Source."""
        parts, count = [self._held], len(self._held)
        while count < frames and (frame := self._next()) is not None:
            parts.append(self._samples(frame))
            count += len(parts[-1])
        samples = np.concatenate(parts)
        samples, self._held = samples[:frames], samples[frames:]
        if self._total is not None:
            if len(samples) < frames and self._at + len(samples) < self._total - SLACK * self.rate:
                raise InputError(f"{self.where} is truncated: {self._at + len(samples)} of {self._total} frames")
            samples = samples[: max(0, self._total - self._at)]  # the rest of the last packet is padding
        self._at += len(samples)
        return samples

    def close(self) -> None:
        """See Source."""
        self._container.close()

    def _next(self) -> Any:
        with self._clear(f"cannot read {self.where}"):
            return next(self._decoded, None)

    def _samples(self, frame: Any) -> Samples:
        with self._clear(f"cannot read {self.where}"):
            return np.concatenate([part.to_ndarray().T for part in self._convert.resample(frame)])  # (t, C)

    @contextmanager
    def _clear(self, what: str) -> Iterator[None]:
        """Errors of FFmpeg, and of PyAV where the channels change midway, as one line."""
        try:
            yield
        except (self._av.FFmpegError, ValueError) as error:
            raise InputError(f"{what} ({getattr(error, 'strerror', None) or _line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
