"""Rectified flow: straight lines from pictures to noise, learned as velocities and solved back.

At time s in 0..1 a sample is x(s) = s noise + (1 - s) x, and its velocity is noise - x.

Source: rectified flow (arXiv 2209.03003); times of training: Stable Diffusion 3 (arXiv 2403.03206); projected guidance:
arXiv 2410.02416.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import pi

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Sampling

Velocity = Callable[[Tensor, int], Tensor]
MOMENTUM, LONGEST = -0.5, 2.5  # of projected guidance, as FlexTok sets them


class Times(nn.Module, ABC):
    """How often each time is trained."""

    @abstractmethod
    def forward(self, batch: int, device: torch.device) -> Tensor:
        """A time in 0..1 for each sample, float32 (batch,)."""


class LogitNormalTimes(Times):
    """The sigmoid of a normal: middle times more often.

    Args:
        mean, std: of the normal.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        if std <= 0:
            raise ConfigError(f"LogitNormalTimes: std must be above 0, got {std}")
        self.mean, self.std = mean, std

    def forward(self, batch: int, device: torch.device) -> Tensor:
        """See Times."""
        return (self.mean + self.std * torch.randn(batch, device=device)).sigmoid()


class ModeTimes(Times):
    """Uniform times bent towards the middle (scale above 0) or the ends (below).

    Args:
        scale: -1 .. 2 / (pi - 2); 0: uniform.
    """

    def __init__(self, scale: float = 0.0) -> None:
        super().__init__()
        if not -1 <= scale <= 2 / (pi - 2):
            raise ConfigError(f"ModeTimes: scale must be within -1..{2 / (pi - 2):.4f}, got {scale}")
        self.scale = scale

    def forward(self, batch: int, device: torch.device) -> Tensor:
        """See Times."""
        u = torch.rand(batch, device=device)
        return 1 - u - self.scale * ((pi / 2 * u).cos().square() - 1 + u)


def noised(x: Tensor, noise: Tensor, s: Tensor) -> Tensor:
    """The samples x (B, ...) at times s (B,)."""
    return x + s.view(-1, *[1] * (x.ndim - 1)) * (noise - x)


class Guidance:
    """Velocities with and without tokens to one that goes further in the tokens' direction.

    Args:
        strength: 1: the one with tokens, 0: the one without.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, told: Tensor, untold: Tensor) -> Tensor:
        """Velocities (B, ...) to one (B, ...); once for each time that the network is asked, in order."""
        return untold + self.strength * (told - untold)


class ProjectedGuidance(Guidance):
    """Of the direction only what is orthogonal to the velocity, no longer than LONGEST, with momentum from before."""

    def __init__(self, strength: float) -> None:
        super().__init__(strength)
        self.running: Tensor | float = 0.0

    def __call__(self, told: Tensor, untold: Tensor) -> Tensor:
        """See Guidance."""
        self.running = told - untold + MOMENTUM * self.running
        way, along = self.running.flatten(1).double(), told.flatten(1).double()
        way = way * (LONGEST / way.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        along = nn.functional.normalize(along, dim=1)
        way = way - (way * along).sum(1, keepdim=True) * along
        return told + (self.strength - 1) * way.view_as(told).to(told.dtype)


def times_of(sampling: Sampling) -> Tensor:
    """The times that `solve` counts, from 1 down to 0, float32 (steps + 1,)."""
    return torch.arange(sampling.steps, -1, -1) / sampling.steps


def solve(velocity: Velocity, noise: Tensor, sampling: Sampling) -> Tensor:
    """The picture that the noise flows back to.

    Args:
        velocity: of samples (B, ...) at the i-th of `times_of(sampling)`; Euler never asks at the last.
        noise: (B, ...), float32.
        sampling: its steps and solver.
    """
    x, step = noise, 1 / sampling.steps
    for i in range(sampling.steps):
        v = velocity(x, i)
        if sampling.solver == "heun":
            v = (v + velocity(x - step * v, i + 1)) / 2
        x = x - step * v
    return x
