"""Loudness as people hear it."""

from math import pi, tan

import torch
from torch import Tensor
from torch.nn import functional as F

SILENT = -70.0  # LUFS; blocks below do not count, and clips without a louder one get it
BLOCK, STEP = 0.4, 0.1  # seconds


def loudness(x: Tensor, sample_rate: int) -> Tensor:
    """Integrated, gated loudness in LUFS, x (B, C, T) in [-1, 1] to float32 (B,); at least -70.

    A clip below 0.4 s is one block. All channels weigh the same.

    Source: ITU-R BS.1770-4, filters for any rate as derived by Mansbridge, Finn, Reiss 2012.
    Differs: the filters work on the spectrum, padded by half a second, which is exact to rounding.
    """
    weighted = _weighted(x.float(), sample_rate)
    size, step = min(round(BLOCK * sample_rate), x.shape[2]), round(STEP * sample_rate)
    power = weighted.square().unfold(2, size, step).mean(3).sum(1)  # (B, blocks)
    heard = _level(power) > SILENT
    relative = _level(_mean(power, heard)) - 10
    return _level(_mean(power, heard & (_level(power) > relative[:, None]))).clamp_min(SILENT)


def _mean(power: Tensor, where: Tensor) -> Tensor:
    return (power * where).sum(1) / where.sum(1).clamp_min(1)


def _level(power: Tensor) -> Tensor:
    return -0.691 + 10 * power.clamp_min(1e-20).log10()


def _weighted(x: Tensor, rate: int) -> Tensor:
    """x (B, C, T) through the K-weighting."""
    length = 1 << (x.shape[2] + rate // 2 - 1).bit_length()
    z = torch.exp(-2j * pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length)  # (F,), one sample's delay
    shelf, high = _shelf(rate), _highpass(rate)
    response = _polynomial(shelf[0], z) / _polynomial(shelf[1], z) * _polynomial(high[0], z) / _polynomial(high[1], z)
    spectrum = torch.fft.rfft(F.pad(x, (0, length - x.shape[2]))) * response.to(x.device, torch.complex64)
    return torch.fft.irfft(spectrum, length)[..., : x.shape[2]]


Coefficients = tuple[float, float, float]


def _polynomial(c: Coefficients, z: Tensor) -> Tensor:
    return c[0] + c[1] * z + c[2] * z * z


def _shelf(rate: int) -> tuple[Coefficients, Coefficients]:
    """High shelf, numerator and denominator."""
    k, q, gain = tan(pi * 1681.974450955533 / rate), 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = gain**0.4996667741545416
    top = (gain + middle * k / q + k * k, 2 * (k * k - gain), gain - middle * k / q + k * k)
    return top, (1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k)


def _highpass(rate: int) -> tuple[Coefficients, Coefficients]:
    k, q = tan(pi * 38.13547087602444 / rate), 0.5003270373238773
    a0 = 1 + k / q + k * k
    return (1.0, -2.0, 1.0), (1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0)
