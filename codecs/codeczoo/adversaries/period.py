"""HiFi-GAN's discriminators of every p-th sample."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from codeczoo.adversaries.multi import AudioDiscriminator, Judged
from codeczoo.core.errors import InputError

SLOPE = 0.1  # of every LeakyReLU


class PeriodDiscriminator(AudioDiscriminator):
    """Folds time into rows of `period` samples and convolves along the columns only.

    Source: HiFi-GAN (arXiv 2010.05646); DAC, Vocos, SpeechTokenizer.

    Args:
        period: samples of a row.
        width: channels of the first layer; 4, 16, 32 and 32 times as many follow.
        skip: first layers whose activations are no features; 1 in Vocos, 0 elsewhere.
        always_pad: mirror a whole row more where the length is a multiple of the period, as DAC does.
        channels: of the audio.
    """

    def __init__(
        self, period: int, width: int = 32, skip: int = 0, always_pad: bool = False, channels: int = 1
    ) -> None:
        super().__init__(channels)
        self.period, self.skip, self.always_pad = period, skip, always_pad
        widths = [channels, width, 4 * width, 16 * width, 32 * width]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), stride=(3, 1), padding=(2, 0))) for a, b in pairwise(widths)
        )
        self.layers.append(weight_norm(nn.Conv2d(widths[-1], widths[-1], (5, 1), padding=(2, 0))))
        self.to_logits = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def judge(self, x: Tensor) -> Judged:
        """x (B, C, T) to logits (B, 1, rows / 81, period) and the layers' features."""
        rest = -x.shape[2] % self.period or self.period * self.always_pad
        if x.shape[2] <= rest:
            raise InputError(f"PeriodDiscriminator of period {self.period}: {x.shape[2]} samples are too few")
        h = F.pad(x, (0, rest), mode="reflect").unflatten(2, (-1, self.period))  # (B, C, rows, period)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
            features.append(h)
        return self.to_logits(h), features[self.skip :]


def multi_period(
    periods: Sequence[int], width: int = 32, skip: int = 0, always_pad: bool = False, channels: int = 1
) -> list[AudioDiscriminator]:
    """One PeriodDiscriminator for each period."""
    return [PeriodDiscriminator(p, width, skip, always_pad, channels) for p in periods]
