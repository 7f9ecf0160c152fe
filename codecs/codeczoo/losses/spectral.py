"""Distances of spectra: what most audio codecs are reconstructed by. The spectra are `nn.spectrogram`'s."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.losses.base import MediaTerm
from codeczoo.nn.spectrogram import STFT, Spectrogram


class Spectral(MediaTerm):
    """A term that compares spectra.

    Args:
        spectra: of which kinds, one or several; every channel on its own.
    """

    def __init__(self, spectra: Sequence[Spectrogram]) -> None:
        super().__init__()
        if not spectra:
            raise ConfigError(f"{type(self).__name__}: no spectra")
        self.spectra = list(spectra)

    def pairs(self, x: Tensor, x_hat: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Spectra (B, C, F, frames) of x and x_hat, one kind after the other."""
        for spectrum in self.spectra:
            with torch.no_grad():
                wanted = spectrum(x)
            yield wanted, spectrum(x_hat)


class SpectralL1(Spectral):
    """Sum over the spectra S of mean |log S_hat - log S|, and optionally of mean |S_hat - S|; S at least `floor`.

    Sources: DAC (mel, base 10, floor 1e-5), Vocos and WavTokenizer (one mel, natural logarithm, 1e-7), SpeechTokenizer
    (four terms of one mel, natural, 1e-5); DAC's multi-scale STFT loss (logarithm of the squares: log 2, linear 1).

    Args:
        spectra: see Spectral.
        floor: least magnitude that the logarithm sees.
        base: of the logarithm.
        log: factor of the logarithmic part.
        linear: factor of the linear part.
    """

    def __init__(
        self, spectra: Sequence[Spectrogram], floor: float = 1e-5, base: float = 10.0, log: float = 1.0,
        linear: float = 0.0,
    ) -> None:
        super().__init__(spectra)
        self.floor, self.base, self.log, self.linear = floor, base, log, linear

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, C, T) to a scalar."""
        total = x.new_zeros(())
        factor = self.log / math.log(self.base)
        for wanted, found in self.pairs(x, x_hat):
            total = total + factor * F.l1_loss(found.clamp(min=self.floor).log(), wanted.clamp(min=self.floor).log())
            if self.linear:
                total = total + self.linear * F.l1_loss(found, wanted)
        return total


class SpectralL1L2(Spectral):
    """Mean over the spectra S of half of mean |S_hat - S| + mean (log10(floor + S_hat) - log10(floor + S))^2.

    Source: EnCodec's reconstruction loss as AudioCraft trains it ("msspec" with normalized spectra and no alphas).

    Args:
        spectra: see Spectral.
        floor: added before the logarithm.
    """

    def __init__(self, spectra: Sequence[Spectrogram], floor: float = 1e-5) -> None:
        super().__init__(spectra)
        self.floor = floor

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, C, T) to a scalar."""
        total = x.new_zeros(())
        for wanted, found in self.pairs(x, x_hat):
            logs = (found + self.floor).log10(), (wanted + self.floor).log10()
            total = total + F.l1_loss(found, wanted) + F.mse_loss(*logs)
        return total / (2 * len(self.spectra))


class ComplexL1(MediaTerm):
    """Sum over the transforms of mean |S_hat' - S'|, S' = S m^(power - 1) with the magnitudes m of the complex S.

    The only term here that sees phases. The smaller the power, the more quiet frequencies count.
    Source: compressed spectra of speech enhancement (arXiv 1811.08521), there squared and with power 0.3.

    Args:
        transforms: one or several.
        power: that magnitudes are raised to, above 0, at most 1.
        floor: least magnitude that is compressed as above; white noise of variance 1 has about 1.
    """

    def __init__(self, transforms: Sequence[STFT], power: float = 0.5, floor: float = 1e-3) -> None:
        super().__init__()
        if not transforms or not 0 < power <= 1:
            raise ConfigError(f"ComplexL1: transforms, and 0 < power <= 1, got {len(transforms)} and {power}")
        self.transforms, self.power, self.floor = list(transforms), power, floor

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, C, T) to a scalar."""
        total = x.new_zeros(())
        for stft in self.transforms:
            with torch.no_grad():
                wanted = self._compressed(stft, x)
            total = total + size(self._compressed(stft, x_hat) - wanted, self.floor).mean() - self.floor
        return total

    def _compressed(self, stft: STFT, x: Tensor) -> Tensor:
        spectra = stft.transform(x) / stft.n_fft**0.5
        return spectra * size(spectra, self.floor).pow(self.power - 1)


def size(z: Tensor, floor: float) -> Tensor:
    """sqrt(|z|^2 + floor^2) of complex z, whose slope is finite everywhere."""
    return (z.real.square() + z.imag.square() + floor**2).sqrt()
