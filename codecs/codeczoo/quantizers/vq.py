"""Vector quantization: the nearest row of a learned codebook.

Source: VQ-VAE (arXiv 1711.00937); moving-average codebook of its appendix and of VQ-VAE-2 (arXiv 1906.00446); cosine
look-up of ViT-VQGAN (arXiv 2110.04627).
Differs: look-up in chunks that never hold tokens x entries at once; the forward value is exactly the code; codebooks
move in `update`, after the optimizer's step, so that ranks and accumulated batches add up.
"""


import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.lookup import histogram
from codeczoo.quantizers.ranks import Mean, summed
from codeczoo.quantizers.tables import TableVQ, unit
from codeczoo.quantizers.tally import Tally
from codeczoo.quantizers.upkeep import Upkeep


class VQ(TableVQ):
    """Euclidean nearest neighbour in a codebook learned by gradient.

    Losses: "commitment" mean (z - sg(code))^2 and "codebook" mean (code - sg(z))^2. Arguments: see TableVQ.
    """

    def make_table(self, vocab_size: int, dim: int) -> None:
        """See TableVQ."""
        self.codebook = nn.Parameter(torch.empty(vocab_size, dim).uniform_(-1 / vocab_size, 1 / vocab_size))

    def move(self, share: Tensor, vectors: Tensor) -> None:
        """See TableVQ."""
        self.codebook.data.lerp_(vectors, share[:, None])

    def place(self, centres: Tensor, counts: Tensor) -> None:
        """See TableVQ."""
        self.codebook.data.copy_(centres)


class EMAVQ(TableVQ):
    """Euclidean nearest neighbour in a codebook of moving averages: each entry is the mean of its latents.

    Loss: "commitment". Call `codeczoo.quantizers.tally.update` after each optimizer step. Other arguments: see TableVQ.

    Args:
        decay: of the averages, 0..1.
        epsilon: smooths the counts, so that no entry divides by zero.
    """

    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        upkeep: Upkeep | None = None,
        start: KMeans | None = None,
        estimator: Estimator | None = None,
        decay: float = 0.99,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(vocab_size, dim, upkeep, start, estimator)
        if not 0 <= decay < 1 or epsilon <= 0:
            raise ConfigError(f"EMAVQ: decay in 0..1 and epsilon > 0, got {decay}, {epsilon}")
        self.decay, self.epsilon, self.tally = decay, epsilon, Tally()

    def make_table(self, vocab_size: int, dim: int) -> None:
        """See TableVQ."""
        start = self.normalise(torch.randn(vocab_size, dim) / dim**0.5)
        self.register_buffer("codebook", start)
        self.register_buffer("sums", start.clone())
        self.register_buffer("counts", torch.ones(vocab_size))

    def table(self) -> Tensor:
        """The entries, (V, D)."""
        return self.codebook

    def table_losses(self, latent: Tensor, code: Tensor, mean: Mean) -> dict[str, Tensor]:
        """None: the table learns in `update`."""
        return {}

    def priors(self) -> tuple[Tensor | None, ...]:
        """See Quantizer: the moving averages' counts."""
        return (self.counts,)

    @torch.no_grad()
    def watch(self, latent: Tensor, index: Tensor, keep: Tensor | None) -> None:
        """See TableVQ."""
        v = len(self.codebook)
        sums = torch.zeros_like(self.codebook).index_add_(0, index, latent)  # masked rows are 0
        self.tally.add("both", torch.cat([sums, histogram(index, v, keep)[:, None]], 1))
        super().watch(latent, index, keep)

    @torch.no_grad()
    def update(self) -> None:
        """See Stateful."""
        held = self.tally.take()
        if held:
            both = summed(held["both"])  # (V, D+1)
            new = (both[:, -1].sum() > 0) * (1 - self.decay)  # a step without tokens changes nothing
            self.sums.lerp_(both[:, :-1], new)
            self.counts.lerp_(both[:, -1], new)
            self._refresh()
        super().update()

    def _refresh(self) -> None:
        total = self.counts.sum()
        smooth = (self.counts + self.epsilon) / (total + len(self.counts) * self.epsilon) * total
        self.codebook.copy_(self.normalise(self.sums / smooth[:, None]))

    def move(self, share: Tensor, vectors: Tensor) -> None:
        """See TableVQ. The averages move too, or the next step would undo it: as if used as often as the mean entry."""
        self.codebook.copy_(self.normalise(torch.lerp(self.codebook, vectors, share[:, None])))
        self.counts.lerp_(self.counts.mean(), share)
        moved = (share > 0)[:, None]
        self.sums.copy_(torch.where(moved, self.codebook * self.counts[:, None], self.sums))

    def place(self, centres: Tensor, counts: Tensor) -> None:
        """See TableVQ. A centre without latents counts as one: with next to none, smoothing would halve it at once."""
        self.codebook.copy_(centres)
        self.counts.copy_(counts.clamp(min=1))
        self.sums.copy_(centres * self.counts[:, None])


class _Cosine:
    def normalise(self, vectors: Tensor) -> Tensor:
        """Unit length along the last axis."""
        return unit(vectors)


class CosineVQ(_Cosine, VQ):
    """VQ by angle: latents and entries are compared, trained and returned on the unit sphere."""


class CosineEMAVQ(_Cosine, EMAVQ):
    """EMAVQ by angle: latents and entries are compared, trained and returned on the unit sphere."""
