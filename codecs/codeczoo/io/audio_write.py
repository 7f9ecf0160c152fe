"""Samples to an audio file, in blocks, whole or not at all."""

from contextlib import ExitStack
from logging import getLogger
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from codeczoo.core.errors import InputError, MissingError
from codeczoo.io.files import atomic

log = getLogger(__name__)
PIECE = 2**16  # frames a call: libsndfile's Vorbis and Opus encoders overflow the stack with more


class Kind(NamedTuple):
    """How libsndfile names a format, and what it can hold; no `rates` are all rates."""

    container: str
    subtype: str
    rates: tuple[int, ...] = ()
    channels: int = 255


MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
SAVED_AS = {
    ".wav": Kind("WAV", "PCM_16"),
    ".flac": Kind("FLAC", "PCM_16", channels=8),
    ".mp3": Kind("MP3", "MPEG_LAYER_III", MP3_RATES, 2),
    ".ogg": Kind("OGG", "VORBIS"),
    ".opus": Kind("OGG", "OPUS", OPUS_RATES),
}


class Writer:
    """Context manager: blocks appended inside it become a file when it ends well, and nothing when it does not.

    .wav and .flac hold 16 bits: samples that came from 16 bits come back unchanged. What lies beyond [-1, 1] is
    clipped, counted in `clipped` and named in one warning at the end.

    Args:
        path: ends in one of SAVED_AS.
        rate: Hz.
        channels: C.

    Raises:
        InputError: another suffix; a rate or number of channels that the format cannot hold; a file that cannot be
            written.
        MissingError: soundfile is not installed.
    """

    def __init__(self, path: str | Path, rate: int, channels: int) -> None:
        self.path, self.rate, self.channels = Path(path), rate, channels
        if self.path.suffix.lower() not in SAVED_AS:
            raise InputError(f"cannot write {path}: the suffix must be one of {', '.join(SAVED_AS)}")
        self.kind = SAVED_AS[self.path.suffix.lower()]
        if self.kind.rates and rate not in self.kind.rates:
            allowed = ", ".join(map(str, self.kind.rates))
            raise InputError(f"cannot write {path}: {self.path.suffix} holds {allowed} Hz, got {rate}")
        if not 1 <= channels <= self.kind.channels:
            raise InputError(f"cannot write {path}: channels must be 1..{self.kind.channels}, got {channels}")
        self.frames = self.clipped = 0
        self.peak = 0.0
        self._stack = ExitStack()
        self._file: Any = None

    def __enter__(self) -> "Writer":
        try:
            import soundfile
        except (ImportError, OSError):
            raise MissingError('audio files want soundfile: pip install "codeczoo[audio]"') from None
        self._error = soundfile.SoundFileError
        temporary = self._stack.enter_context(atomic(self.path))
        try:
            self._file = soundfile.SoundFile(
                temporary, "w", self.rate, self.channels, self.kind.subtype, format=self.kind.container
            )
        except self._error as error:
            raise self._unwritable(error) from None
        return self

    def append(self, x: Tensor) -> None:
        """Adds a block, float (C, t) in [-1, 1]. Raises InputError for another shape or type, NaN and infinity."""
        if x.ndim != 2 or x.shape[0] != self.channels or not x.is_floating_point():
            got = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
            raise InputError(f"cannot write {self.path}: a block is float ({self.channels}, t), got {got}")
        samples = x.detach().float().cpu().T.numpy()  # (t, C)
        if not np.isfinite(samples).all():
            raise InputError(f"cannot write {self.path}: NaN or infinite samples")
        sizes = np.abs(samples)
        self.clipped += int((sizes > 1).sum())
        self.peak = max(self.peak, float(sizes.max(initial=0)))
        self.frames += len(samples)
        if self.kind.subtype == "PCM_16":
            samples = np.rint(samples * 32768).clip(-32768, 32767).astype(np.int16)
        else:
            samples = samples.clip(-1, 1)
        try:
            for begin in range(0, len(samples), PIECE):
                self._file.write(samples[begin : begin + PIECE])
        except self._error as error:
            raise self._unwritable(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except self._error as failed:
            if error is None:
                kind, error, trace = InputError, self._unwritable(failed), None
        self._stack.__exit__(kind, error, trace)
        if error is None and self.clipped:
            share = self.clipped / max(1, self.frames * self.channels)
            log.warning("%s: clipped %d samples (%.2g %%), peak %.3f", self.path, self.clipped, 100 * share, self.peak)

    def _unwritable(self, error: Exception) -> InputError:
        return InputError(f"cannot write {self.path}: {' '.join(str(error).split())}")


def write(path: str | Path, x: Tensor, rate: int) -> None:
    """Writes x, float (C, T) in [-1, 1], as .wav, .flac, .mp3, .ogg or .opus. Raises InputError as Writer."""
    if x.ndim != 2:
        raise InputError(f"cannot write {path}: audio is float (C, T), got {tuple(x.shape)}")
    with Writer(path, rate, x.shape[0]) as file:
        file.append(x)
