"""A waveform as short-time spectra, compressed so that quiet parts count too: the first layer of a codec.

Ours. Compressed complex spectra are usual in speech enhancement (arXiv 1811.08521, exponent 0.3).
"""

from math import sqrt

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.nn.conv1d import Conv1d, Padding

POWER = 0.3  # magnitudes are compressed to this power
FLOOR = 1e-5  # least magnitude; that of white noise of variance 1 is about 1
LOG_SCALE = 0.3  # brings logarithms to the size of the rest


class Spectra(Conv1d):
    """Hann windows to spectra: (B, 1, T) to float32 (B, 3 F, ceil(T / hop)), F = n_fft / 2 + 1.

    Channels are real part, imaginary part (both divided by magnitude^0.7) and logarithm of the magnitude of each
    frequency. Window t is that around samples t * hop .. (t + 1) * hop, so it sees (n_fft - hop) / 2 samples ahead.

    Args:
        n_fft: samples of a window.
        hop: samples from one window to the next; n_fft - hop must be even.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        if n_fft % 2 or (n_fft - hop) % 2 or not 1 <= hop <= n_fft:
            raise ConfigError(f"Spectra: n_fft and hop must be even, hop at most n_fft, got {n_fft} and {hop}")
        side = (n_fft - hop) // 2
        super().__init__(1, 3 * (n_fft // 2 + 1), n_fft, hop, padding=Padding(side, side, whole=True), bias=False)

    def make_weight(self, start: Tensor) -> None:
        """Nothing is learned."""

    def fast(self, x: Tensor) -> bool:
        """See Conv1d: it has no weights."""
        return False

    def convolve(self, x: Tensor) -> Tensor:
        """See Conv1d."""
        n = self.kernel
        if x.shape[2] < n:
            return x.new_zeros(len(x), self.outputs, 0)
        windows = x[:, 0].float().unfold(1, n, self.stride) * torch.hann_window(n, device=x.device)  # (B, frames, n)
        spectra = torch.fft.rfft(windows) / sqrt(n / 2)  # (B, frames, F)
        size = spectra.abs().clamp(min=FLOOR)
        parts = torch.view_as_real(spectra / size.pow(1 - POWER)).movedim(-1, -2).flatten(2)  # (B, frames, 2 F)
        return torch.cat([parts, LOG_SCALE * size.log()], -1).mT

