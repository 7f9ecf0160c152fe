"""Rates of tokens."""

from math import log2, prod

import torch
from torch import Tensor

from codeczoo.core.types import Tokens


def nominal_bits(tokens: Tokens) -> Tensor:
    """Bits of each sample when every code takes log2(vocab size), float64 (B,); padding costs nothing."""
    return torch.stack(stream_bits(tokens)).sum(0)


def stream_bits(tokens: Tokens) -> list[Tensor]:
    """`nominal_bits` of each stream that is there."""
    found = []
    for s, codes in enumerate(tokens.streams):
        per_position = sum(log2(v) for v in tokens.spec.streams[s].vocab_sizes[: codes.shape[1]])
        positions = tokens.stream_lengths(s).to(codes.device, torch.float64) * prod(codes.shape[3:])
        found.append(positions * per_position)
    return found


def bits_per_pixel(tokens: Tokens) -> Tensor:
    """Nominal bits per pixel (image) or per sample or voxel of the original size, float64 (B,)."""
    return nominal_bits(tokens) / tokens.size.to(tokens.streams[0].device).prod(1)
