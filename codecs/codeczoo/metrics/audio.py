"""Distances of audio, x and x_hat (B, C, T) in [-1, 1]; one value per clip, average them over clips yourself.

`rate` is the sampling rate, Hz. `lengths` int64 (B,) says how many samples of each clip count, where the rest is
padding: each clip gets the value that it gets by itself. NaN stands for a clip that a measure has no value for.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import InputError, MissingError
from codeczoo.io.resample import resample
from codeczoo.nn.spectrogram import MelSpectrogram, Spectrogram, mel_spectrograms, spectrograms

WINDOWS, MELS = (32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320)
SUPERB_WINDOWS, SUPERB_MELS = (2048, 512), (150, 80)
FLOOR = 1e-5  # least magnitude that a logarithm sees
CAP = 100.0  # dB; what an equal clip gets instead of infinity
SPEECH_RATE, STOI_RATE = 16_000, 10_000  # Hz
WORST_PESQ = 1.0
SHORTEST = 0.4  # seconds; STOI compares pieces of 384 ms


def mel_distance(x: Tensor, x_hat: Tensor, rate: int, lengths: Tensor | None = None) -> Tensor:
    """Multi-scale log-mel L1: the sum over seven windows (32 to 2048) of mean |log10 S_hat - log10 S|, to float32 (B,).

    Source: DAC, whose papers and followers report it as mel distance. Raises InputError for shapes that differ.
    """
    mels = mel_spectrograms(rate, WINDOWS, MELS, scale="slaney", unit_area=True)
    return _each(lambda a, b: _spectral(a, b, mels, power=1, linear=0), x, x_hat, lengths)


def superb_mel_distance(x: Tensor, x_hat: Tensor, rate: int, lengths: Tensor | None = None) -> Tensor:
    """The "mel" of Codec-SUPERB: two windows, mean |log10 S_hat^2 - log10 S^2| + mean |S_hat - S|, to float32 (B,)."""
    mels = mel_spectrograms(rate, SUPERB_WINDOWS, SUPERB_MELS, scale="slaney", unit_area=True)
    return _each(lambda a, b: _spectral(a, b, mels, power=2, linear=1), x, x_hat, lengths)


def stft_distance(x: Tensor, x_hat: Tensor, lengths: Tensor | None = None) -> Tensor:
    """As `superb_mel_distance`, of the spectra themselves, to float32 (B,). Source: DAC's and Codec-SUPERB's "stft"."""
    kinds = spectrograms(SUPERB_WINDOWS)
    return _each(lambda a, b: _spectral(a, b, kinds, power=2, linear=1), x, x_hat, lengths)


def si_sdr(x: Tensor, x_hat: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, at most 100, mean over the channels, to float32 (B,).

    NaN for a silent x, which has none. Source: Le Roux et al. 2019; means are taken out first.
    """
    return _each(_si_sdr, x, x_hat, lengths)


def pesq(x: Tensor, x_hat: Tensor, rate: int, lengths: Tensor | None = None) -> Tensor:
    """Wide-band PESQ (ITU-T P.862.2, MOS-LQO 1..4.64) at 16 kHz, of the mean of the channels, to float32 (B,).

    NaN where it finds no utterance in x, or the clip is too short; 1 where x has one and x_hat none. Differs:
    Codec-SUPERB counts all of these as 1.
    Raises MissingError without the package pesq.
    """
    try:
        from pesq import PesqError
        from pesq import pesq as measure
    except ImportError:
        raise MissingError('PESQ wants the package pesq: pip install "codeczoo[eval]"') from None

    def one(a: np.ndarray, b: np.ndarray) -> float:
        with suppress(PesqError, ValueError):
            return float(measure(SPEECH_RATE, a, b, "wb"))
        with suppress(PesqError, ValueError):
            measure(SPEECH_RATE, a, a, "wb")
            return WORST_PESQ  # it is not x that has no utterance
        return float("nan")

    return _each(lambda a, b: _speech(one, a, b, rate, SPEECH_RATE), x, x_hat, lengths)


