"""An adversary in training: when it joins, what its losses weigh, who optimises it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, distributed, nn

from codeczoo.core.base import Adversary
from codeczoo.core.errors import ConfigError, nearest
from codeczoo.engine.objective import Weighted
from codeczoo.engine.optimizer import OptimizerFactory, ScheduleFactory

# Gives the codec's last weight on demand: not every codec has one, and fixed weights do not ask.
LastLayer = Callable[[], Tensor]


class Weight(ABC):
    """How much the adversarial loss weighs beside the objective."""

    @abstractmethod
    def __call__(self, media: Tensor, adversarial: Tensor, layer: LastLayer) -> Tensor | float:
        """The weight, for the media losses and the adversarial loss of this batch; both still have their graphs."""


class FixedWeight(Weight):
    """The same in every batch.

    Args:
        value: the weight.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, media: Tensor, adversarial: Tensor, layer: LastLayer) -> float:
        """The value."""
        return self.value


class AdaptiveWeight(Weight):
    """|gradient of the media losses| / |gradient of the adversarial loss|, both at the codec's last layer.

    Source: taming-transformers (arXiv 2012.09841), losses/vqperceptual.py.

    Args:
        value: factor on the ratio.
        limit: most that the ratio may be.
        eps: added to the denominator.
    """

    def __init__(self, value: float, limit: float = 1e4, eps: float = 1e-4) -> None:
        self.value, self.limit, self.eps = value, limit, eps

    def __call__(self, media: Tensor, adversarial: Tensor, layer: LastLayer) -> Tensor:
        """The detached weight, a scalar."""
        parameter = layer()
        if not parameter.requires_grad:
            raise ConfigError("an adaptive adversary weight needs the codec's last layer to be trained; it is frozen")
        (of_media,) = torch.autograd.grad(media, parameter, retain_graph=True)
        (of_adversary,) = torch.autograd.grad(adversarial, parameter, retain_graph=True)
        ratio = of_media.float().norm() / (of_adversary.float().norm() + self.eps)
        return self.value * ratio.clamp(0, self.limit).detach()


class Contest(nn.Module):
    """An adversary with its optimizer, schedule, first batch and weights.

    Args:
        adversary: the discriminators with their losses.
        optimizer: takes (name, parameter) pairs.
        schedule: takes the optimizer; its steps are the adversary's updates.
        weight: of the "adversarial" loss.
        start: first `global_step` of the contest. Before it the adversary costs nothing.
        weights: of the adversary's other losses for the codec ("feature_matching"), by name; every one needs one.
        probability: that an effective batch updates the adversary, 0..1; EnCodec: 2/3 at 24 kHz, 1/2 at 48 kHz.
    """

    def __init__(
        self, adversary: Adversary, optimizer: OptimizerFactory, schedule: ScheduleFactory, weight: Weight,
        start: int = 0, weights: dict[str, float] | None = None, probability: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < probability <= 1:
            raise ConfigError(f"an adversary's probability must be above 0 and at most 1, got {probability}")
        self.adversary, self.optimizer, self.schedule = adversary, optimizer, schedule
        self.weight, self.start, self.weights = weight, start, dict(weights or {})
        self.probability = probability

    def learns(self, seed: int, step: int) -> bool:
        """Whether effective batch `step` updates the adversary; the same on every rank and after a resume."""
        return self.probability == 1 or bool(np.random.default_rng([seed, step]).random() < self.probability)

    @property
    def media(self) -> list[str]:
        """Names of the losses that `codec_losses` gives."""
        return ["adversarial", *self.weights]

    def codec_losses(self, x: Tensor, x_hat: Tensor, media: Tensor, layer: LastLayer) -> dict[str, Weighted]:
        """What the codec adds to its losses, by name. The adversary gets no gradient from it.

        Args:
            x: real media.
            x_hat: the codec's.
            media: the objective's losses of x_hat, which adaptive weights are measured against.
            layer: gives the codec's last weight.
        """
        with self._frozen():
            losses = self.adversary.codec_loss(x, x_hat)
        odd = sorted(set(losses) ^ set(self.media))
        if odd:
            raise ConfigError(f"adversary: '{odd[0]}' needs a loss and a weight; {nearest(odd[0], losses)}")
        weights = {"adversarial": self.weight(media, losses["adversarial"], layer), **self.weights}
        return {name: Weighted(weights[name], losses[name]) for name in self.media}

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        parameters = [p for p in self.adversary.parameters() if p.requires_grad]
        for p in parameters:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in parameters:
                p.requires_grad_(True)

    def average_gradients(self) -> None:
        """Mean of the gradients over all ranks. DDP leaves adversaries out: it waits for every parameter it watches."""
        if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
            return
        grads = [p.grad for p in self.adversary.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])  # one message instead of hundreds
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))
