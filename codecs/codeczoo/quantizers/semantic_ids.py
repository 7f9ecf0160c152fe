"""Semantic IDs: short codes for embedding vectors, such as those of items in a catalogue.

Source: RQ-VAE of TIGER, "Recommender Systems with Generative Retrieval" (arXiv 2305.05065): an MLP of 512, 256, 128
with ReLU to 32 channels, three codebooks of 256, each started by k-means on the first batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.base import Quantizer
from codeczoo.core.errors import ConfigError, InputError


@dataclass
class Reconstructed:
    """What RQVAE's forward returns.

    Args:
        x_hat: (B, D) float32.
        codes: int64 (B, K).
        losses: unweighted scalars by name: "reconstruction", and those of the quantizer. The published weights are 1,
            "codebook" 1 and "commitment" 0.25.
    """

    x_hat: Tensor
    codes: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


class RQVAE(nn.Module):
    """Vectors to K codes, coarse to fine, and back.

    Differs: means over channels where the paper sums.

    Args:
        dim: D, channels of a vector.
        hidden: widths of the encoder's layers; the decoder has them in reverse.
        quantizer: usually a `Residual` of VQ or EMAVQ with `start=KMeans()`. While `quantizer.starting`, call
            `initialize` on a training batch before each step; after each optimizer step `tally.update`.

    Raises:
        ConfigError: for a width below 1.
    """

    def __init__(self, dim: int, hidden: Sequence[int], quantizer: Quantizer) -> None:
        super().__init__()
        widths = [dim, *hidden, quantizer.dim]
        if min(widths) < 1:
            raise ConfigError(f"RQVAE: dim and hidden must be at least 1, got {dim}, {list(hidden)}")
        self.dim = dim
        self.encoder, self.quantizer, self.decoder = _mlp(widths), quantizer, _mlp(widths[::-1])

    def forward(self, vectors: Tensor) -> Reconstructed:
        """Vectors (B, D), in training."""
        self._check(vectors)
        q = self.quantizer(self.encoder(vectors))
        x_hat = self.decoder(q.z).float()
        return Reconstructed(x_hat, q.codes, {"reconstruction": F.mse_loss(x_hat, vectors.float()), **q.losses})

    @torch.no_grad()
    def initialize(self, vectors: Tensor) -> None:
        """Starts codebooks that begin from data; see Quantizer.initialize."""
        self._check(vectors)
        self.quantizer.initialize(self.encoder(vectors))

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """Vectors (B, D) to codes int64 (B, K)."""
        self._check(vectors)
        return self.quantizer.encode(self.encoder(vectors))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 (B, K), or fewer where the quantizer decodes a prefix, to vectors (B, D)."""
        return self.decoder(self.quantizer.decode(codes))

    def _check(self, vectors: Tensor) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise InputError(f"RQVAE takes vectors (B, {self.dim}), got {tuple(vectors.shape)}")


def unique_ids(codes: Tensor) -> Tensor:
    """Codes with one more at the end that counts those equal before it, so that no two rows are equal.

    The count is in the order of the rows: 0 for the first of its kind, and for all that have no equal.

    Args:
        codes: int64 (n, K), of all items at once.

    Shapes: int64 (n, K + 1).

    Raises:
        InputError: codes of another shape.
    """
    if codes.ndim != 2:
        raise InputError(f"unique_ids takes codes (n, K), got {tuple(codes.shape)}")
    kind, size = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)[1:]
    order = kind.argsort(stable=True)  # equal ones together, in the order of the rows
    first = (size.cumsum(0) - size)[kind[order]]
    count = torch.empty_like(kind)
    count[order] = torch.arange(len(codes), device=codes.device) - first
    return torch.cat([codes, count[:, None]], 1)


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])
