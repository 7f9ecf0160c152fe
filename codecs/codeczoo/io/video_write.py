"""Frames to a video file, in blocks, whole or not at all."""

from contextlib import ExitStack
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from codeczoo.core.errors import InputError, MissingError
from codeczoo.io import ffmpeg
from codeczoo.io.files import atomic
from codeczoo.io.sound import Copier, Track
from codeczoo.io.video_colours import BT709, LIMITED, Colours, Palettes, Scaled


class Kind(NamedTuple):
    """How FFmpeg names a format.

    Args:
        container: of the file.
        encoder: of the frames.
        pixels: pixel format of frames of even sides.
        odd: pixel format where a side is odd, which H.264 cannot code with halved chroma.
        options: of the encoder.
        muxing: options of the container.
        most: frames a second.
    """

    container: str
    encoder: str
    pixels: str
    odd: str
    options: dict[str, str]
    muxing: dict[str, str]
    most: int = 1000


H264 = {"crf": "17", "preset": "fast"}
VP9 = {"crf": "20", "b:v": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
SAVED_AS = {
    ".mp4": Kind("mp4", "libx264", "yuv420p", "yuv444p", H264, {"movflags": "faststart"}),
    ".webm": Kind("webm", "libvpx-vp9", "yuv420p", "yuv420p", VP9, {}),
    ".mkv": Kind("matroska", "ffv1", "bgr0", "bgr0", {"level": "3", "slicecrc": "1"}, {}),
    ".gif": Kind("gif", "gif", "pal8", "pal8", {}, {}, most=50),
}


class Writer:
    """Context manager: blocks appended inside it become a file when it ends well, and nothing when it does not.

    .mkv is lossless (FFV1); .mp4 (H.264) and .webm (VP9) are near it, but halve the resolution of colour, .mp4 of odd
    sizes excepted; .gif has 256 colours a frame and a clock of 10 ms.

    Args:
        path: ends in one of SAVED_AS.
        rate: frames a second.
        aspect: width by height of a pixel, which only .mp4 keeps.
        sound: to be copied into it; .gif holds none.

    Raises:
        InputError: another suffix; a rate or size that the format cannot hold; no frames; a file that cannot be
            written.
        MissingError: PyAV is not installed, or has no encoder of this format.
    """

    def __init__(
        self, path: str | Path, rate: Fraction | int, aspect: Fraction | int = 1, sound: Track | None = None
    ) -> None:
        self.path, self.rate, self.aspect = Path(path), Fraction(rate), Fraction(aspect)
        if self.path.suffix.lower() not in SAVED_AS:
            raise InputError(f"cannot write {path}: the suffix must be one of {', '.join(SAVED_AS)}")
        self.kind = SAVED_AS[self.path.suffix.lower()]
        if not 0 < rate <= self.kind.most:
            most = f"above 0 and up to {self.kind.most}"
            raise InputError(f"cannot write {path}: {self.path.suffix} holds frame rates {most}, got {float(rate):g}")
        self.frames, self._first = 0, 0
        self._sound = sound
        self._copier: Copier | None = None
        self._stack = ExitStack()
        self._container: Any = None  # av.container.OutputContainer
        self._stream: Any = None
        self._colours: Colours

    def __enter__(self) -> "Writer":
        self._av = ffmpeg.library("video files want PyAV")
        if self.kind.encoder not in self._av.codecs_available:
            raise MissingError(f"cannot write {self.path}: PyAV's FFmpeg was built without {self.kind.encoder}")
        temporary = self._stack.enter_context(atomic(self.path))
        with ffmpeg.clear(self._failure):
            name, options = self.kind.container, self.kind.muxing
            self._container = self._av.open(str(temporary), "w", format=name, container_options=options)
        return self

    def append(self, x: Tensor) -> None:
        """Adds a block, float (3, t, H, W) in [0, 1], t >= 0.

        Raises InputError for another shape or type, another size than that of the blocks before, NaN and infinity.
        """
        if x.ndim != 4 or x.shape[0] != 3 or not x.is_floating_point():
            got = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
            raise InputError(f"cannot write {self.path}: a block is float (3, t, H, W), got {got}")
        if not bool(x.isfinite().all()):
            raise InputError(f"cannot write {self.path}: NaN or infinite pixels")
        pixels = x.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8).permute(1, 2, 3, 0)
        for frame in pixels.numpy():  # (H, W, 3)
            self._add(np.ascontiguousarray(frame))

    def _add(self, pixels: np.ndarray) -> None:
        with ffmpeg.clear(self._failure):
            if self._stream is None:
                self._start(*pixels.shape[:2])
            if pixels.shape[:2] != (self._stream.height, self._stream.width):
                sizes = f"{self._stream.height}x{self._stream.width}, got {pixels.shape[0]}x{pixels.shape[1]}"
                raise InputError(f"cannot write {self.path}: frames so far are {sizes}")
            frame = self._av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = self._first + self.frames, 1 / self.rate
            if self._copier:
                self._copier.upto(frame.pts / self.rate)
            self.frames += 1
            self._encode(frame)

    def _encode(self, frame: Any) -> None:
        """The next frame, or None at the end."""
        for made in self._colours(frame):
            self._container.mux(self._stream.encode(made))

    def _start(self, height: int, width: int) -> None:
        """Begins the stream, once the size is known."""
        kind = self.kind
        stream = self._container.add_stream(kind.encoder, rate=self.rate, options=kind.options)
        stream.height, stream.width = height, width
        stream.pix_fmt = kind.odd if height % 2 or width % 2 else kind.pixels
        about = stream.codec_context
        about.sample_aspect_ratio = self.aspect
        about.time_base = 1 / self.rate
        if stream.pix_fmt.startswith("yuv"):
            about.colorspace, about.color_range = BT709, LIMITED
            about.color_primaries, about.color_trc = BT709, BT709
        self._stream = stream
        if self._sound:
            # Frames are counted, so the sound gives way, and never to before its zero.
            self._first = max(0, ceil(self._sound.start * self.rate))
            delay = self._first / self.rate - self._sound.start
            self._copier = self._stack.enter_context(Copier(self._sound.source, self._container, delay, str(self.path)))
        if stream.pix_fmt == "pal8":
            self._colours = Palettes(self._av, height, width, self.rate)
        else:
            self._colours = Scaled(self._av, stream.pix_fmt)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with ffmpeg.clear(self._failure):
                if error is None:
                    self._finish()
                self._container.close()
        except InputError as failed:
            if error is None:
                kind, error, trace = InputError, failed, None
        self._stack.__exit__(kind, error, trace)
        if error is not None and trace is None:
            raise error

    def _finish(self) -> None:
        if not self.frames:
            raise InputError(f"cannot write {self.path}: no frames")
        self._encode(None)
        self._container.mux(self._stream.encode(None))
        if self._sound and self._copier:
            self._copier.upto(None if self._sound.whole else (self._first + self.frames) / self.rate)

    @property
    def _failure(self) -> str:
        return f"cannot write {self.path}"


def write(path: str | Path, x: Tensor, rate: Fraction | int) -> None:
    """Writes x, float (3, T, H, W) in [0, 1], as .mp4, .webm, .mkv or .gif. Raises InputError as Writer."""
    with Writer(path, rate) as file:
        file.append(x)
