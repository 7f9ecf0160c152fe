"""EnCodec's discriminators of complex spectra."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from codeczoo.adversaries.multi import AudioDiscriminator, Judged
from codeczoo.nn.conv2d import Conv2d
from codeczoo.nn.spectrogram import STFT

DILATIONS = (1, 2, 4)  # in time


class STFTDiscriminator(AudioDiscriminator):
    """Convolutions over time and frequency of the real and imaginary parts of an STFT.

    Source: EnCodec (arXiv 2210.13438) appendix A.1, encodec/msstftd.py; AudioCraft.

    Args:
        n_fft: samples of a window; hops are a quarter of it.
        width: channels of every layer.
        slope: of the LeakyReLUs; 0.2 in EnCodec, 0.3 in AudioCraft.
        channels: of the audio.
    """

    def __init__(self, n_fft: int, width: int = 32, slope: float = 0.2, channels: int = 1) -> None:
        super().__init__(channels)
        self.stft, self.slope = STFT(n_fft, n_fft // 4, padding="none", unit_window=True), slope
        self.layers = nn.ModuleList([
            Conv2d(2 * channels, width, (3, 9), padding=(1, 4)),  # the original norms all but this one
            *(
                weight_norm(Conv2d(width, width, (3, 9), stride=(1, 2), dilation=(d, 1), padding=(d, 4)))
                for d in DILATIONS
            ),
            weight_norm(Conv2d(width, width, 3, padding=1)),
        ])
        self.to_logits = weight_norm(Conv2d(width, 1, 3, padding=1))

    def judge(self, x: Tensor) -> Judged:
        """x (B, C, T), T at least n_fft, to logits (B, 1, frames, F / 8) and five layers' features."""
        spectrum = self.stft.transform(x)  # (B, C, F, frames)
        h = torch.cat([spectrum.real, spectrum.imag], 1).transpose(2, 3)  # (B, 2 C, frames, F)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), self.slope)
            features.append(h)
        return self.to_logits(h), features


def multi_stft(
    n_ffts: Sequence[int], width: int = 32, slope: float = 0.2, channels: int = 1
) -> list[AudioDiscriminator]:
    """One STFTDiscriminator for each window length."""
    return [STFTDiscriminator(n, width, slope, channels) for n in n_ffts]
