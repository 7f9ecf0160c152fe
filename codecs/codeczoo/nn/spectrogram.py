"""Spectra of audio in plain torch: short-time Fourier transform, magnitudes, mel bands. Always float32."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError, InputError

Padding = Literal["center", "same", "none"]
MelScale = Literal["htk", "slaney"]


@dataclass(frozen=True)
class STFT:
    """Short-time Fourier transform under a periodic Hann window as long as the transform.

    Args:
        n_fft: samples of a window, even.
        hop: samples from one window to the next.
        padding: "center" mirrors n_fft / 2 samples at both ends, T // hop + 1 frames; "same" mirrors (n_fft - hop) / 2
            and fills the last hop, ceil(T / hop) frames; "none" gives (T - n_fft) // hop + 1 frames.
        unit_window: divide by the window's Euclidean norm.
    """

    n_fft: int
    hop: int
    padding: Padding = "center"
    unit_window: bool = False

    def transform(self, x: Tensor) -> Tensor:
        """x (B, C, T) to complex64 (B, C, n_fft / 2 + 1, frames). Raises InputError for a clip that is too short."""
        x = self._padded(x.float())
        window = hann(self.n_fft, x.device)
        with torch.autocast(x.device.type, enabled=False):
            found = torch.stft(  # (B C, T) -> (B C, F, frames)
                x.flatten(0, 1), self.n_fft, self.hop, window=window, center=False, return_complex=True
            )
        if self.unit_window:
            found = found / window.norm()
        return found.unflatten(0, x.shape[:2])  # (B, C, F, frames)

    def _padded(self, x: Tensor) -> Tensor:
        if self.padding not in ("center", "same", "none"):
            raise ConfigError(f"STFT: padding must be center, same or none, got {self.padding!r}")
        length = x.shape[-1]
        side = {"center": self.n_fft // 2, "same": (self.n_fft - self.hop) // 2, "none": 0}[self.padding]
        rest = -length % self.hop if self.padding == "same" else 0
        least = max(side + rest + 1, self.n_fft - 2 * side - rest)
        if x.ndim != 3 or length < least:
            wanted = f"(B, C, T) with T at least {least}"
            raise InputError(f"a spectrum of {self.n_fft}-sample windows takes {wanted}, got {tuple(x.shape)}")
        return F.pad(x, (side, side + rest), mode="reflect") if side + rest else x


@dataclass(frozen=True)
class Spectrogram(STFT):
    """Magnitudes of the STFT.

    Args:
        power: 1 for magnitudes, 2 for their squares.
    """

    power: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, C, T) to float32 (B, C, n_fft / 2 + 1, frames)."""
        magnitude = self.transform(x).abs()
        return magnitude if self.power == 1 else magnitude.pow(self.power)


@dataclass(frozen=True, kw_only=True)
class MelSpectrogram(Spectrogram):
    """Magnitudes in mel bands.

    Args:
        sample_rate: of the audio, Hz.
        n_mels: bands. Bands narrower than the distance of two Fourier bins may be empty, as in other libraries.
        f_min: lower edge of the first band, Hz.
        f_max: upper edge of the last one, Hz; None: half the sample rate.
        scale: "htk" 2595 log10(1 + f / 700); "slaney" linear to 1 kHz, logarithmic above, as librosa's default.
        unit_area: divide each band by its width in Hz (twice, as Slaney does), so that wide bands are not louder.
    """

    sample_rate: int
    n_mels: int
    f_min: float = 0.0
    f_max: float | None = None
    scale: MelScale = "htk"
    unit_area: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, C, T) to float32 (B, C, n_mels, frames)."""
        with torch.autocast(x.device.type, enabled=False):
            return filters_of(self, x.device) @ super().__call__(x)


def spectrograms(windows: Sequence[int], padding: Padding = "center", power: float = 1.0) -> list[Spectrogram]:
    """A spectrogram for each window length, at hops of a quarter of it."""
    return [Spectrogram(n, n // 4, padding, power=power) for n in windows]


def mel_spectrograms(
    sample_rate: int,
    windows: Sequence[int],
    mels: Sequence[int],
    padding: Padding = "center",
    unit_window: bool = False,
    power: float = 1.0,
    f_min: float = 0.0,
    scale: MelScale = "htk",
    unit_area: bool = False,
) -> list[MelSpectrogram]:
    """A mel spectrogram for each window length, at hops of a quarter of it; `mels` is the bands of each."""
    if len(windows) != len(mels):
        raise ConfigError(f"mel_spectrograms: {len(windows)} windows but {len(mels)} numbers of mels")
    return [
        MelSpectrogram(
            n, n // 4, padding, unit_window, power, sample_rate=sample_rate, n_mels=m, f_min=f_min, scale=scale,
            unit_area=unit_area,
        )
        for n, m in zip(windows, mels, strict=True)
    ]


# --- tables, made once for each device -------------------------------------------------------------------------------


@cache
def hann(n: int, device: torch.device) -> Tensor:
    """Periodic Hann window, float32 (n,)."""
    with torch.inference_mode(False):  # losses must be able to differentiate with it later
        return torch.hann_window(n, device=device)


@cache
def filters_of(mel: MelSpectrogram, device: torch.device) -> Tensor:
    """The bands of a mel spectrogram, float32 (n_mels, n_fft / 2 + 1)."""
    top = mel.sample_rate / 2 if mel.f_max is None else mel.f_max
    with torch.inference_mode(False):
        filters = mel_filters(mel.n_mels, mel.n_fft // 2 + 1, mel.sample_rate, mel.f_min, top, mel.scale)
        if mel.unit_area:
            edges = mel_edges(mel.n_mels, mel.f_min, top, mel.scale)
            filters = filters * (2 / (edges[2:] - edges[:-2]))[:, None]
        return filters.to(device, torch.float32)


def mel_filters(n_mels: int, bins: int, sample_rate: int, f_min: float, f_max: float, scale: MelScale) -> Tensor:
    """Triangles of height 1 that begin and end at the peaks of their neighbours, float64 (n_mels, bins)."""
    frequency = torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64)  # (F,)
    low, peak, high = mel_edges(n_mels, f_min, f_max, scale).unfold(0, 3, 1).T[..., None]  # (M, 1) each
    rising, falling = (frequency - low) / (peak - low), (high - frequency) / (high - peak)
    return torch.minimum(rising, falling).clamp(min=0)


def mel_edges(n_mels: int, f_min: float, f_max: float, scale: MelScale) -> Tensor:
    """Hz of the n_mels + 2 points where triangles begin, peak and end, evenly spaced in mel, float64. ConfigError."""
    if scale not in SCALES:
        raise ConfigError(f"mel scale must be {' or '.join(SCALES)}, got {scale!r}")
    if not 0 <= f_min < f_max:
        raise ConfigError(f"mel bands need 0 <= f_min < f_max, got {f_min} and {f_max}")
    to_mel, to_hertz = SCALES[scale]
    return to_hertz(torch.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2, dtype=torch.float64))


KNEE, STEP = 15.0, math.log(6.4) / 27  # Slaney: 1 kHz is 15 mel; above it each mel is 6.4^(1/27) times the last


def _htk_hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else KNEE + math.log(hertz / 1000) / STEP


def _slaney_hertz(mel: Tensor) -> Tensor:
    return torch.where(mel < KNEE, mel * 200 / 3, 1000 * torch.exp((mel - KNEE) * STEP))


SCALES = {
    "htk": (lambda hertz: 2595 * math.log10(1 + hertz / 700), _htk_hertz),
    "slaney": (_slaney_mel, _slaney_hertz),
}
