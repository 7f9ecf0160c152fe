"""Multi-scale residual quantization as VAR trains it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.multiscale import MultiScale
from codeczoo.quantizers.ranks import Mean


class CumulativeMultiScale(MultiScale):
    """MultiScale whose every scale answers for the whole latent, as VAR is trained.

    Losses: "commitment" mean over scales of mean (z - sg(sum to the scale))^2 and "codebook" of (sum to the scale -
    sg(z))^2, in place of those of these names of the scales' quantizers; their other losses stay. The second trains
    codebooks, projections and smoothing, which get nothing from the reconstruction.

    Source: VAR (arXiv 2404.02905, github.com/FoundationVision/VAR). Arguments: see MultiScale.
    """

    def of_scales(self, estimator: Estimator) -> Estimator:
        """See MultiScale."""
        return _Attached(estimator)

    def losses(self, x: Tensor, sums: list[Tensor], found: list[dict[str, Tensor]], mean: Mean) -> dict[str, Tensor]:
        """See MultiScale."""
        commitment, codebook = x.new_zeros(()), x.new_zeros(())
        for k, value in enumerate(sums):
            share = mean.part(k, k + 1)
            latent = x
            if share.keep is not None:
                latent, value = (torch.where(share.keep[:, None], part, 0.0) for part in (x, value))
            commitment = commitment + share.of_sum(F.mse_loss(latent, value.detach(), reduction="sum"))
            codebook = codebook + share.of_sum(F.mse_loss(value, latent.detach(), reduction="sum"))
        count = self.dim * len(sums)
        return super().losses(x, sums, found, mean) | {"commitment": commitment / count, "codebook": codebook / count}

    def to_decoder(self, value: Tensor) -> Tensor:
        """See MultiScale."""
        return value if self.estimator.to_codebook else value.detach()


class _Attached(Estimator):
    """Another estimator, with codes attached to their codebooks."""

    to_codebook = True

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        return self.estimator(x, value)

    def scores(self, scores: Tensor) -> Tensor:
        return self.estimator.scores(scores)
