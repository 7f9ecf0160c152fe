"""Video files to clips: random ones for training, beginnings for validation. Frames are chosen by their times."""

from collections.abc import Sequence
from copy import copy
from math import exp, log
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.data.media import Damaged, Media
from codeczoo.data.sampling import integer, uniform
from codeczoo.data.transforms import Transform
from codeczoo.io.video import SUFFIXES
from codeczoo.io.video_sources import Source, opened

Rate = float | Sequence[float]  # frames per second, or the least and the most of a range


class TrainingVideo(Media):
    """A random clip of a file, uint8 (3, T, H, W), from a random frame on; the file is opened once and sought in.

    A file that is shorter than the clip at its rate is seen at a higher rate, up to its own, then filled up with its
    last frame.

    Args:
        frames: lengths T, one of which is drawn for each batch.
        rates: frames per second, one of which is drawn for each clip; of a pair [low, high] a rate between, evenly in
            the logarithm. At most the file's own; None: its own.
        transform: of every clip.

    Raises:
        ConfigError: no lengths, lengths below 1 or rates that are not above 0 and rising.
    """

    plural = "clips"
    suffixes: tuple[str, ...] = SUFFIXES

    def __init__(self, frames: Sequence[int], rates: Sequence[Rate] | None, transform: Transform) -> None:
        if not frames or min(frames) < 1:
            raise ConfigError(f"data: frames must be lengths of at least 1, got {list(frames)}")
        if rates is not None and not rates:
            raise ConfigError("data: rates must hold at least one, or be null for that of each file")
        self.frames, self.transform = frames, transform
        self.rates = None if rates is None else [checked(rate) for rate in rates]

    def of_batch(self, random: Generator) -> "TrainingVideo":
        """See Media: one length."""
        chosen = copy(self)
        chosen.frames = (self.frames[integer(len(self.frames), random)],)
        return chosen

    def __call__(self, source: Path | bytes, random: Generator) -> Tensor:
        length = self.frames[0]
        with opened(source) as file:
            own = float(file.picture.rate)
            there = 1 if file.duration is None else max(1, round(float(file.duration) * own))
            wanted = own if self.rates is None else drawn(self.rates, random)
            step = max(1.0, min(own / wanted, (there - 1) / max(1, length - 1)))
            places = grid(length, step)
            start = integer(max(1, there - places[-1]), random)
            try:
                x = taken(file, [start + place for place in places])
                if not len(x) and start:  # it is shorter than its header says
                    x = taken(file, places)
            except InputError as error:
                raise Damaged(str(error)) from None
        return self.transform(filled(clip(x), length), random)


class ValidationVideo(Media):
    """The beginning of a file, uint8 (3, T, H, W).

    Args:
        frames: at most so many.
        rate: frames per second, at most the file's own; None: its own.
        transform: of every clip.

    Raises:
        ConfigError: fewer frames than 1, or a rate that is not above 0.
    """

    plural = "clips"
    suffixes: tuple[str, ...] = SUFFIXES

    def __init__(self, frames: int, rate: float | None, transform: Transform) -> None:
        if frames < 1:
            raise ConfigError(f"data: val_frames must be at least 1, got {frames}")
        self.frames, self.transform = frames, transform
        self.rate = None if rate is None else checked(rate)[0]

    def __call__(self, source: Path | bytes, random: Generator) -> Tensor:
        with opened(source) as file:
            step = 1.0 if self.rate is None else max(1.0, float(file.picture.rate) / self.rate)
            return self.transform(clip(taken(file, grid(self.frames, step))), random)


def checked(rate: Rate) -> tuple[float, float]:
    """The least and the most that a rate may be. Raises ConfigError."""
    low, high = (rate, rate) if isinstance(rate, int | float) else rate
    if not 0 < low <= high:
        raise ConfigError(f"data: a rate must be above 0, a pair of them rising, got {rate}")
    return low, high


def drawn(rates: Sequence[tuple[float, float]], random: Generator) -> float:
    """A rate out of one of the ranges."""
    low, high = rates[integer(len(rates), random)]
    return exp(uniform(log(low), log(high), random))


def grid(length: int, step: float) -> list[int]:
    """Frames 0, step, 2 step, ... rounded down, as what is shown at a time began before it."""
    return [int(k * step + 1e-6) for k in range(length)]


def taken(file: Source, places: Sequence[int]) -> NDArray[np.uint8]:
    """The frames at rising places of an open file, (t, H, W, 3); fewer where it ends before."""
    found: list[NDArray[np.uint8]] = []
    for place in places:
        file.seek(place)
        frame = file.read(1)  # (1 or 0, H, W, 3)
        if not len(frame):
            break
        found.append(frame)
    return np.concatenate(found) if found else np.zeros((0, 1, 1, 3), np.uint8)


def clip(x: NDArray[np.uint8]) -> Tensor:
    """Frames (t, H, W, 3) as a clip (3, t, H, W). Raises InputError when there are none."""
    if not len(x):
        raise InputError("no frames can be read")
    return torch.from_numpy(x).permute(3, 0, 1, 2)  # (3, t, H, W)


def filled(x: Tensor, length: int) -> Tensor:
    """A clip (3, t, H, W) with its last frame repeated up to `length` frames."""
    return x if x.shape[1] == length else x[:, torch.arange(length).clamp(max=x.shape[1] - 1)]
