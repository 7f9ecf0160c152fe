"""Post-training quantization: every channel of a frozen continuous latent goes to the nearest of a few fixed values.

Source: TokenBridge (arXiv 2503.16430).
Differs: nothing of tokens x channels x levels is ever held; values may be fitted to any latent, each channel by itself.
"""

from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.layout import check_width
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.tokenwise import Step, Tokenwise


class Dimensionwise(Tokenwise):
    """One code for each channel: K = D codebooks. No losses; does not train. The defaults are those of TokenBridge.

    The values are the means of equally likely parts of a normal distribution that is cut off at `width` standard
    deviations, which are at `low` and `high`. Module `dimensionwise_fit` fits them to latents.

    Args:
        dim: D, channels of a latent.
        levels: L, values of each channel, at least 2; so few that the outer parts reach beyond `width` (740 for 3).
        low: lower end of the latents.
        high: upper end, above `low`.
        width: standard deviations from the middle to the ends, above 0.
        estimator: how gradients pass to what makes the latent; None: straight through.

    Raises:
        ConfigError: arguments out of range.
    """

    entries: Tensor  # (D, L), increasing

    def __init__(
        self,
        dim: int,
        levels: int = 64,
        low: float = -5.0,
        high: float = 5.0,
        width: float = 3.0,
        estimator: Estimator | None = None,
    ) -> None:
        if dim < 1 or not low < high:
            raise ConfigError(f"Dimensionwise: dim >= 1 and low < high, got {dim}, {low}, {high}")
        super().__init__((levels,) * dim, dim, estimator)
        self.centroids, self.width = normal_centroids(levels, width), width
        self.register_buffer("entries", torch.empty(dim, levels))
        self.span(torch.full((dim,), low), torch.full((dim,), high))

    def span(self, low: Tensor, high: Tensor) -> None:
        """Lays the values between the ends `low` and `high` of each channel, (D,)."""
        place = torch.tensor(self.centroids, dtype=torch.float64, device=low.device) / self.width  # -1..1
        low, high = low.double()[:, None], high.double()[:, None]
        self.fix((low + high) / 2 + place * (high - low) / 2)

    @torch.no_grad()
    def fix(self, entries: Tensor) -> None:
        """Takes these values (D, L), increasing. Raises InputError where they are not finite."""
        if not entries.isfinite().all():
            raise InputError("Dimensionwise: values must be finite; were there latents to fit them to, all finite?")
        self.entries.copy_(entries)

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        index = self.choose(x.detach())
        return Step(x, self.look_up(index), index)

    def choose(self, x: Tensor) -> Tensor:
        """See Tokenwise."""
        check_width(x, self.dim, "channels of z")
        between = (self.entries[:, 1:] + self.entries[:, :-1]) / 2  # (D, L-1)
        return torch.searchsorted(between, x.t().contiguous()).t()  # (n, D)

    def look_up(self, index: Tensor) -> Tensor:
        """See Tokenwise."""
        check_width(index, self.dim, "codebooks")
        return self.entries.gather(1, index.t()).t()  # (n, D)


def normal_centroids(levels: int, width: float) -> list[float]:
    """Means of `levels` equally likely parts of the standard normal distribution, its ends cut off at +-width.

    Raises ConfigError where a part would lie beyond an end.
    """
    normal = NormalDist()
    if levels < 2 or not width > 0 or levels * normal.cdf(-width) >= 1:
        raise ConfigError(f"levels must be at least 2, and fewer than 1 / normal cdf(-width), got {levels}, {width}")
    inner = [normal.inv_cdf(k / levels) for k in range(1, levels)]
    ends = [-width, *inner, width]
    return [(normal.pdf(a) - normal.pdf(b)) / (normal.cdf(b) - normal.cdf(a)) for a, b in pairwise(ends)]
