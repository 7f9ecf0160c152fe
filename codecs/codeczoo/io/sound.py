"""The sound of clips: packets copied from file to file, never decoded; and recordings as packets."""

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from codeczoo.core.errors import InputError
from codeczoo.io import audio, ffmpeg

MP4, MATROSKA = "sound.mp4", "sound.mka"  # names of attachments: MP4 keeps time to the sample, Matroska keeps any codec
CONTAINERS = {MP4: "mp4", MATROSKA: "matroska"}
# What sound that was decoded from tokens is coded as, by the suffix of the clip; and the kind of samples it takes.
ENCODERS = {".mp4": ("aac", "fltp"), ".webm": ("libopus", "flt"), ".mkv": ("flac", "s16")}
BITS = 96_000  # a second and channel, of lossy encoders
OPUS_RATE = 48_000  # Hz, at which FFmpeg's Opus encoder takes anything
WISH = "the sound of clips wants PyAV"


class Track(NamedTuple):
    """Sound for a clip.

    Args:
        source: a file with it, or its bytes.
        start: seconds, when the first frame is shown by the clock of the sound.
        whole: False: it ends with the frames, which are only the first of the clip's.
    """

    source: Path | bytes
    start: Fraction = Fraction(0)
    whole: bool = True


def copied(source: str | Path | bytes) -> tuple[str, bytes]:
    """All audio tracks of a file that has any, as the name and content of an attachment.

    Raises InputError where the file cannot be read, or holds sound that neither MP4 nor Matroska does.
    """
    av, where = ffmpeg.library(WISH), "video data" if isinstance(source, bytes) else str(source)
    with ffmpeg.clear(f"cannot read the sound of {where}"), _opened(av, source) as container:
        mp4 = "mp4" in container.format.name.split(",")
    if mp4:
        try:
            return MP4, _copy(source, MP4, where)
        except InputError:  # a codec that QuickTime files may hold and MP4 may not
            pass
    return MATROSKA, _copy(source, MATROSKA, where)


def _copy(source: str | Path | bytes, name: str, where: str) -> bytes:
    av, data = ffmpeg.library(WISH), BytesIO()
    with (
        ffmpeg.clear(f"cannot copy the sound of {where}"),
        _opened(av, source) as container,
        av.open(data, "w", format=CONTAINERS[name]) as made,
    ):
        streams = {stream.index: made.add_stream_from_template(stream) for stream in container.streams.audio}
        for packet in _packets(container):
            packet.stream = streams[packet.stream.index]
            made.mux(packet)
    return data.getvalue()


def begin(source: str | Path | bytes) -> Fraction | None:
    """Seconds by the clock of the file when the first sample of its first audio track sounds; None where none does."""
    av, where = ffmpeg.library(WISH), "video data" if isinstance(source, bytes) else str(source)
    with ffmpeg.clear(f"cannot read the sound of {where}"), _opened(av, source) as container:
        frame = next(container.decode(container.streams.audio[0]), None) if container.streams.audio else None
        return None if frame is None else (frame.pts or 0) * Fraction(frame.time_base)


class Copier:
    """Context manager that copies packets into a clip which is being written, in step with its frames.

    Args:
        source: of the sound: a file, or its bytes.
        container: an av.container.OutputContainer.
        delay: seconds by which the sound comes later.
        where: what messages call the clip.

    Raises:
        InputError: a format that does not hold such sound.
    """

    def __init__(self, source: Path | bytes, container: Any, delay: Fraction, where: str) -> None:
        self._source, self._container, self._delay = _opened(ffmpeg.library(WISH), source), container, delay
        self._streams = {}
        for stream in self._source.streams.audio:
            name, kind = stream.codec_context.codec.canonical_name, container.format.name
            if name not in container.supported_codecs:
                self._source.close()
                raise InputError(f"cannot write {where}: {kind} holds no {name} sound, mkv does")
            self._streams[stream.index] = container.add_stream_from_template(stream)
        self._packets = _packets(self._source)
        self._next = next(self._packets, None)

    def upto(self, time: Fraction | None) -> None:
        """Copies what comes before `time`, seconds by the clock of the clip; None: all that is left."""
        while self._next is not None:
            packet, tick = self._next, Fraction(self._next.time_base)
            delay = round(self._delay / tick)
            if time is not None and (packet.dts + delay) * tick >= time:
                return
            packet.pts, packet.dts = packet.pts + delay, packet.dts + delay
            packet.stream = self._streams[packet.stream.index]
            self._container.mux(packet)
            self._next = next(self._packets, None)

    def __enter__(self) -> "Copier":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()


def encode(recording: Path, path: Path, suffix: str) -> None:
    """A recording as compressed sound.

    Args:
        recording: any audio file.
        path: to be written, an MP4 or Matroska file.
        suffix: of the clip that it is for, one of ENCODERS.

    Raises:
        InputError: FFmpeg cannot encode it.
    """
    av, about = ffmpeg.library(WISH), audio.info(recording)
    encoder, kind = ENCODERS[suffix]
    rate = OPUS_RATE if encoder == "libopus" else about.rate
    layout = {1: "mono", 2: "stereo"}.get(about.channels, f"{about.channels}c")
    with ffmpeg.clear(f"cannot encode the sound as {encoder}"), av.open(str(path), "w") as file:
        stream = file.add_stream(encoder, rate=rate, layout=layout)
        stream.codec_context.format, stream.bit_rate = kind, BITS * about.channels
        convert = av.AudioResampler(kind, layout, rate, frame_size=stream.codec_context.frame_size or 4096)
        done = 0
        for block in audio.blocks(recording, about.rate):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.numpy()), "fltp", layout)
            frame.sample_rate, frame.pts = about.rate, done
            done += block.shape[1]
            for part in convert.resample(frame):
                file.mux(stream.encode(part))
        for part in convert.resample(None):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))


def _opened(av: Any, source: str | Path | bytes) -> Any:
    return av.open(BytesIO(source) if isinstance(source, bytes) else str(source))


def _packets(container: Any) -> Iterator[Any]:
    for packet in container.demux(container.streams.audio):
        if packet.is_corrupt:
            raise ValueError("truncated or damaged")
        if packet.dts is not None:
            yield packet
