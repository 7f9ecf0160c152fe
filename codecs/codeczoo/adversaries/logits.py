"""The adversary of one discriminator that gives logits."""

import torch
from torch import Tensor, nn

from codeczoo.adversaries.losses import Game, LeCam
from codeczoo.core.base import Adversary


class LogitAdversary(Adversary):
    """One discriminator, a loss for the two sides, and optionally LeCam.

    Differs from TiTok: the discriminator runs in the trainer's precision (the original switches autocast off); the
    losses are always float32.

    Args:
        discriminator: media (B, C, *spatial) to logits of any shape (B, ...).
        loss: what both sides minimise.
        lecam: regularisation added to the adversary's loss, or None.
    """

    def __init__(self, discriminator: nn.Module, loss: Game, lecam: LeCam | None = None) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.loss = loss
        self.lecam = lecam

    def adversary_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversary's scalar; logs the mean logits of both sides and the LeCam term."""
        logits_real = self.discriminator(real.detach()).float()
        logits_fake = self.discriminator(fake.detach()).float()
        logs = {"logits_real": logits_real.detach().mean(), "logits_fake": logits_fake.detach().mean()}
        with torch.autocast(real.device.type, enabled=False):
            loss = self.loss.adversary(logits_real, logits_fake)
            if self.lecam is not None:
                regularisation = self.lecam(logits_real, logits_fake)
                loss = loss + regularisation
                logs["lecam"] = regularisation.detach()
        return loss, logs

    def codec_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The codec's scalar as "adversarial"; `real` is not looked at."""
        return {"adversarial": self.loss.codec(self.discriminator(fake).float())}
