"""The nearest row of a table, without ever holding all distances."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from codeczoo.nn.linear import affine
from codeczoo.quantizers.layout import exporting

CHUNK = {"cpu": 1 << 20}  # scores held at once: 4 MB, which a core's cache nearly holds; 2 to 2.5 times as fast as all
LARGE = 1 << 26  # elsewhere
TRITON = find_spec("triton") is not None


def chunk_rows(width: int, device: torch.device) -> int:
    """How many rows of `width` numbers to work on at once."""
    cached = CHUNK.get(device.type, LARGE)
    return max(1, (LARGE if torch.compiler.is_compiling() else cached) // width)  # a graph should hold few pieces


def nearest(z: Tensor, table: Tensor, adjust: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Index of the nearest row by Euclidean distance; call it where no gradient is wanted.

    Args:
        z: (n, D) float32.
        table: (V, D) float32.
        adjust: changes the scores (chunk, V) before the greatest is taken; a score is z.e - |e|^2 / 2, that is minus
            half the squared distance up to a constant.

    Shapes: int64 (n,).
    """
    return highest(z, table, table.square().sum(1) / -2, adjust)


def highest(
    z: Tensor, table: Tensor, bias: Tensor | None = None, adjust: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Index of the row with the greatest score z.e + bias (V,). Other arguments and shapes: see `nearest`."""
    if adjust is None and fuses(z):
        from codeczoo.quantizers import lookup_triton  # only where there is a GPU

        return lookup_triton.highest(z, table, table.new_zeros(len(table)) if bias is None else bias)
    found = []
    rows = chunk_rows(len(table), z.device)
    whole = exporting() or len(z) <= rows  # an exported program would fix the number of pieces; dynamo splits no 0 rows
    for part in [z] if whole else z.split(rows):
        scores = affine(part, table, bias)
        # max, not argmax: the same first index, in less time on a CPU
        found.append((scores if adjust is None else adjust(scores)).max(1).indices)
    return torch.cat(found) if found else z.new_zeros(0, dtype=torch.int64)


def fuses(z: Tensor) -> bool:
    """Whether one kernel looks up and compares: with Triton, on a GPU, but not in a program made by torch.export."""
    return TRITON and z.is_cuda and z.dtype == torch.float32 and not exporting()


@torch.no_grad()
def histogram(index: Tensor, size: int, keep: Tensor | None = None) -> Tensor:
    """How often each of 0..size-1 occurs in index (n,) among the rows kept, float32 (size,). Waits for no device."""
    weight = torch.ones_like(index, dtype=torch.float32) if keep is None else keep.float()
    return torch.zeros(size, device=index.device).scatter_add_(0, index, weight)
