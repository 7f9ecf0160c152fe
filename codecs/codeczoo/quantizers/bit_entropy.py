"""Entropies of codes made of independent bits, in nats, exactly and without a token's distribution over codes.

The logit of a bit is the log of how much likelier 1 is than 0. A token's code has the product distribution of its bits,
so its entropy is the sum over bits. The mean of these distributions over tokens is no product; but that over a field of
g bits is a matrix product of the distributions over its two halves, (2^(g/2), n) by (n, 2^(g-g/2)).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.quantizers.lookup import chunk_rows

SURE = 1e3  # logit of a bit that is always 1, in float32 exactly


class _OfBits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        size = logits.abs()
        return size * torch.sigmoid(-size) - F.logsigmoid(size)  # two terms of one sign: nothing cancels

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        return -grad * logits * torch.sigmoid(logits) * torch.sigmoid(-logits)


class _Joint(torch.autograd.Function):
    """Saves the logits alone and works on a chunk of tokens at a time, forward and backward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, keep: Tensor | None) -> Tensor:
        ctx.save_for_backward(logits, keep)
        total: Tensor | float = 0.0
        for _, first, second in _halves(logits, keep):
            total = total + first @ second.transpose(1, 2)
        assert isinstance(total, Tensor)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, keep = ctx.saved_tensors
        grad = grad - grad.mean((1, 2), keepdim=True)  # the sum of a distribution is constant: this only keeps digits
        half, parts = logits.shape[1] // 2, []
        for chances, first, second in _halves(logits, keep):
            lower = _of_logits((grad @ second) * first, chances[:, :half])
            upper = _of_logits((grad.transpose(1, 2) @ first) * second, chances[:, half:])
            parts.append(torch.stack(lower + upper, 1))  # (G, g, chunk)
        return torch.cat(parts, 2), None


def of_bits(logits: Tensor) -> Tensor:
    """The entropy of each bit, of the shape of `logits`; smooth at 0, and 0 for logits of any greater size."""
    return _OfBits.apply(logits)


def joint_sums(logits: Tensor, keep: Tensor | None) -> Tensor:
    """The distributions over the 2^g codes of each field, summed over tokens.

    Memory is that of `logits` and of one chunk, in the backward pass too.

    Args:
        logits: (G, g, n), G fields of g bits, of n tokens.
        keep: bool (n,), which tokens count; None: all.

    Shapes: (G, 2^(g // 2), 2^(g - g // 2)); bits 0..g//2-1 of a field make the row, later bits are of higher value.
    """
    return _Joint.apply(logits, keep)


def of_distribution(p: Tensor) -> Tensor:
    """The entropy of probabilities, summed over all distributions in `p`; 0 where p is 0, and so is its gradient."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum()


def fields(logits: Tensor, widths: tuple[int, ...], most: int) -> Tensor:
    """Logits (n, D) of codebooks of so many bits each to fields (G, g, n) of at most so many bits.

    A codebook is cut into as few fields as possible, of about equal size. All fields get the size of the largest, by
    bits that are always 1 and so change no entropy.
    """
    counts = [-(-width // most) for width in widths]
    size = max(-(-width // count) for width, count in zip(widths, counts, strict=True))
    parts = logits.t().split(widths)  # (bits, n) each
    missing = [count * size - width for width, count in zip(widths, counts, strict=True)]
    padded = [F.pad(part, (0, 0, 0, m), value=SURE) for part, m in zip(parts, missing, strict=True)]
    return torch.cat(padded).view(sum(counts), size, len(logits))


def _halves(logits: Tensor, keep: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """By chunks of tokens: chances (G, g, 2, chunk) of 0 and 1, and the distributions over either half of the bits."""
    count, bits, n = logits.shape
    half = bits // 2
    step = chunk_rows(count * (2**half + 2 ** (bits - half)), logits.device)
    for start in range(0, max(n, 1), step):
        part = logits[..., start : start + step]
        chances = torch.stack([-part, part], 2).sigmoid()
        one = torch.ones_like(part[:, :1])  # (G, 1, chunk)
        counted = one if keep is None else one * keep[start : start + step]
        yield chances, _product(counted, chances[:, :half]), _product(one, chances[:, half:])


def _product(start: Tensor, chances: Tensor) -> Tensor:
    """start (G, 1, n) times the distribution (G, 2^h, n) over the codes of bits with chances (G, h, 2, n)."""
    for k in range(chances.shape[1]):
        start = (start[:, None] * chances[:, k, :, None]).flatten(1, 2)  # (G, 2 * 2^k, n)
    return start


def _of_logits(pull: Tensor, chances: Tensor) -> list[Tensor]:
    """Gradients (G, n) of each bit's logit, from p * dL/dp of each code (G, 2^h, n)."""
    found: list[Tensor] = []
    for k in reversed(range(chances.shape[1])):
        pull = pull.unflatten(1, (2, -1))  # (G, 2, 2^k, n), by the highest bit that is left
        zero, one = pull.sum(2).unbind(1)
        found.insert(0, one * chances[:, k, 0] - zero * chances[:, k, 1])  # no 1 - p: exact where p is nearly 1
        pull = pull.sum(1)
    return found