def stoi(x: Tensor, x_hat: Tensor, rate: int, lengths: Tensor | None = None) -> Tensor:
    """Short-time objective intelligibility, at most 1, of the mean of the channels, to float32 (B,).

    NaN where less than 0.4 s of the clip is not silence. Source: Taal et al. 2011, package pystoi at 10 kHz.
    Raises MissingError without it.
    """
    try:
        from pystoi import stoi as measure
    except ImportError:
        raise MissingError('STOI wants the package pystoi: pip install "codeczoo[eval]"') from None

    def one(a: np.ndarray, b: np.ndarray) -> float:
        if len(a) < SHORTEST * STOI_RATE or not a.any():
            return float("nan")
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # it warns and gives 1e-5 where too little is left
            try:
                return float(measure(a, b, STOI_RATE))
            except RuntimeWarning:
                return float("nan")

    return _each(lambda a, b: _speech(one, a, b, rate, STOI_RATE), x, x_hat, lengths)


def _each(measure: Callable[[Tensor, Tensor], Tensor], x: Tensor, x_hat: Tensor, lengths: Tensor | None) -> Tensor:
    """The measure of a batch, clip by clip where lengths differ."""
    if x.shape != x_hat.shape or x.ndim != 3 or not x.shape[2]:
        raise InputError(f"clips to compare are (B, C, T) of one shape, got {tuple(x.shape)} and {tuple(x_hat.shape)}")
    x, x_hat = x.float(), x_hat.float()
    if lengths is None:
        return measure(x, x_hat)
    pairs = zip(x.split(1), x_hat.split(1), lengths.tolist(), strict=True)
    return torch.cat([measure(a[..., :n], b[..., :n]) for a, b, n in pairs])


def _spectral(
    x: Tensor, x_hat: Tensor, kinds: Sequence[Spectrogram | MelSpectrogram], power: float, linear: float
) -> Tensor:
    short = max(kind.n_fft for kind in kinds) - x.shape[2]
    if short > 0:
        x, x_hat = F.pad(x, (0, short)), F.pad(x_hat, (0, short))
    total = x.new_zeros(len(x))
    for kind in kinds:
        a, b = kind(x), kind(x_hat)  # (B, C, F, frames)
        total = total + linear * (a - b).abs().flatten(1).mean(1)
        total = total + power * (a.clamp_min(FLOOR).log10() - b.clamp_min(FLOOR).log10()).abs().flatten(1).mean(1)
    return total


def _si_sdr(x: Tensor, x_hat: Tensor) -> Tensor:
    x, x_hat = (side.double() - side.double().mean(2, keepdim=True) for side in (x, x_hat))
    power = x.square().sum(2)  # (B, C)
    wanted = ((x * x_hat).sum(2) / power.clamp_min(1e-12))[..., None] * x
    ratio = wanted.square().sum(2) / (x_hat - wanted).square().sum(2).clamp_min(1e-12)
    level = (10 * ratio.clamp_min(10 ** (-CAP / 10)).log10()).clamp_max(CAP)
    return torch.where(power > 1e-10, level, torch.nan).mean(1).float()


def _speech(
    measure: Callable[[np.ndarray, np.ndarray], float], x: Tensor, x_hat: Tensor, old: int, new: int
) -> Tensor:
    sides = [resample(side.mean(1).cpu(), old, new).double().numpy() for side in (x, x_hat)]  # (B, T') each
    return torch.tensor([measure(a, b) for a, b in zip(*sides, strict=True)], device=x.device)


class Measure(Protocol):
    """Any of the above, to float32 (B,)."""

    def __call__(self, x: Tensor, x_hat: Tensor, rate: int, lengths: Tensor | None = None) -> Tensor: ...


def _at_any_rate(measure: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Measure:
    def of(x: Tensor, x_hat: Tensor, rate: int, lengths: Tensor | None = None) -> Tensor:
        return measure(x, x_hat, lengths)

    return of


MEASURES: dict[str, Measure] = {
    "mel": mel_distance,
    "superb_mel": superb_mel_distance,
    "stft": _at_any_rate(stft_distance),
    "si_sdr": _at_any_rate(si_sdr),
    "pesq": pesq,
    "stoi": stoi,
}
