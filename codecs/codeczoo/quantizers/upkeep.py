"""What keeps entries of a codebook alive: rules that move rarely used ones, after each training look-up.

Exact under DDP: N ranks do what one process does on the concatenated batch, and all ranks stay the same. With gradient
accumulation a rule runs once for every batch of the data module.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, distributed, nn

from codeczoo.core.errors import ConfigError

CHUNK = 1 << 22  # distances held at once: 16 MB of float32


class Upkeep(nn.Module, ABC):
    """A rule; `forward` is called once per training look-up and changes the codebook in place."""

    @abstractmethod
    def forward(self, codebook: Tensor, z: Tensor, index: Tensor) -> None:
        """codebook (V, D), the compared latents z (n, D) and their codes (n,), without masked ones."""


class Restart(Upkeep):
    """Every few steps, entries used far less than the average become random latents of the batch.

    Source: the relative rule of moshi's codebooks (github.com/kyutai-labs/moshi), which does not depend on batch size.

    Args:
        vocab_size: V.
        threshold: an entry is dead below this share of the mean usage, 0..1.
        every: training steps between restarts.
        decay: of the running usage, 0..1.
    """

    usage: Tensor
    steps: Tensor

    def __init__(self, vocab_size: int, threshold: float = 0.1, every: int = 5, decay: float = 0.9) -> None:
        super().__init__()
        if not 0 <= threshold < 1 or not 0 <= decay < 1 or every < 1:
            raise ConfigError(f"Restart: threshold and decay in 0..1, every >= 1; got {threshold}, {decay}, {every}")
        self.threshold, self.every, self.decay = threshold, every, decay
        self.register_buffer("usage", torch.ones(vocab_size))  # 1 is the mean
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, codebook: Tensor, z: Tensor, index: Tensor) -> None:
        """See Upkeep."""
        counts = _summed(torch.bincount(index, minlength=len(codebook)).float())
        self.usage.lerp_(counts * len(codebook) / counts.sum().clamp(min=1), 1 - self.decay)
        self.steps += 1
        dead = (self.usage < self.threshold) & (self.steps % self.every == 0) & (counts.sum() > 0)
        codebook.copy_(torch.where(dead[:, None], self._drawn(z, len(codebook)).to(codebook.dtype), codebook))
        self.usage.masked_fill_(dead, 1.0)

    def _drawn(self, z: Tensor, n: int) -> Tensor:
        """n random latents of all ranks' batches, (n, D), the same on every rank; drawn by the step's number."""
        first, total = _place(len(z), z.device)
        generator = torch.Generator().manual_seed(int(self.steps))
        wanted = (torch.rand(n, generator=generator).to(z.device) * total).long() - first
        mine = (wanted >= 0) & (wanted < len(z))
        if not len(z):
            return _summed(z.new_zeros(n, z.shape[1]))
        return _summed(z[wanted.clamp(0, len(z) - 1)] * mine[:, None])


class Anchors(Upkeep):
    """At every step rarely used entries move towards the latents that are closest to them.

    Source: CVQ-VAE (arXiv 2307.15139) as 1d-tokenizer trains TA-TiTok with it.
    Differs: chunked, no rank gathers another's latents.

    Args:
        vocab_size: V.
        decay: of the running share of tokens that each entry gets.
    """

    share: Tensor

    def __init__(self, vocab_size: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("share", torch.zeros(vocab_size))

    @torch.no_grad()
    def forward(self, codebook: Tensor, z: Tensor, index: Tensor) -> None:
        """See Upkeep."""
        counts = _summed(torch.bincount(index, minlength=len(codebook)).to(z.dtype))
        distance, closest = _closest_of_all_ranks(*_closest_latents(z, codebook))
        self.share.lerp_(counts / counts.sum().clamp(min=1), 1 - self.decay)
        alpha = torch.exp(-self.share * len(codebook) * 10 / (1 - self.decay) - 1e-3) * distance.isfinite()  # (V,)
        codebook.lerp_(closest.to(codebook.dtype), alpha[:, None].to(codebook.dtype))


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _summed(x: Tensor) -> Tensor:
    """x summed over all ranks."""
    if _together():
        distributed.all_reduce(x)
    return x


def _place(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where this rank's n latents begin among all ranks' latents, and how many those are."""
    counts = torch.zeros(distributed.get_world_size() if _together() else 1, dtype=torch.int64, device=device)
    rank = distributed.get_rank() if _together() else 0
    counts[rank] = n
    counts = _summed(counts)
    return counts[:rank].sum(), counts.sum()


def _closest_latents(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry the squared distance (V,) of its closest latent and that latent (V, D); inf where z is empty."""
    table = codebook.float()
    best = table.new_full((len(table),), torch.inf)
    vectors = torch.zeros_like(table)
    for part in z.split(max(1, CHUNK // len(table))) if len(z) else ():
        distance, at = torch.addmm(part.square().sum(1) / 2, table, part.t(), alpha=-1).min(1)  # (V,)
        distance = distance * 2 + table.square().sum(1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        vectors = torch.where(closer[:, None], part[at], vectors)
    return best, vectors


def _closest_of_all_ranks(distance: Tensor, closest: Tensor) -> tuple[Tensor, Tensor]:
    """The better of every rank's answers, the same on all ranks."""
    if not _together():
        return distance, closest
    mine = torch.cat([distance[:, None], closest], 1)  # (V, 1+D)
    everyone = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, mine)
    table = torch.stack(everyone)  # (W, V, 1+D)
    best, rank = table[..., 0].min(0)
    return best, table[rank, torch.arange(len(best), device=best.device), 1:]
