"""MelGAN's and HiFi-GAN's discriminators of the waveform at several rates."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from codeczoo.adversaries.multi import AudioDiscriminator, Judged
from codeczoo.core.errors import ConfigError

SLOPE = 0.1  # of every LeakyReLU
# In and out channels as multiples of the width (0: the audio's), kernel, stride, groups.
LAYERS = (
    (0, 1, 15, 1, 1), (1, 1, 41, 2, 4), (1, 2, 41, 2, 16), (2, 4, 41, 4, 16), (4, 8, 41, 4, 16), (8, 8, 41, 1, 16),
    (8, 8, 5, 1, 1),
)


class ScaleDiscriminator(AudioDiscriminator):
    """Halves the rate by average pooling a number of times, then long grouped convolutions over time.

    Source: HiFi-GAN (arXiv 2010.05646) "MSD"; SpeechTokenizer.
    Differs: weight norm at every rate (HiFi-GAN has spectral norm at the full one), and the pooled audio is what is
    judged (AudioCraft's MSD discards it, so that all of its scales see the full rate).

    Args:
        halvings: how often the rate is halved.
        width: channels of the first layer, a multiple of 16; up to 8 times as many follow.
        channels: of the audio.
    """

    def __init__(self, halvings: int, width: int = 128, channels: int = 1) -> None:
        super().__init__(channels)
        if halvings < 0 or width % 16:
            raise ConfigError(f"ScaleDiscriminator: halvings {halvings} is negative or width {width} no multiple of 16")
        self.halvings = halvings
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(a * width or channels, b * width, k, stride=s, groups=g, padding=k // 2))
            for a, b, k, s, g in LAYERS
        )
        self.to_logits = weight_norm(nn.Conv1d(8 * width, 1, 3, padding=1))

    def judge(self, x: Tensor) -> Judged:
        """x (B, C, T) to logits (B, 1, T / 2^halvings / 64) and the layers' features."""
        h = x
        for _ in range(self.halvings):
            h = F.avg_pool1d(h, 4, stride=2, padding=2)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
            features.append(h)
        return self.to_logits(h), features


def multi_scale(halvings: Sequence[int], width: int = 128, channels: int = 1) -> list[AudioDiscriminator]:
    """One ScaleDiscriminator for each number of halvings."""
    return [ScaleDiscriminator(n, width, channels) for n in halvings]
