"""The row of a table with the greatest score, in one kernel for GPUs: scores never leave the chip.

Never run on a GPU so far: Triton's interpreter agrees with `lookup.highest`, and the kernel compiles for compute
capabilities 8.0 and 9.0 within their shared memory (tests/test_quantizer_gpu.py).
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

TOKENS, ENTRIES, CHANNELS = 64, 128, 32  # of a tile; CHANNELS at most
WARPS, STAGES = 8, 3
PROGRAMS = 1024  # that a GPU should at least have to do, where there are entries enough


@triton.jit
def _best(
    z: tl.tensor,  # (n, d)
    table: tl.tensor,  # (v, d)
    bias: tl.tensor,  # (v,)
    scores: tl.tensor,  # (pieces, n), the greatest of each piece of the table
    index: tl.tensor,  # (pieces, n), where that is
    n: tl.tensor,
    v: tl.tensor,
    d: tl.constexpr,
    tiles: tl.constexpr,  # of a piece
    tokens: tl.constexpr,
    entries: tl.constexpr,
    channels: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * tokens + tl.arange(0, tokens)
    piece = tl.program_id(1)
    best = tl.full((tokens,), float("-inf"), tl.float32)
    at = tl.zeros((tokens,), tl.int32) + piece * tiles * entries
    for tile in range(tiles):
        first = (piece * tiles + tile) * entries
        entry = (first + tl.arange(0, entries)).to(tl.int64)
        score = tl.zeros((tokens, entries), tl.float32)
        for k in range(0, d, channels):
            channel = k + tl.arange(0, channels)
            inside = channel < d
            here = z + row[:, None] * d + channel[None, :]
            there = table + entry[None, :] * d + channel[:, None]
            x = tl.load(here, (row < n)[:, None] & inside[None, :], 0.0)
            e = tl.load(there, (entry < v)[None, :] & inside[:, None], 0.0)
            score = tl.dot(x, e, score, input_precision="ieee")
        score += tl.load(bias + entry, entry < v, 0.0)[None, :]
        score = tl.where(score == score, score, float("inf"))  # as torch, where no number is the greatest
        score = tl.where((entry < v)[None, :], score, float("-inf"))
        top, place = tl.max(score, 1, return_indices=True)  # the first of equal ones
        at = tl.where(top > best, first + place, at)
        best = tl.maximum(best, top)
    tl.store(scores + piece * n + row, best, row < n)
    tl.store(index + piece * n + row, at.to(tl.int64), row < n)


@torch.library.custom_op("codeczoo::highest", mutates_args=())
def highest(z: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Index of the row with the greatest score z.e + bias, the first where several have it.

    Args:
        z: (n, D) float32.
        table: (V, D) float32.
        bias: (V,) float32.

    Shapes: int64 (n,).
    """
    (n, d), v = z.shape, len(table)
    blocks, pieces = triton.cdiv(n, TOKENS), 1
    tiles = triton.next_power_of_2(triton.cdiv(v, ENTRIES))  # so that there are few kernels to compile
    while tiles > 1 and blocks * pieces < PROGRAMS:
        tiles, pieces = tiles // 2, pieces * 2
    pieces = triton.cdiv(v, tiles * ENTRIES)
    scores = z.new_empty(pieces, n)
    index = z.new_empty(pieces, n, dtype=torch.int64)
    if n:
        _best[blocks, pieces](
            z.contiguous(), table.contiguous(), bias, scores, index, n, v, d, tiles,
            TOKENS, ENTRIES, channels_of_tile(d), num_warps=WARPS, num_stages=STAGES,
        )
    return index.gather(0, scores.max(0, keepdim=True).indices)[0]


def channels_of_tile(d: int) -> int:
    """The power of two that a tile of D channels has, at least 16."""
    return min(CHANNELS, max(16, triton.next_power_of_2(d)))


@highest.register_fake
def _(z: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    return z.new_empty(len(z), dtype=torch.int64)
