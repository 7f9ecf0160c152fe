"""Decoder of audio in containers: FFmpeg's libraries through PyAV."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import InputError
from codeczoo.io import ffmpeg

KINDS = "wav, flac, mp3, ogg, opus, aiff, caf, m4a, aac, webm and the sound of mp4, mov, mkv"
PREROLL = 0.1  # seconds decoded before the place sought, until lossy decoders have settled
SLACK = 0.5  # seconds by which an mp4 may end before its header says
Samples = NDArray[np.float32]  # (T, C)


class ContainerSource:
    """What FFmpeg reads; frame 0 is the first one decoded, `frames` is unknown.

    Of these only mp4, mov and m4a say their length for sure: a truncated one of another kind just ends early.
    """

    def __init__(self, source: str | Path | bytes, where: str) -> None:
        self.where, self._source = where, source
        self._av = ffmpeg.library(f"{where} is nothing that soundfile reads", "audio")
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
        with ffmpeg.clear(f"{self.where} is not audio of a known kind; allowed: {KINDS}"):
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
        """See audio_sources.Source. Decodes from the begin where time stamps are coarser than a frame (Matroska)."""
        if self._first_pts is not None and 0 < self._tick * self.rate <= 1:
            pts = self._first_pts + int(Fraction(max(0, start - int(PREROLL * self.rate)), self.rate) / self._tick)
            with ffmpeg.clear(f"cannot seek in {self.where}"):
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
        """See audio_sources.Source."""
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
        """See audio_sources.Source."""
        self._container.close()

    def _next(self) -> Any:
        with ffmpeg.clear(f"cannot read {self.where}"):
            return next(self._decoded, None)

    def _samples(self, frame: Any) -> Samples:
        with ffmpeg.clear(f"cannot read {self.where}"):
            return np.concatenate([part.to_ndarray().T for part in self._convert.resample(frame)])  # (t, C)
