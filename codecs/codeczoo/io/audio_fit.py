"""Recordings of any rate and number of channels to what a codec takes, and back, piece by piece."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import FormatError, InputError
from codeczoo.io.resample import Resampler

MAX_RATE, MAX_CHANNELS = 2**24, 1024


@dataclass(frozen=True)
class AudioFit:
    """What a recording was before the codec; plain values, kept in the token file.

    Args:
        rate: Hz.
        channels: C.
        frames: T, of each channel.
        gain: what a decoded signal is multiplied by, where loudness was taken out before the codec.
    """

    rate: int
    channels: int
    frames: int
    gain: float = 1.0

    def __post_init__(self) -> None:
        whole = all(type(n) is int for n in (self.rate, self.channels, self.frames))
        if not whole or not (1 <= self.rate <= MAX_RATE and 1 <= self.channels <= MAX_CHANNELS and self.frames >= 1):
            limits = f"1..{MAX_RATE} Hz, 1..{MAX_CHANNELS} channels, at least 1 frame"
            raise InputError(f"a recording has {limits}; got {self.rate}, {self.channels}, {self.frames}")
        if type(self.gain) not in (int, float) or not (isfinite(self.gain) and self.gain > 0):
            raise InputError(f"a gain must be a positive number, got {self.gain!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON header; `from_dict` is the inverse."""
        values = asdict(self)
        return values if self.gain != 1.0 else {key: value for key, value in values.items() if key != "gain"}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "AudioFit":
        """Raises FormatError when `values` is not what `to_dict` made."""
        try:
            return AudioFit(values["rate"], values["channels"], values["frames"], values.get("gain", 1.0))
        except (TypeError, KeyError, AttributeError, InputError) as error:
            raise FormatError(f"not an AudioFit: {error}") from None


def split_channels(x: Tensor, channels: int) -> Tensor:
    """A recording (C, T) as signals of a codec's channels, (B, channels, T).

    Channels go to the signals in order, so a mono codec gets each by itself; where some are missing in the last signal,
    the last channel is repeated, so a stereo codec gets mono twice.
    """
    signals = -(-x.shape[0] // channels)
    repeated = x[-1:].expand(signals * channels - x.shape[0], -1)
    return torch.cat([x, repeated]).view(signals, channels, x.shape[1])


def join_channels(x: Tensor, channels: int) -> Tensor:
    """The inverse of `split_channels`, (B, c, T) to (channels, T): repeated channels become their mean.

    Raises InputError when there are too few or far too many.
    """
    flat = x.flatten(0, 1)  # (B * c, T)
    if not channels <= len(flat) < channels + x.shape[1]:
        raise InputError(f"{len(flat)} decoded channels do not make a recording of {channels}")
    return torch.cat([flat[: channels - 1], flat[channels - 1 :].mean(0, keepdim=True)])


def restored(pieces: Iterable[Tensor], rate: int, fit: AudioFit | None) -> Iterator[Tensor]:
    """Decoded signals, piece by piece, as the recording: its channels, rate, gain and exact length.

    Args:
        pieces: (B, c, t) each, at the codec's rate.
        rate: of the codec, Hz.
        fit: what the recording was; None: the signals stay as they are, all their channels side by side.

    Yields:
        (C, t) each; as long in all as the recording was.
    """
    if fit is None:
        yield from (piece.flatten(0, 1) for piece in pieces)
        return
    resampler, left = Resampler(rate, fit.rate, fit.channels), fit.frames
    for piece in pieces:
        x = resampler.step(join_channels(piece.float().cpu(), fit.channels))[:, :left]
        left -= x.shape[1]
        yield x * fit.gain
    x = resampler.step(torch.zeros(fit.channels, 0), last=True)[:, :left]
    yield F.pad(x * fit.gain, (0, left - x.shape[1]))
