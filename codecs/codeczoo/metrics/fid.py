"""rFID and FVD: the Frechet distance between the features of originals and reconstructions."""

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, is_available, is_initialized

from codeczoo.core.errors import InputError


class Gaussian(nn.Module):
    """Mean and covariance of feature vectors that come in batches, in float64; nothing of it goes into checkpoints.

    Args:
        dim: length of a feature vector.
    """

    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64), persistent=False)
        self.register_buffer("total", torch.zeros(dim, dtype=torch.float64), persistent=False)
        self.register_buffer("outer", torch.zeros(dim, dim, dtype=torch.float64), persistent=False)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """features (B, D)."""
        features = features.double()
        self.count += len(features)
        self.total += features.sum(0)
        self.outer += features.T @ features

    def reduce(self) -> None:
        """Sums over all ranks, in place: call once, on every rank, when no more updates follow."""
        if is_available() and is_initialized():
            for part in (self.count, self.total, self.outer):
                all_reduce(part, op=ReduceOp.SUM)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and unbiased covariance (D, D). Raises InputError for fewer than two vectors."""
        n = float(self.count)
        if n < 2:
            raise InputError(f"a Frechet distance needs at least 2 samples on each side, got {n:.0f}")
        mean = self.total / n
        return mean, (self.outer - n * torch.outer(mean, mean)) / (n - 1)


class ReconstructionFID(nn.Module):
    """Frechet distance between the features of pictures, or clips, and of their reconstructions.

    Published values use 50 000 ImageNet validation pictures, or thousands of clips; with few the value is far too high.

    Args:
        features: uint8 (B, 3, *S) to feature vectors (B, dim): `metrics.inception.Inception` (2048) for the usual rFID,
            `metrics.i3d.ClipFeatures` (400) for FVD.
        dim: length of a feature vector.
    """

    def __init__(self, features: nn.Module, dim: int = 2048) -> None:
        super().__init__()
        self.features = features
        self.real = Gaussian(dim)
        self.fake = Gaussian(dim)

    @torch.no_grad()
    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Counts both batches, float (B, 3, *S) in [0, 1], rounded to 8 bits as files would be."""
        for gaussian, batch in ((self.real, x), (self.fake, x_hat)):
            media = (batch.float().clamp(0, 1) * 255).round().to(torch.uint8)
            gaussian.update(self.features(media))

    def reduce(self) -> None:
        """Sums over all ranks; call once, on every rank, before `result`."""
        self.real.reduce()
        self.fake.reduce()

    def result(self) -> float:
        """The distance. Raises InputError for fewer than two samples."""
        return frechet_distance(*self.real.moments(), *self.fake.moments())


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """|mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2)) in float64, for means (D,) and covariances (D, D)."""
    mean_a, covariance_a, mean_b, covariance_b = (t.double() for t in (mean_a, covariance_a, mean_b, covariance_b))
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    # A B and root(A) B root(A) have the same eigenvalues, and the second is symmetric.
    crossed = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * crossed
    return float(distance.clamp_min(0))
