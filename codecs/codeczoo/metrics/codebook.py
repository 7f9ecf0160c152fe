"""How much of each codebook is used."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, is_available, is_initialized

from codeczoo.core.types import Tokens, TokenSpec


@dataclass(frozen=True)
class Use:
    """Statistics of one codebook.

    Args:
        stream: its name.
        codebook: index in the stream, 0 is the coarsest.
        vocab_size: its entries.
        codes: how many codes were counted.
        share: entries that occurred at least once, of all entries, 0..1.
        bits: entropy of the code frequencies per position, at most log2(vocab_size).
        perplexity: 2 ** bits, the number of equally frequent entries of the same entropy; 1 when nothing was counted.
    """

    stream: str
    codebook: int
    vocab_size: int
    codes: int
    share: float
    bits: float
    perplexity: float


class CodebookUse(nn.Module):
    """Histograms of the codes of every stream and codebook, kept on the device without waiting for it.

    Nothing of it goes into checkpoints. Typical use: `update` per batch, then `reduce`, `result`, `reset`.

    Args:
        spec: of the codec whose tokens are counted.
    """

    counts: Tensor

    def __init__(self, spec: TokenSpec) -> None:
        super().__init__()
        self.spec = spec
        self.sizes = [list(stream.vocab_sizes) for stream in spec.streams]
        total = sum(map(sum, self.sizes))
        self.register_buffer("counts", torch.zeros(total, dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def update(self, tokens: Tokens) -> None:
        """Counts the valid positions of all streams and codebooks that are there."""
        first = 0
        for s, codes in enumerate(tokens.streams):
            grid = codes.reshape(*codes.shape[:3], -1)  # (B, K, first axis, other axes)
            valid = torch.arange(grid.shape[2], device=grid.device) < tokens.stream_lengths(s)[:, None]
            weight = valid[:, :, None].expand(-1, -1, grid.shape[3]).to(torch.int64).flatten()
            for k in range(grid.shape[1]):
                start = first + sum(self.sizes[s][:k])
                # Not bincount: it waits for the device to learn the largest code.
                self.counts.scatter_add_(0, (grid[:, k] + start).flatten(), weight)
            first += sum(self.sizes[s])

    def reduce(self) -> None:
        """Sums the counts over all ranks, in place: call once, on every rank, when no more updates follow."""
        if is_available() and is_initialized():
            all_reduce(self.counts, op=ReduceOp.SUM)

    def reset(self) -> None:
        """Forgets everything counted."""
        self.counts.zero_()

    def result(self) -> list[Use]:
        """One entry per stream and codebook, coarse to fine; waits for the device."""
        parts = iter(self.counts.cpu().split([size for sizes in self.sizes for size in sizes]))
        return [
            use(stream.name, k, next(parts)) for stream in self.spec.streams for k in range(len(stream.vocab_sizes))
        ]


def use(stream: str, codebook: int, counts: Tensor) -> Use:
    """Statistics of one histogram, int64 (V,)."""
    total = int(counts.sum())
    p = counts[counts > 0].double() / max(total, 1)
    bits = float(-(p * p.log2()).sum())
    share = float((counts > 0).double().mean())
    return Use(stream, codebook, len(counts), total, share, bits, 2**bits)
