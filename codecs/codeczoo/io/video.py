"""Video file to frames: whole, a part, or block by block at any frame rate; and frames to a file."""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.io.video_container import Pixels
from codeczoo.io.video_sources import opened
from codeczoo.io.video_write import SAVED_AS, Writer, write

__all__ = ["SAVED_AS", "SUFFIXES", "Info", "Writer", "blocks", "info", "read", "write"]

SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif")
PIECE = 64  # frames decoded at once where more are wanted


class Info(NamedTuple):
    """What a file holds.

    Args:
        rate: its own, frames a second.
        height: H, pixels, upright.
        width: W, pixels, upright.
        frames: T, counted at the rate asked for, as the headers say: where they are wrong, so is this. None where they
            say nothing.
        duration: seconds, or None likewise.
        has_audio: whether there is sound.
        start: seconds, when the first frame is shown by the clock of the sound.
        aspect: width by height of a pixel.
    """

    rate: Fraction
    height: int
    width: int
    frames: int | None
    duration: float | None
    has_audio: bool
    start: Fraction
    aspect: Fraction


def info(source: str | Path | bytes, rate: Fraction | int | None = None) -> Info:
    """Reads headers and the first frame. Raises InputError as `read`."""
    with opened(source, _positive(rate)) as file:
        own, length = file.picture, file.duration
        frames = None if length is None else max(1, ceil((length - 1 / (2 * own.rate)) * (rate or own.rate)))
        seconds = None if length is None else float(length)
        return Info(own.rate, own.height, own.width, frames, seconds, file.has_audio, file.start, own.aspect)


def read(
    source: str | Path | bytes, start: int = 0, frames: int | None = None, rate: Fraction | int | None = None
) -> Tensor:
    """Frames, uint8 (3, T, H, W) RGB, upright; the memory layout is (T, H, W, 3).

    Frame k is what is shown at k / rate seconds after the first one. A part is sought, not decoded up to, and equals
    that part of the whole; after the file's end there is less of it. What is transparent is laid over white.

    Args:
        source: path of a file or of a folder of pictures (of 25 frames a second), or the bytes of a file.
        start: first frame, counted at `rate`.
        frames: at most so many; None is all there are.
        rate: wanted, frames a second; None is the file's own.

    Raises:
        InputError: no such file, no video in it, empty, truncated, corrupt, frames of unequal size, no frame `start`.
        MissingError: PyAV is not installed.
    """
    if start < 0 or (frames is not None and frames < 1):
        raise InputError(f"start must be at least 0 and frames at least 1, got {start} and {frames}")
    with opened(source, _positive(rate)) as file:
        file.seek(start)
        parts = [file.read(frames or PIECE)]
        while frames is None and len(parts[-1]) == PIECE:
            parts.append(file.read(PIECE))
    x = _tensor(np.concatenate(parts) if len(parts) > 1 else parts[0])
    if not x.shape[1]:
        where = "video data" if isinstance(source, bytes) else source
        raise InputError(f"{where} has no frame {start}")
    return x


def blocks(source: str | Path | bytes, frames: int, rate: Fraction | int | None = None) -> Iterator[Tensor]:
    """The frames in order, uint8 (3, frames, H, W) each, the last one shorter; memory does not grow with the duration.

    In sum the same frames as `read` gives.

    Args:
        source: as for `read`.
        frames: of a block.
        rate: wanted, frames a second; None is the file's own.

    Raises:
        InputError: as `read`, at the latest when the damaged place is reached.
    """
    if frames < 1:
        raise InputError(f"a block must have at least 1 frame, got {frames}")
    with opened(source, _positive(rate)) as file:
        while len(x := file.read(frames)):
            yield _tensor(x)


def _positive(rate: Fraction | int | None) -> Fraction | None:
    if rate is not None and rate <= 0:
        raise InputError(f"a frame rate must be above 0, got {rate}")
    return None if rate is None else Fraction(rate)


def _tensor(x: Pixels) -> Tensor:
    return torch.from_numpy(x).permute(3, 0, 1, 2)  # (3, T, H, W)
