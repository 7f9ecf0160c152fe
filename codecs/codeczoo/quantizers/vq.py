"""Vector quantization: the nearest row of a learned codebook.

Source: VQ-VAE (arXiv 1711.00937); cosine look-up of ViT-VQGAN (arXiv 2110.04627); anchors of CVQ-VAE
(arXiv 2307.15139) as 1d-tokenizer trains TA-TiTok with them.
Differs: look-up in chunks that never hold tokens x entries at once; the forward value is exactly the code.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from codeczoo.core.base import Quantizer
from codeczoo.core.types import Quantized

CHUNK = 1 << 22  # scores held at once: 16 MB of float32


class StraightThrough(torch.autograd.Function):
    """Forward the code itself, bit for bit; backward its gradient to the latent."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, code: Tensor) -> Tensor:
        """Both (..., D)."""
        return code.view_as(code)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient goes to z alone."""
        return grad, None


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest row by Euclidean distance: z (n, D), codebook (V, D) to int64 (n,)."""
    bias = codebook.square().sum(1) / -2  # argmin |z-e|^2 == argmax z.e - |e|^2/2
    step = max(1, CHUNK // codebook.shape[0])
    found = [torch.addmm(bias, part, codebook.t()).argmax(1) for part in z.split(step)]
    return torch.cat(found) if found else z.new_zeros(0, dtype=torch.int64)


class VQ(Quantizer):
    """Euclidean nearest neighbour in a codebook learned by gradient.

    Losses: "commitment" mean (z - sg(code))^2 and "codebook" mean (code - sg(z))^2. All in float32 under autocast.

    Args:
        vocab_size: V, entries.
        dim: D, channels of a latent.
    """

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.vocab_sizes, self.dim = (vocab_size,), dim
        self.codebook = nn.Parameter(torch.empty(vocab_size, dim).uniform_(-1 / vocab_size, 1 / vocab_size))

    def normalise(self, vectors: Tensor) -> Tensor:
        """What is compared and returned: the vectors (..., D) as they are."""
        return vectors

    def forward(self, z: Tensor, valid: Tensor | None = None) -> Quantized:
        """See Quantizer.forward. K is 1; z of masked positions is 0."""
        with torch.autocast(z.device.type, enabled=False):
            flat = self.normalise(rearrange(z.float(), "b d ... -> (b ...) d"))  # (n, D)
            table = self.normalise(self.codebook.float())
            index = nearest(flat.detach(), table.detach())
            code = F.embedding(index, table)
            keep = None if valid is None else valid.reshape(-1)
            losses = {
                "commitment": _masked_mean(F.mse_loss(flat, code.detach(), reduction="none"), keep),
                "codebook": _masked_mean(F.mse_loss(code, flat.detach(), reduction="none"), keep),
            }
            if self.training:
                self.after_lookup(flat.detach(), index, keep)
            out = StraightThrough.apply(flat, code)
            if keep is not None:
                out, index = out * keep[:, None], index * keep
        shape = z.shape[:1] + z.shape[2:]
        codes = index.view(z.shape[0], 1, *z.shape[2:])
        return Quantized(out.view(*shape, self.dim).movedim(-1, 1).to(z.dtype), codes, losses)

    def after_lookup(self, z: Tensor, index: Tensor, keep: Tensor | None) -> None:
        """Called once a training step with the compared latents (n, D) and their codes; nothing to do here."""

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """z (B, D, *S) to codes int64 (B, 1, *S)."""
        with torch.autocast(z.device.type, enabled=False):
            flat = self.normalise(rearrange(z.float(), "b d ... -> (b ...) d"))  # (n, D)
            index = nearest(flat, self.normalise(self.codebook.float()))
        return index.view(z.shape[0], 1, *z.shape[2:])

    def decode(self, codes: Tensor) -> Tensor:
        """codes int64 (B, 1, *S) to z (B, D, *S)."""
        with torch.autocast(codes.device.type, enabled=False):
            return F.embedding(codes[:, 0], self.normalise(self.codebook.float())).movedim(-1, 1)


class CosineVQ(VQ):
    """Nearest by angle: latents and entries are compared, trained and returned on the unit sphere."""

    def normalise(self, vectors: Tensor) -> Tensor:
        """Unit length along the last axis."""
        return F.normalize(vectors, dim=-1)


class ClusteringVQ(VQ):
    """VQ whose rarely used entries move to the closest latents of the batch ("anchors") at every training step.

    Exact under DDP: the closest latent and the counts are those of all ranks together.

    Args:
        vocab_size: V, entries.
        dim: D, channels of a latent.
        decay: of the running share of tokens that each entry gets.
    """

    embed_prob: Tensor

    def __init__(self, vocab_size: int, dim: int, decay: float = 0.99) -> None:
        super().__init__(vocab_size, dim)
        self.decay = decay
        self.register_buffer("embed_prob", torch.zeros(vocab_size))

    @torch.no_grad()
    def after_lookup(self, z: Tensor, index: Tensor, keep: Tensor | None) -> None:
        """Moves the entries; see the class."""
        vocab = self.vocab_sizes[0]
        if keep is not None:
            z, index = z[keep], index[keep]
        counts = torch.bincount(index, minlength=vocab).to(z.dtype)
        distance, closest = _closest_latents(z, self.codebook)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(counts)
            distance, closest = _closest_of_all_ranks(distance, closest)
        self.embed_prob.lerp_(counts / counts.sum().clamp(min=1), 1 - self.decay)
        share = self.embed_prob * vocab * 10 / (1 - self.decay)
        alpha = torch.exp(-share - 1e-3) * distance.isfinite()  # (V,)
        self.codebook.lerp_(closest.to(self.codebook.dtype), alpha[:, None].to(self.codebook.dtype))


def _closest_latents(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry the squared distance (V,) of its closest latent and that latent (V, D); inf where z is empty."""
    table = codebook.float()
    best = table.new_full((len(table),), torch.inf)
    vectors = torch.zeros_like(table)
    for part in z.split(max(1, CHUNK // len(table))):
        distance, at = (torch.addmm(part.square().sum(1) / 2, table, part.t(), alpha=-1)).min(1)
        distance = distance * 2 + table.square().sum(1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        vectors = torch.where(closer[:, None], part[at], vectors)
    return best, vectors


def _closest_of_all_ranks(distance: Tensor, closest: Tensor) -> tuple[Tensor, Tensor]:
    """The better of every rank's answers, the same on all ranks."""
    mine = torch.cat([distance[:, None], closest], 1)  # (V, 1+D)
    everyone = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, mine)
    table = torch.stack(everyone)  # (W, V, 1+D)
    best, rank = table[..., 0].min(0)
    return best, table[rank, torch.arange(len(best), device=best.device), 1:]


def _masked_mean(x: Tensor, keep: Tensor | None) -> Tensor:
    """Mean of x (n, D) over the kept rows; 0 when none is."""
    if keep is None:
        return x.mean()
    weight = keep.to(x.dtype)
    return (x.mean(1).nan_to_num() * weight).sum() / weight.sum().clamp(min=1)
