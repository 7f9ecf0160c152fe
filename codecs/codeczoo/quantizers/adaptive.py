"""A codebook for every sample by itself: k-means over that sample's tokens.

Source: the adaptive discretisation of VQToken (arXiv 2503.16980).
Differs: all samples at once, no random numbers, masks; the silhouette is the simplified one, which compares distances
to centres instead of distances among all tokens.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.quantizers.layout import rows


@dataclass(frozen=True, eq=False)
class Clusters:
    """Tokens of each sample in clusters of its own.

    Args:
        centres: (B, K, D), the mean of each cluster's tokens; 0 from the sample's number of clusters on.
        index: int64 (B, *S), the cluster of each token, 0 where masked. It means nothing without `centres`.
        counts: int64 (B, K), tokens of each cluster. Where a sample has fewer different tokens than clusters, some have
            none, and their centre is that of another.
        clusters: int64 (B,), 1..K, how many each sample has.
        valid: bool (B, *S), which tokens count, or None.
    """

    centres: Tensor
    index: Tensor
    counts: Tensor
    clusters: Tensor
    valid: Tensor | None = None

    def decode(self) -> Tensor:
        """The centre of each token's cluster, (B, D, *S); 0 where masked."""
        each = self.index.flatten(1)[..., None].expand(-1, -1, self.centres.shape[2])  # (B, N, D)
        z = self.centres.gather(1, each).transpose(1, 2).unflatten(2, self.index.shape[1:])  # (B, D, *S)
        return z if self.valid is None else z * self.valid[:, None]


class Rule(nn.Module, ABC):
    """How many clusters a sample gets: a measure for each number, and a choice among these."""

    @abstractmethod
    def measure(self, own: Tensor, other: Tensor, keep: Tensor) -> Tensor:
        """Distances (B, N) of tokens to their own and to the next centre (inf: there is none), which count, to (B,)."""

    @abstractmethod
    def choose(self, measures: Tensor) -> Tensor:
        """Measures (numbers of clusters, B), fewest first, to int64 (B,), which one is best."""


class Silhouette(Rule):
    """The greatest mean of (other - own) / max(own, other)."""

    def measure(self, own: Tensor, other: Tensor, keep: Tensor) -> Tensor:
        """See Rule; 0 for a single cluster."""
        other = torch.where(other.isfinite(), other, own)
        each = (other - own) / torch.maximum(own, other).clamp(min=1e-12)
        return (each * keep).sum(1) / keep.sum(1).clamp(min=1)

    def choose(self, measures: Tensor) -> Tensor:
        """See Rule."""
        return measures.argmax(0)


class Elbow(Rule):
    """Where the curve of squared errors lies deepest below the line between its ends."""

    def measure(self, own: Tensor, other: Tensor, keep: Tensor) -> Tensor:
        """See Rule."""
        return (own.square() * keep).sum(1)

    def choose(self, measures: Tensor) -> Tensor:
        """See Rule."""
        along = torch.linspace(0, 1, len(measures), device=measures.device)[:, None]
        return (torch.lerp(measures[:1], measures[-1:], along) - measures).argmax(0)


