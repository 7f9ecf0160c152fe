"""The adversary of several audio discriminators, with feature matching."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codeczoo.adversaries.losses import Game
from codeczoo.core.base import Adversary
from codeczoo.core.errors import ConfigError, InputError

Judged = tuple[Tensor, list[Tensor]]  # logits (B, ...) and the activations before them, (B, ...) each


class AudioDiscriminator(nn.Module, ABC):
    """Gives logits and activations for audio.

    Args:
        channels: of the audio.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Judged:
        """x (B, channels, T) in [-1, 1] to logits and features. Raises InputError for another shape."""
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise InputError(f"{type(self).__name__} takes (B, {self.channels}, T), got {tuple(x.shape)}")
        return self.judge(x)

    @abstractmethod
    def judge(self, x: Tensor) -> Judged:
        """x of the right shape to logits and features."""


class FeatureMatching:
    """Mean absolute difference of one discriminator's features for real media and the codec's.

    Sources: AudioCraft (average), DAC (sum), Vocos and WavTokenizer (sum, with logits, the discriminators leave out
    their first layers), HiFi-GAN and SpeechTokenizer (sum, with logits; they double it).

    Args:
        average: over the layers; False: their sum.
        with_logits: the logits count as one more layer.
    """

    def __init__(self, average: bool, with_logits: bool = False) -> None:
        self.average, self.with_logits = average, with_logits

    def __call__(self, real: Judged, fake: Judged) -> Tensor:
        """What the discriminator gave for both sides, to a float32 scalar."""
        pairs = [*zip(real[1], fake[1], strict=True)] + [(real[0], fake[0])] * self.with_logits
        distances = torch.stack([self.distance(a.detach().float(), b.float()) for a, b in pairs])
        return distances.mean() if self.average else distances.sum()

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """One layer's features (B, ...) to a scalar."""
        return (fake - real).abs().mean()


class RelativeFeatureMatching(FeatureMatching):
    """Differences relative to the mean absolute feature of the real side.

    Source: EnCodec (arXiv 2210.13438), equation 4; AudioCraft's code does not divide.
    Differs: every sample is divided by its own mean, so that the loss does not depend on how a batch is split.
    """

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """One layer's features (B, ...) to a scalar."""
        difference, size = (fake - real).abs().flatten(1).mean(1), real.abs().flatten(1).mean(1)
        return (difference / size.clamp(min=1e-8)).mean()


class MultiAdversary(Adversary):
    """Discriminators that play the same game side by side.

    Args:
        discriminators: all are called with the same audio.
        loss: of both sides, for each discriminator.
        features: how features are matched ("feature_matching" beside "adversarial"); None: not at all.
        average: over the discriminators (EnCodec, Vocos); False: their sum (DAC, HiFi-GAN).
        level: bring every sample to mean 0 and peak 0.8 before anybody looks at it (DAC; Vocos' spectra).
    """

    def __init__(
        self, discriminators: Sequence[AudioDiscriminator], loss: Game, features: FeatureMatching | None, average: bool,
        level: bool = False,
    ) -> None:
        super().__init__()
        if not discriminators:
            raise ConfigError("MultiAdversary: no discriminators")
        self.discriminators = nn.ModuleList(discriminators)
        self.loss, self.features, self.level = loss, features, level
        self.share = 1 / len(discriminators) if average else 1.0

    def adversary_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversaries' scalar; logs the mean logits of both sides, averaged over the discriminators."""
        of_real, of_fake = ([logits.float() for logits, _ in self.judge(x.detach())] for x in (real, fake))
        with torch.autocast(real.device.type, enabled=False):
            losses = torch.stack([self.loss.adversary(a, b) for a, b in zip(of_real, of_fake, strict=True)])
        logs = {
            name: torch.stack([logits.detach().mean() for logits in side]).mean()
            for name, side in (("logits_real", of_real), ("logits_fake", of_fake))
        }
        return self.share * losses.sum(), logs

    def codec_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The codec's scalars "adversarial" and, if features are matched, "feature_matching"."""
        of_fake = self.judge(fake)
        with torch.autocast(fake.device.type, enabled=False):
            adversarial = torch.stack([self.loss.codec(logits.float()) for logits, _ in of_fake])
        losses = {"adversarial": self.share * adversarial.sum()}
        if self.features is None:
            return losses
        with torch.no_grad():
            of_real = self.judge(real)
        with torch.autocast(fake.device.type, enabled=False):
            matching = torch.stack([self.features(a, b) for a, b in zip(of_real, of_fake, strict=True)])
        return losses | {"feature_matching": self.share * matching.sum()}

    def judge(self, x: Tensor) -> list[Judged]:
        """What every discriminator gives for x (B, C, T)."""
        x = levelled(x) if self.level else x
        return [discriminator(x) for discriminator in self.discriminators]


def levelled(x: Tensor) -> Tensor:
    """x (B, C, T) with mean 0 in every channel and peak 0.8 in every sample."""
    x = x - x.mean(2, keepdim=True)
    return 0.8 * x / (x.abs().amax((1, 2), keepdim=True) + 1e-9)
