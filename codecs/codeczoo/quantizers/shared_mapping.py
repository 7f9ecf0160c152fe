"""One code for two vectors: a semantic and a pixel codebook with a shared index."""

from collections.abc import Callable

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.lookup import nearest
from codeczoo.quantizers.penalties import Penalty
from codeczoo.quantizers.tables import unit
from codeczoo.quantizers.upkeep import Upkeep
from codeczoo.quantizers.vq import VQ


class SharedMapping(VQ):
    """The entry whose two parts are nearest to those of the latent, by the weighted sum of their distances.

    The first channels of a latent are the semantic part, the others the pixel part; both are put to unit length, in
    latents and entries. The sum of distances is the distance of the parts side by side, the pixel part scaled by the
    root of its weight: one search. Losses: see VQ, over the channels of both parts.

    Source: TokenFlow (arXiv 2412.03069, github.com/ByteFlow-AI/TokenFlow); its `embedding_vqkd` and `embedding_vqgan`
    side by side are `codebook`.
    Differs: look-up in chunks, where the original holds both matrices of distances.

    Args:
        vocab_size: V, entries.
        semantic_dim: channels of the semantic part.
        pixel_dim: channels of the pixel part.
        weight: of the pixel part's squared distance; the semantic part's is 1.
        upkeep: see TableVQ.
        start: see TableVQ.
        estimator: how gradients pass; None: straight through.
        penalty: see TableVQ.
    """

    def __init__(
        self,
        vocab_size: int,
        semantic_dim: int,
        pixel_dim: int,
        weight: float = 1.0,
        upkeep: Upkeep | None = None,
        start: KMeans | None = None,
        estimator: Estimator | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        if semantic_dim < 1 or pixel_dim < 1 or weight <= 0:
            got = f"{semantic_dim}, {pixel_dim}, {weight}"
            raise ConfigError(f"SharedMapping: both parts have at least 1 channel and weight is positive, got {got}")
        super().__init__(vocab_size, semantic_dim + pixel_dim, upkeep, start, estimator, penalty)
        self.semantic_dim, self.weight = semantic_dim, weight

    def normalise(self, vectors: Tensor) -> Tensor:
        """Unit length of both parts, (..., D)."""
        parts = vectors.tensor_split([self.semantic_dim], -1)
        return torch.cat([unit(part) for part in parts], -1)

    def find(self, x: Tensor, table: Tensor, adjust: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """See Matching."""
        scale = x.new_ones(self.dim)
        scale[self.semantic_dim :] = self.weight**0.5
        return nearest(x * scale, table * scale, adjust)

    def decode_semantic(self, codes: Tensor) -> Tensor:
        """codes int64 (B, 1, *S) to the semantic part (B, semantic_dim, *S)."""
        return self.decode(codes)[:, : self.semantic_dim]

    def decode_pixel(self, codes: Tensor) -> Tensor:
        """codes int64 (B, 1, *S) to the pixel part (B, pixel_dim, *S)."""
        return self.decode(codes)[:, self.semantic_dim :]
