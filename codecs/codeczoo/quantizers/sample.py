"""A random sample of latents that does not depend on how they were divided among batches and ranks.

Every latent has a key in 0..1 that follows from its own numbers and the step; the sample is those of smallest keys.
"""

import torch
from torch import Tensor

from codeczoo.quantizers.ranks import gathered

SPREAD = 31.0  # turns of the key per standard deviation: many, but few enough for rounding not to change the order


def keys(x: Tensor, keep: Tensor | None, step: Tensor) -> Tensor:
    """Keys of latents (n, D), in 0..1; inf for rows that do not count. `step` is a scalar that changes the order."""
    d = x.shape[1]
    phase = torch.arange(1, d + 1, device=x.device, dtype=torch.float64) * 12.9898 + step * 78.233
    direction = ((phase.sin() * 43758.5453) % 1 - 0.5).to(x.dtype)  # (D,), no generator: nothing waits for the device
    length = x.norm(dim=1).clamp(min=1e-30)
    along = (x * direction).sum(1)  # not a matrix product, which may round equal rows differently
    along = along / (length * direction.norm()) * d**0.5  # about standard normal
    key = ((along + length.log()) * SPREAD) % 1
    return key if keep is None else torch.where(keep, key, torch.inf)


def smallest(key: Tensor, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest different keys in order and their latents, (k,) and (k, D); inf and zeros where there are fewer.

    Equal latents have equal keys, so no latent occurs twice, however often it came.
    """
    if len(key) < k:
        key = torch.cat([key, key.new_full((k - len(key),), torch.inf)])
        x = torch.cat([x, x.new_zeros(k - len(x), x.shape[1])])
    key, order = key.sort()
    again = torch.cat([key.new_zeros(1, dtype=torch.bool), key[1:] == key[:-1]])
    best, at = torch.where(again, torch.inf, key).topk(k, largest=False, sorted=True)
    return best, x[order[at]]


def of_all_ranks(key: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The samples (k,), (k, D) of all ranks made one of the same size, the same everywhere."""
    return smallest(gathered(key), gathered(x), len(key))
