"""Audio file to samples: whole, a part, or block by block at any sampling rate."""

from collections.abc import Iterator
from math import ceil, gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.io.audio_sources import Source, opened
from codeczoo.io.audio_write import SAVED_AS, Writer, write
from codeczoo.io.resample import Resampler, resample, resampled_length

__all__ = ["SAVED_AS", "SUFFIXES", "Info", "Writer", "blocks", "info", "read", "resample", "resampled_length", "write"]

SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".caf"),
    *(".m4a", ".aac", ".mka", ".webm"),
)
MARGIN = 0.05  # seconds on either side of a part that is resampled: many times the filter's reach
PIECE = 2**20  # frames decoded at once where the whole file is wanted


class Info(NamedTuple):
    """What a file holds.

    Args:
        rate: Hz.
        channels: C.
        frames: T, exact, or None where only decoding tells (m4a, aac, webm, mp4, ...).
        duration: seconds; nearly right where `frames` is None, and None where the file does not say.
    """

    rate: int
    channels: int
    frames: int | None
    duration: float | None


def info(source: str | Path | bytes) -> Info:
    """Reads headers only. Raises InputError as `read`."""
    with opened(source) as file:
        return Info(file.rate, file.channels, file.frames, file.duration)


def read(
    source: str | Path | bytes, rate: int | None = None, start: int = 0, frames: int | None = None
) -> tuple[Tensor, int]:
    """Samples, float32 (C, T), full scale is [-1, 1] (float files may go beyond), and their rate, Hz.

    What the file is is told from its content, not from its name. A part is sought, not decoded up to, and equals that
    part of the whole but for rounding; after the file's end there is less of it.

    Args:
        source: path, or the bytes of a file.
        rate: wanted, Hz; None is the file's own.
        start: first frame, counted at `rate`.
        frames: at most so many, counted at `rate`; None is all there are.

    Raises:
        InputError: no such file, no audio in it, empty, truncated, corrupt, NaN or infinite samples, no frame `start`.
        MissingError: soundfile, PyAV or soxr is wanted and not installed.
    """
    if start < 0 or (frames is not None and frames < 1):
        raise InputError(f"start must be at least 0 and frames at least 1, got {start} and {frames}")
    with opened(source) as file:
        new = rate or file.rate
        # Resampling repeats itself every `new / common` frames: cut there, both sides begin at the same instant.
        common = gcd(file.rate, new)
        period_in, period_out = file.rate // common, new // common
        margin = 0 if new == file.rate else MARGIN
        first = max(0, (start - ceil(margin * new)) // period_out)  # periods left out before
        before = start - first * period_out
        wanted = None if frames is None else -(-(before + frames) * period_in // period_out) + ceil(margin * file.rate)
        if first:
            file.seek(first * period_in)
        x = resample(_some(file, wanted, source), file.rate, new)[:, before:]
    x = x if frames is None else x[:, :frames]
    if not x.shape[1]:
        raise InputError(f"{_where(source)} holds no samples" + (f" from frame {start} on" if start else ""))
    return x, new


def blocks(source: str | Path | bytes, frames: int, rate: int | None = None) -> Iterator[Tensor]:
    """The samples in order, float32 (C, frames) each, the last one shorter; memory does not grow with the duration.

    In sum the same samples as `read` gives.

    Args:
        source: path, or the bytes of a file.
        frames: of a block, counted at `rate`.
        rate: wanted, Hz; None is the file's own.

    Raises:
        InputError: as `read`, at the latest when the damaged place is reached.
    """
    if frames < 1:
        raise InputError(f"a block must have at least 1 frame, got {frames}")
    with opened(source) as file:
        resampler = Resampler(file.rate, rate or file.rate, file.channels)
        piece = max(4096, resampled_length(frames, resampler.new, resampler.old))
        held, last, total = torch.zeros(file.channels, 0), False, 0
        while not last:
            x = _finite(file.read(piece), source)
            last = x.shape[1] < piece
            held = torch.cat([held, resampler.step(x, last)], 1)
            total += x.shape[1]
            whole = held.shape[1] // frames * frames
            yield from held[:, :whole].split(frames, 1) if whole else ()
            held = held[:, whole:]
        if not total:
            raise InputError(f"{_where(source)} holds no samples")
        if held.shape[1]:
            yield held


def _some(file: Source, frames: int | None, source: str | Path | bytes) -> Tensor:
    """The next `frames`, or all, float32 (C, T)."""
    if frames is not None:
        return _finite(file.read(frames), source)
    pieces = [file.read(PIECE)]
    while len(pieces[-1]) == PIECE:
        pieces.append(file.read(PIECE))
    return _finite(np.concatenate(pieces), source)


def _finite(samples: np.ndarray, source: str | Path | bytes) -> Tensor:
    if not np.isfinite(samples).all():
        raise InputError(f"{_where(source)} has NaN or infinite samples")
    return torch.from_numpy(samples).T  # (C, T)


def _where(source: str | Path | bytes) -> str:
    return "audio data" if isinstance(source, bytes) else str(source)
