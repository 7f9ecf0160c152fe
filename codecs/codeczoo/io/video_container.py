"""Clips in files: FFmpeg's decoders through PyAV."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from math import floor
from pathlib import Path
from re import findall
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import InputError
from codeczoo.io import ffmpeg
from codeczoo.io.video_colours import EXACT

KINDS = "mp4, mov, webm, mkv, avi, gif and what else FFmpeg reads, and folders of pictures"
NEAR = Fraction(1, 50)  # nominal and average rates that differ by less mean the same
Pixels = NDArray[np.uint8]  # (T, H, W, 3), or (H, W, 3) of one frame


@dataclass(frozen=True)
class Picture:
    """What the frames of a clip have in common.

    Args:
        rate: frames a second.
        height: pixels, upright.
        width: pixels, upright.
        aspect: width by height of a pixel, 1 nearly always.
    """

    rate: Fraction
    height: int
    width: int
    aspect: Fraction = Fraction(1)


class Container:
    """An open file and its decoder. Frames that the decoder itself calls damaged raise when they are drawn.

    Args:
        source: path, or the bytes of a file.
        where: what messages call it.

    Raises:
        InputError: nothing that FFmpeg reads, no video in it, no frames.
        MissingError: PyAV is not installed.

    Attributes:
        first: the first frame, an av.VideoFrame.
        picture: its own.
        duration: seconds, as headers say, or None.
        end: seconds, the file's own clock, when the frames end as Matroska files say; None for others.
        start: seconds, the file's own clock, when the first frame is shown.
        has_audio: whether there is sound.
        seekable: False where frames have no time stamps, and for GIF, whose frames build on those before.
    """

    _container: Any = None  # av.container.InputContainer
    _stream: Any = None
    _frames: Iterator[Any] = iter(())

    def __init__(self, source: str | Path | bytes, where: str) -> None:
        self.where, self._source = where, source
        self._av = ffmpeg.library("video files want PyAV")
        try:
            self.first = self.rewind()
            stream, first = self._stream, self.first
            self._size = (first.height, first.width)
            sides, aspect = self._size, Fraction(stream.sample_aspect_ratio or 1)
            if round(first.rotation) % 180:
                sides, aspect = (first.width, first.height), 1 / aspect
            self.picture = Picture(self._rate(), *sides, aspect)
        except InputError:
            self.close()
            raise
        self._tick = Fraction(first.time_base or stream.time_base or 1)
        self.seekable = first.pts is not None and "gif" not in self._container.format.name
        self.start = Fraction(0) if first.pts is None else first.pts * self._tick
        self.has_audio = bool(self._container.streams.audio)
        self.end = _clock(stream.metadata.get("DURATION", ""))
        self.duration = None if self.end is None else self.end - self.start
        if stream.duration:
            self.duration = stream.duration * Fraction(stream.time_base)
        elif self.end is None and self._container.duration:
            self.duration = Fraction(self._container.duration, 1_000_000)
        self._scaler = self._av.video.reformatter.VideoReformatter()

    def rewind(self) -> Any:
        """Opens the file anew; its first frame."""
        self.close()
        with ffmpeg.clear(f"{self.where} is not video of a known kind; allowed: {KINDS}"):
            source = self._source
            self._container = self._av.open(BytesIO(source) if isinstance(source, bytes) else str(source))
        cover = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            raise InputError(f"{self.where} has no video track")
        self._stream = streams[0]
        self._frames, self._without_time = self._decoded(), 0
        first = self.next()
        if first is None:
            raise InputError(f"{self.where} holds no frames")
        return first

    def seek(self, time: Fraction) -> Any:
        """The frame, or None, from which decoding can go on to the one at `time` seconds after the first, roughly."""
        with ffmpeg.clear(f"cannot seek in {self.where}"):
            self._container.seek(self.first.pts + floor(time / self._tick), stream=self._stream)
            self._frames = self._decoded()
        return self.next()

    def next(self) -> Any:
        """The next frame; None behind the last. Raises InputError."""
        with ffmpeg.clear(f"cannot read {self.where}"):
            return next(self._frames, None)

    def time(self, frame: Any) -> Fraction:
        """Seconds after the first. Frames without time stamps are one after the other, so ask once, in order."""
        if frame.pts is not None and self.first.pts is not None:
            return (frame.pts - self.first.pts) * self._tick
        self._without_time += 1
        return (self._without_time - 1) / self.picture.rate

    def length(self, frame: Any) -> Fraction:
        """Seconds that a frame is shown; 0 where nobody says."""
        return max(0, frame.duration or 0) * self._tick

    def draw(self, frame: Any) -> Pixels:
        """A frame as it is seen, (H, W, 3): upright, what is transparent over white. Raises InputError."""
        if frame.is_corrupt:
            raise InputError(f"{self.where} is damaged at {float(frame.time or 0):.3f} s")
        if (frame.height, frame.width) != self._size:
            sizes = f"{self._size[0]}x{self._size[1]} to {frame.height}x{frame.width}"
            raise InputError(f"{self.where} changes its size midway, from {sizes}")
        see_through = any(part.is_alpha for part in frame.format.components)
        with ffmpeg.clear(f"cannot read {self.where}"):
            kind = "rgba" if see_through else "rgb24"
            x = self._scaler.reformat(frame, format=kind, interpolation=EXACT, threads=1).to_ndarray()
        if see_through:
            alpha = x[:, :, 3:].astype(np.uint16)
            x = ((x[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        return np.rot90(x, round(frame.rotation / 90))

    def close(self) -> None:
        """Lets go of the file and, at once, of the decoder: its threads would be missing in processes forked later."""
        if self._container is not None:
            self._container.close()
        self._container = self._stream = None
        self._frames = iter(())

    def _decoded(self) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt:
                raise InputError(f"{self.where} is truncated or damaged")
            yield from packet.decode()

    def _rate(self) -> Fraction:
        """Frames a second: the nominal rate where that is about what the frames come to, else what they come to."""
        stream = self._stream
        mean = stream.average_rate or stream.guessed_rate
        if stream.frames > 1 and stream.duration:
            mean = stream.frames / (stream.duration * Fraction(stream.time_base))
        if not mean:
            raise InputError(f"{self.where} does not tell its frame rate")
        nominal = stream.base_rate
        return Fraction(nominal if nominal and abs(nominal / mean - 1) < NEAR else mean)


def _clock(text: str) -> Fraction | None:
    """Seconds of "01:02:03.45"; None for other text."""
    found = findall(r"^(\d+):(\d+):(\d+(?:\.\d+)?)$", text)
    if not found:
        return None
    hours, minutes, seconds = map(Fraction, found[0])
    return 3600 * hours + 60 * minutes + seconds
