"""What a clip looks like."""

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import MissingError
from codeczoo.nn.spectrogram import MelSpectrogram

COLUMN = 0.01  # seconds
RANGE = 80.0  # dB from the brightest to the darkest


def spectrum_picture(clips: Tensor, sample_rate: int, height: int = 96) -> Tensor:
    """Log-mel spectrograms one above the other, low sounds at the bottom, all on the scale of the first.

    Args:
        clips: float (N, C, T), e.g. an original above its reconstructions; channels are averaged.
        sample_rate: Hz.
        height: of one spectrogram, pixels; a pixel is 10 ms wide.

    Returns:
        float32 (3, N * height, W) in [0, 1].

    Raises:
        MissingError: without matplotlib.
    """
    try:
        from matplotlib import colormaps
    except ImportError:
        raise MissingError('spectrogram pictures want matplotlib: pip install "codeczoo[train]"') from None
    n_fft = 1 << round(0.04 * sample_rate).bit_length()
    mel = MelSpectrogram(n_fft, round(COLUMN * sample_rate), "none", sample_rate=sample_rate, n_mels=height)
    x = F.pad(clips.float().mean(1, keepdim=True).cpu(), (n_fft // 2, n_fft // 2))
    level = 20 * mel(x)[:, 0].clamp_min(1e-5).log10()  # (N, height, W), dB
    bright = 1 + (level - level[0].max().clamp_min(-60)) / RANGE
    stacked = bright.clamp(0, 1).flip(1).flatten(0, 1)  # (N * height, W)
    colours = torch.from_numpy(colormaps["magma"](stacked.numpy())[..., :3])
    return colours.permute(2, 0, 1).float()  # (3, N * height, W)
