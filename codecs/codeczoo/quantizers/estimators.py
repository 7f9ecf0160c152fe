"""How a gradient gets past the choice of a code: strategies, applied once to what a quantizer puts out.

An estimator is called in training with the latent x and the quantized value; it returns what the decoder sees. Gradient
that it sends to `value` reaches whatever made the value (an output projection, and the codebook where `to_codebook`).
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError


class Estimator(nn.Module, ABC):
    """A strategy without state.

    Attributes:
        to_codebook: whether the gradient of what comes after is meant to reach the codebook too.
    """

    to_codebook: bool = False

    @abstractmethod
    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """x and value (n, D) float32 to (n, D)."""

    def scores(self, scores: Tensor) -> Tensor:
        """What the choice maximises in training, from the scores (n, V) of the entries: as they are."""
        return scores

    @property
    def chooses(self) -> bool:
        """Whether it has `scores` of its own. If not, nobody need hold any."""
        return type(self).scores is not Estimator.scores


class _Exact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad


class StraightThrough(Estimator):
    """Forward the value, bit for bit; backward the identity.

    Source: arXiv 1308.3432. Differs: x + sg(value - x) is not exactly the value in floating point; this is.
    """

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """See Estimator."""
        return _Exact.apply(x, value)


class Rotation(Estimator):
    """Forward the value; backward through the rotation and scaling that carries x to it.

    Source: "Restructuring Vector Quantization with the Rotation Trick" (arXiv 2410.06424).
    Differs: the forward value is the code exactly. Where x or the value is nearly zero, or they point in opposite
    directions, the rotation is not defined and the gradient is the identity; the factor |value| / |x| is limited.

    Args:
        most: greatest factor |value| / |x| by which a gradient grows.
    """

    def __init__(self, most: float = 10.0) -> None:
        super().__init__()
        if most <= 0:
            raise ConfigError(f"Rotation: most must be positive, got {most}")
        self.most = most

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """See Estimator."""
        with torch.no_grad():
            size, target = x.norm(dim=-1, keepdim=True), value.norm(dim=-1, keepdim=True)  # (n, 1)
            u, v = x / size.clamp(min=1e-6), value / target.clamp(min=1e-6)
            between = u + v
            defined = (size > 1e-6) & (target > 1e-6) & (between.norm(dim=-1, keepdim=True) > 1e-3)
            w = torch.nn.functional.normalize(between, dim=-1)
            factor = (target / size.clamp(min=1e-6)).clamp(max=self.most)
        turned = x - 2 * w * (w * x).sum(-1, keepdim=True) + 2 * v * (u * x).sum(-1, keepdim=True)
        return _Exact.apply(torch.where(defined, factor * turned, x), value)


class DiVeQ(Estimator):
    """The latent moved by the size of its error in a direction near that of the code; differentiable throughout.

    Source: DiVeQ (arXiv 2509.26469) as in vector-quantize-pytorch (github.com/lucidrains/vector-quantize-pytorch).
    In training the value is near the code, not the code itself; wants no commitment loss, but dead codes restarted.

    Args:
        variance: of the noise on the direction.
    """

    to_codebook = True

    def __init__(self, variance: float = 5e-3) -> None:
        super().__init__()
        if variance < 0:
            raise ConfigError(f"DiVeQ: variance must be at least 0, got {variance}")
        self.variance = variance

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """See Estimator."""
        error = value - x
        noisy = error.detach() + torch.randn_like(error) * self.variance**0.5
        direction = torch.nn.functional.normalize(noisy, dim=-1)
        size = error.square().sum(-1, keepdim=True).clamp(min=1e-20).sqrt()  # the gradient of a norm at 0 is not finite
        return x + size * direction


class Gumbel(StraightThrough):
    """Straight-through after a random choice: code i with probability softmax(scores / temperature)_i.

    Source: the Gumbel-max trick; stochastic codes of SQ-VAE and vector-quantize-pytorch.

    Args:
        temperature: of the choice, above 0; small values choose the nearest code.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ConfigError(f"Gumbel: temperature must be positive, got {temperature}")
        self.temperature = temperature

    def scores(self, scores: Tensor) -> Tensor:
        """The scores with noise."""
        noise = -torch.empty_like(scores).exponential_().log()
        return scores + self.temperature * noise