class AdaptiveKMeans(nn.Module):
    """Clusters the tokens of each sample, by Euclidean distance. An analysis tool, not a Quantizer.

    Its codes are positions in a list that each sample brings along: there is no vocabulary that samples share, so codes
    of two samples cannot be compared, no language model can learn them, and decoding wants the centres, which cost K D
    numbers a sample. So it has no `encode` and no `decode` of codes, only `fit`, and no gradient.

    Deterministic: it starts from the token nearest to the mean and adds the token farthest from all that it has.

    Args:
        least: fewest clusters of a sample, at least 1.
        most: most clusters; equal to `least` for a fixed number.
        rule: which number between them; not used when they are equal.
        iterations: passes over the tokens, at least 1.

    Raises:
        ConfigError: for arguments out of range.
    """

    def __init__(self, least: int = 12, most: int = 20, rule: Rule | None = None, iterations: int = 10) -> None:
        super().__init__()
        if not 1 <= least <= most or iterations < 1:
            got = f"{least}, {most}, {iterations}"
            raise ConfigError(f"{type(self).__name__}: 1 <= least <= most and iterations >= 1, got {got}")
        self.least, self.most, self.iterations = least, most, iterations
        self.rule = rule or Silhouette()

    def normalise(self, vectors: Tensor) -> Tensor:
        """Where tokens and centres (..., D) are compared: as they are."""
        return vectors

    @torch.no_grad()
    def fit(self, z: Tensor, valid: Tensor | None = None) -> Clusters:
        """The clusters of tokens z (B, D, *S), of those that are valid, bool (B, *S). Memory is that of B N (K + D).

        Raises:
            InputError: z without tokens, or a mask of another shape.
        """
        if z.ndim < 3 or not z.numel():
            raise InputError(f"{type(self).__name__}: wanted tokens (B, D, *S), got {tuple(z.shape)}")
        with torch.autocast(z.device.type, enabled=False):
            flat, keep = rows(z, valid)
            x = rearrange(flat, "(b n) d -> b n d", b=len(z))
            kept = torch.ones_like(x[..., 0]) if keep is None else keep.view(x.shape[:2]).float()  # (B, N)
            centres, index, counts, clusters = self._fit(x, kept)
        return Clusters(centres, index.view(z.shape[0], *z.shape[2:]), counts, clusters, valid)

    def _fit(self, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        compared = self.normalise(x)
        start = _farthest_first(compared, keep, self.most)
        fits = [self._lloyd(x, compared, keep, start[:, :k]) for k in range(self.least, self.most + 1)]
        best = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if len(fits) > 1:
            best = self.rule.choose(torch.stack([self._measure(compared, keep, c, i) for c, i, _ in fits]))
        lacking = [self.most - c.shape[1] for c, _, _ in fits]
        centres = torch.stack([F.pad(c, (0, 0, 0, m)) for (c, _, _), m in zip(fits, lacking, strict=True)])
        counts = torch.stack([F.pad(n, (0, m)) for (_, _, n), m in zip(fits, lacking, strict=True)])
        index = torch.stack([i for _, i, _ in fits])  # (numbers of clusters, B, N)
        at = best, torch.arange(len(x), device=x.device)
        return centres[at], index[at], counts[at].long(), best + self.least

    def _lloyd(self, x: Tensor, compared: Tensor, keep: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means (B, k, D) of x, clusters (B, N) and counts (B, k)."""
        for _ in range(self.iterations):
            index = torch.cdist(compared, self.normalise(centres)).min(2).indices * keep.long()
            member = F.one_hot(index, centres.shape[1]) * keep[..., None]  # (B, N, k); a product adds in fixed order
            counts = member.sum(1)
            means = member.transpose(1, 2) @ x / counts.clamp(min=1)[..., None]
            centres = torch.where(counts[..., None] > 0, means, centres)
        return centres, index, counts

    def _measure(self, compared: Tensor, keep: Tensor, centres: Tensor, index: Tensor) -> Tensor:
        distance = torch.cdist(compared, self.normalise(centres))  # (B, N, k)
        own = distance.gather(2, index[..., None])[..., 0]
        other = distance.scatter(2, index[..., None], torch.inf).amin(2)
        return self.rule.measure(own, other, keep)


class CosineAdaptiveKMeans(AdaptiveKMeans):
    """AdaptiveKMeans by angle, as VQToken does it; centres are still means of the tokens as they are."""

    def normalise(self, vectors: Tensor) -> Tensor:
        """Unit length along the last axis."""
        return F.normalize(vectors, dim=-1)


def _farthest_first(x: Tensor, keep: Tensor, k: int) -> Tensor:
    """Of tokens (B, N, D) the one nearest to the mean and k - 1 more, each farthest from those before; (B, k, D)."""
    batch = torch.arange(len(x), device=x.device)
    mean = (x * keep[..., None]).sum(1, keepdim=True) / keep.sum(1).clamp(min=1)[:, None, None]
    at = (x - mean).square().sum(2).masked_fill(keep == 0, torch.inf).argmin(1)  # (B,)
    chosen = [x[batch, at]]
    gap = (x - chosen[0][:, None]).square().sum(2).masked_fill(keep == 0, -1.0)  # (B, N)
    for _ in range(k - 1):
        chosen.append(x[batch, gap.argmax(1)])
        gap = torch.minimum(gap, (x - chosen[-1][:, None]).square().sum(2))
    return torch.stack(chosen, 1)
