"""What the two sides of an adversarial game minimise, given logits."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, get_world_size, is_available, is_initialized
from torch.nn import functional as F


class Game(ABC):
    """The losses of the two sides for one discriminator's logits."""

    @abstractmethod
    def adversary(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the adversary minimises, for logits of any shape (B, ...)."""

    @abstractmethod
    def codec(self, fake: Tensor) -> Tensor:
        """What the codec minimises."""


class Hinge(Game):
    """Hinge loss for the adversary, the mean logit for the codec.

    Source: taming-transformers (arXiv 2012.09841); TiTok, LlamaGen, KARL; AudioCraft with factor 1.

    Args:
        factor: of the adversary's loss.
    """

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def adversary(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logits of any shape to factor (mean relu(1 - real) + mean relu(1 + fake))."""
        return self.factor * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())

    def codec(self, fake: Tensor) -> Tensor:
        """Logits of any shape to -mean fake."""
        return -fake.mean()


class NonSaturating(Hinge):
    """Hinge for the adversary, softplus for the codec.

    Source: Open-MAGVIT2 / WeTok (SEED-Voken), which average the logits of each sample before the softplus.
    """

    def codec(self, fake: Tensor) -> Tensor:
        """Logits (B, ...) to mean_b softplus(-mean fake_b)."""
        return F.softplus(-fake.flatten(1).mean(1)).mean()


class TwoSidedHinge(Hinge):
    """Hinge for both sides: logits of the codec's media beyond 1 count no more.

    Source: EnCodec (arXiv 2210.13438), Vocos and WavTokenizer, all with factor 1.
    """

    def codec(self, fake: Tensor) -> Tensor:
        """Logits of any shape to mean relu(1 - fake)."""
        return F.relu(1 - fake).mean()


class LeastSquares(Game):
    """Squared distance from 1 for real media and 0 for the codec's.

    Source: LSGAN (arXiv 1611.04076); HiFi-GAN, DAC, SpeechTokenizer.
    """

    def adversary(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logits of any shape to mean (1 - real)^2 + mean fake^2."""
        return (1 - real).square().mean() + fake.square().mean()

    def codec(self, fake: Tensor) -> Tensor:
        """Logits of any shape to mean (1 - fake)^2."""
        return (1 - fake).square().mean()


class LeCam(nn.Module):
    """LeCam regularisation: keeps the mean logits of each side near the running mean of the other.

    weight (relu(mean real - running fake)^2 + relu(running real - mean fake)^2), running means updated afterwards.
    Source: Tseng et al. 2021 (arXiv 2104.03310) as in TiTok: of the batch means, running means begin at 0.
    Differs: the means are those of all ranks, so N ranks give the loss, gradients and running means of one process on
    the concatenated batch, provided that gradients are averaged over equal local batches, as DDP and FSDP do.

    Args:
        weight: factor of the term in the adversary's loss; 0.001 in TiTok.
        decay: of the running means, 0..1.
    """

    running: Tensor

    def __init__(self, weight: float, decay: float = 0.999) -> None:
        super().__init__()
        self.weight = weight
        self.decay = decay
        self.register_buffer("running", torch.zeros(2))  # real, fake

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logits of any shape to the weighted scalar; updates the running means when in training mode."""
        means = mean_over_ranks(torch.stack([real.mean(), fake.mean()]))
        loss = F.relu(means[0] - self.running[1]).square() + F.relu(self.running[0] - means[1]).square()
        if self.training:
            # Not in place: the graph of `loss` still holds the old values.
            self.running = self.decay * self.running + (1 - self.decay) * means.detach()
        return self.weight * loss


def mean_over_ranks(local: Tensor) -> Tensor:
    """The value of the mean over all ranks with the gradient of the local one.

    Averaging gradients over ranks afterwards, as DDP does, makes them those of the global mean.
    """
    if not (is_available() and is_initialized()):
        return local
    total = local.detach().clone()
    all_reduce(total, op=ReduceOp.SUM)
    return local + (total / get_world_size() - local.detach())
