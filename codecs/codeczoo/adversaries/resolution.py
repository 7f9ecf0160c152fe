"""DAC's discriminators of complex spectra, band by band."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from codeczoo.adversaries.multi import AudioDiscriminator, Judged
from codeczoo.nn.conv2d import Conv2d
from codeczoo.nn.spectrogram import STFT, Padding

BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # edges, as shares of the spectrum
SLOPE = 0.1  # of every LeakyReLU


class BandDiscriminator(AudioDiscriminator):
    """Cuts an STFT into five bands, each with convolutions of its own, and judges them side by side.

    Source: DAC (arXiv 2306.06546) "MRD"; Vocos and WavTokenizer ("center" frames, skip 1).

    Args:
        n_fft: samples of a window; hops are a quarter of it.
        width: channels of every layer.
        skip: first layers of each band whose activations are no features; 1 in Vocos, 0 in DAC.
        padding: of the STFT; "same" in DAC, "center" in Vocos.
        channels: of the audio.
    """

    def __init__(
        self, n_fft: int, width: int = 32, skip: int = 0, padding: Padding = "same", channels: int = 1
    ) -> None:
        super().__init__(channels)
        self.stft, self.skip = STFT(n_fft, n_fft // 4, padding), skip
        edges = [int(share * (n_fft // 2 + 1)) for share in BANDS]
        self.band_sizes = [high - low for low, high in pairwise(edges)]
        self.bands = nn.ModuleList(
            nn.ModuleList([
                weight_norm(Conv2d(2 * channels, width, (3, 9), padding=(1, 4))),
                *(weight_norm(Conv2d(width, width, (3, 9), stride=(1, 2), padding=(1, 4))) for _ in range(3)),
                weight_norm(Conv2d(width, width, 3, padding=1)),
            ])
            for _ in self.band_sizes
        )
        self.to_logits = weight_norm(Conv2d(width, 1, 3, padding=1))

    def judge(self, x: Tensor) -> Judged:
        """x (B, C, T) to logits (B, 1, frames, about F / 8) and the features of every band's layers."""
        spectrum = self.stft.transform(x)  # (B, C, F, frames)
        parts = torch.cat([spectrum.real, spectrum.imag], 1).transpose(2, 3)  # (B, 2 C, frames, F)
        features: list[Tensor] = []
        judged = []
        for h, layers in zip(parts.split(self.band_sizes, 3), self.bands, strict=True):
            seen = []
            for layer in layers:  # type: ignore[attr-defined]
                h = F.leaky_relu(layer(h), SLOPE)
                seen.append(h)
            features += seen[self.skip :]
            judged.append(h)
        return self.to_logits(torch.cat(judged, 3)), features


def multi_resolution(
    n_ffts: Sequence[int], width: int = 32, skip: int = 0, padding: Padding = "same", channels: int = 1
) -> list[AudioDiscriminator]:
    """One BandDiscriminator for each window length."""
    return [BandDiscriminator(n, width, skip, padding, channels) for n in n_ffts]
