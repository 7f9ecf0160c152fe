"""k-means over the latents of all ranks: how a codebook may start from data."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers import sample
from codeczoo.quantizers.lookup import histogram, nearest
from codeczoo.quantizers.ranks import summed


class KMeans(nn.Module):
    """Lloyd's algorithm, started from a random sample of the latents; the same on all ranks.

    Where there are fewer different latents than centres, the rest are copies with a little noise.

    Args:
        iterations: passes over the latents.
        noise: of the copies, as a share of the latents' standard deviation.
    """

    def __init__(self, iterations: int = 10, noise: float = 1e-2) -> None:
        super().__init__()
        if iterations < 1 or noise <= 0:
            raise ConfigError(f"KMeans: iterations >= 1 and noise > 0, got {iterations}, {noise}")
        self.iterations, self.noise = iterations, noise

    @torch.no_grad()
    def forward(
        self, x: Tensor, keep: Tensor | None, n: int, normalise: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Centres and how many latents each has.

        Args:
            x: (tokens, D) float32, 0 where masked.
            keep: bool (tokens,), which count.
            n: V, how many centres.
            normalise: puts latents and centres (..., D) where they are compared.

        Shapes: (V, D) and (V,).
        """
        x = normalise(x)
        step = torch.zeros((), dtype=torch.int64, device=x.device)
        key, centres = sample.of_all_ranks(*sample.smallest(sample.keys(x, keep, step), x, n))
        centres = self._filled(key, centres)
        for _ in range(self.iterations):
            centres = normalise(centres)
            index = nearest(x, centres)
            packed = torch.zeros(n, x.shape[1] + 1, device=x.device)
            packed[:, :-1].index_add_(0, index, x)
            packed[:, -1] = histogram(index, n, keep)
            packed = summed(packed)
            sums, counts = packed[:, :-1], packed[:, -1:]
            centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        return normalise(centres), counts[:, 0]

    def _filled(self, key: Tensor, x: Tensor) -> Tensor:
        """x (n, D) with copies of the first ones in place of those that are missing."""
        found = key.isfinite()
        count = found.sum().clamp(min=1)
        mean = (x * found[:, None]).sum(0) / count
        deviation = ((x - mean).square() * found[:, None]).sum() / count
        generator = torch.Generator().manual_seed(0)  # the same on every rank
        size = (deviation + 1e-2 * mean.square().sum() + 1e-12).sqrt()  # not nothing where all latents are equal
        noise = torch.randn(x.shape, generator=generator).to(x.device) * size / x.shape[1] ** 0.5
        copies = x[torch.arange(len(x), device=x.device) % count] + self.noise * noise
        return torch.where(found[:, None], x, copies)
