"""Vector quantization: the nearest row of a learned codebook.

Source: VQ-VAE (arXiv 1711.00937); cosine look-up of ViT-VQGAN (arXiv 2110.04627).
Differs: look-up in chunks that never hold tokens x entries at once; the forward value is exactly the code.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.base import Quantizer
from codeczoo.core.types import Quantized
from codeczoo.quantizers.upkeep import Upkeep

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
        upkeep: what moves rarely used entries in training; None: only the gradient does.
    """

    def __init__(self, vocab_size: int, dim: int, upkeep: Upkeep | None = None) -> None:
        super().__init__()
        self.vocab_sizes, self.dim, self.upkeep = (vocab_size,), dim, upkeep
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
            if self.training and self.upkeep is not None:
                rows = slice(None) if keep is None else keep
                self.upkeep(self.codebook.data, flat.detach()[rows], index[rows])
            out = StraightThrough.apply(flat, code)
            if keep is not None:
                out, index = out * keep[:, None], index * keep
        shape = z.shape[:1] + z.shape[2:]
        codes = index.view(z.shape[0], 1, *z.shape[2:])
        return Quantized(out.view(*shape, self.dim).movedim(-1, 1).to(z.dtype), codes, losses)

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


def _masked_mean(x: Tensor, keep: Tensor | None) -> Tensor:
    """Mean of x (n, D) over the kept rows; 0 when none is."""
    if keep is None:
        return x.mean()
    weight = keep.to(x.dtype)
    return (x.mean(1).nan_to_num() * weight).sum() / weight.sum().clamp(min=1)
