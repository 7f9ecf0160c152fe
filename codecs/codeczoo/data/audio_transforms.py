"""What happens to a clip between the file and the batch. Float (C, T) in and out; randomness only from the generator.

They are Transforms too: `transforms.Chain` joins them. Clips that end up beyond [-1, 1] are turned down to it by
`clips`. Levels in dB below full scale.
"""

from math import pi

import torch
from torch import Generator, Tensor

from codeczoo.core.errors import InputError
from codeczoo.data.sampling import uniform
from codeczoo.metrics.loudness import SILENT, loudness

FAINT = 1e-5  # clips that are weaker are silence, whose level is left alone


class PeakLevel:
    """The largest sample to `peak`, in (0, 1]."""

    def __init__(self, peak: float = 0.95) -> None:
        if not 0 < peak <= 1:
            raise InputError(f"PeakLevel wants peak in (0, 1], got {peak}")
        self.peak = peak

    def __call__(self, x: Tensor, random: Generator) -> Tensor:
        now = float(x.abs().max())
        return x * (self.peak / now) if now > FAINT else x


class RMSLevel:
    """The root mean square to `level` dB."""

    def __init__(self, level: float = -20.0) -> None:
        self.level = level

    def __call__(self, x: Tensor, random: Generator) -> Tensor:
        now = float(x.square().mean().sqrt())
        return x * (10 ** (self.level / 20) / now) if now > FAINT else x


class Loudness:
    """The loudness to `level` LUFS, at the codec's `sample_rate`.

    Source: DAC trains at -16 LUFS.
    """

    def __init__(self, sample_rate: int, level: float = -16.0) -> None:
        self.sample_rate, self.level = sample_rate, level

    def __call__(self, x: Tensor, random: Generator) -> Tensor:
        now = float(loudness(x[None], self.sample_rate))
        return x * 10 ** ((self.level - now) / 20) if now > SILENT else x


class RandomGain:
    """Louder or softer by `low` to `high` dB. Source: EnCodec, -10 to 6 dB."""

    def __init__(self, low: float = -10.0, high: float = 6.0) -> None:
        if low > high:
            raise InputError(f"RandomGain wants low <= high, got {low} and {high}")
        self.low, self.high = low, high

    def __call__(self, x: Tensor, random: Generator) -> Tensor:
        return x * 10 ** (uniform(self.low, self.high, random) / 20)


class Polarity:
    """Turned upside down with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise InputError(f"Polarity wants p in 0..1, got {p}")
        self.p = p

    def __call__(self, x: Tensor, random: Generator) -> Tensor:
        return -x if uniform(0, 1, random) < self.p else x


class PhaseShift:
    """All frequencies turned by one angle, drawn from -`most` to `most` radians; it sounds the same.

    Source: DAC. Differs: on the spectrum of the whole clip, not frame by frame.
    """

    def __init__(self, most: float = pi) -> None:
        self.most = most

    def __call__(self, x: Tensor, random: Generator) -> Tensor:
        turn = torch.exp(1j * torch.tensor(uniform(-self.most, self.most, random)))
        return torch.fft.irfft(torch.fft.rfft(x) * turn, x.shape[1])
