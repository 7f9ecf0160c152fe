"""What keeps entries of a codebook alive: rules that move rarely used ones.

Exact under DDP and gradient accumulation: the rules gather in every training forward and act at `update`, and what they
do then is what one process does on the concatenated batch.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers import sample
from codeczoo.quantizers.lookup import chunk_rows, histogram
from codeczoo.quantizers.ranks import gathered, summed, world_size
from codeczoo.quantizers.tally import Tally

if TYPE_CHECKING:
    from codeczoo.quantizers.tables import TableVQ


class Upkeep(nn.Module, ABC):
    """A rule about one codebook."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()

    @abstractmethod
    def frequencies(self) -> Tensor:
        """How often each entry was used lately, (V,), in any unit."""

    @abstractmethod
    def watch(self, table: Tensor, x: Tensor, index: Tensor, keep: Tensor | None) -> None:
        """In each training forward: the table (V, D), the compared latents (n, D), their codes (n,) and which count."""

    @abstractmethod
    def update(self, owner: "TableVQ") -> None:
        """Once per optimizer step, after the codebook has learned: moves entries of `owner`."""


class Restart(Upkeep):
    """Every few steps, entries used far less than the average become random latents of the step.

    An entry that was used in this very step stays. No two entries get the same latent.

    Source: the relative rule of moshi's codebooks (github.com/kyutai-labs/moshi), which does not depend on batch size.

    Args:
        vocab_size: V.
        threshold: an entry is dead below this share of the mean usage, 0..1.
        every: steps between restarts.
        decay: of the running usage, 0..1.
        most: entries restarted at once.
    """

    usage: Tensor
    steps: Tensor

    def __init__(
        self, vocab_size: int, threshold: float = 0.1, every: int = 5, decay: float = 0.9, most: int = 1024
    ) -> None:
        super().__init__()
        if not 0 <= threshold < 1 or not 0 <= decay < 1 or every < 1 or most < 1:
            got = f"{threshold}, {decay}, {every}, {most}"
            raise ConfigError(f"Restart: threshold and decay in 0..1, every and most >= 1; got {got}")
        self.threshold, self.every, self.decay, self.most = threshold, every, decay, min(most, vocab_size)
        self.register_buffer("usage", torch.ones(vocab_size))  # 1 is the mean
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def frequencies(self) -> Tensor:
        """See Upkeep."""
        return self.usage

    @torch.no_grad()
    def watch(self, table: Tensor, x: Tensor, index: Tensor, keep: Tensor | None) -> None:
        """See Upkeep."""
        self.tally.add("counts", histogram(index, len(self.usage), keep))
        key, held = sample.keys(x, keep, self.steps), self.tally.held
        if "key" in held:
            key, x = torch.cat([held["key"], key]), torch.cat([held["x"], x])
        held["key"], held["x"] = sample.smallest(key, x, self.most)

    @torch.no_grad()
    def update(self, owner: "TableVQ") -> None:
        """See Upkeep."""
        held = self.tally.take()
        if not held:
            return
        counts = summed(held["counts"])  # (V,)
        key, x = sample.of_all_ranks(held["key"], held["x"])
        total = counts.sum()
        self.usage.lerp_(counts * len(counts) / total.clamp(min=1), (total > 0) * (1 - self.decay))
        self.steps += 1
        dead = (self.usage < self.threshold) & (counts == 0) & (self.steps % self.every == 0)
        turn = dead.cumsum(0) - 1  # (V,) how many dead entries come before
        at = turn.clamp(0, self.most - 1)
        dead = dead & (turn < self.most) & key[at].isfinite()
        owner.move(dead.float(), x[at])
        self.usage.masked_fill_(dead, 1.0)


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
        if not 0 <= decay < 1:
            raise ConfigError(f"Anchors: decay must be in 0..1, got {decay}")
        self.decay = decay
        self.register_buffer("share", torch.zeros(vocab_size))

    def frequencies(self) -> Tensor:
        """See Upkeep."""
        return self.share

    @torch.no_grad()
    def watch(self, table: Tensor, x: Tensor, index: Tensor, keep: Tensor | None) -> None:
        """See Upkeep."""
        self.tally.add("counts", histogram(index, len(self.share), keep))
        distance, closest, held = *_closest_latents(x, keep, table), self.tally.held
        if "distance" in held:
            closer = distance < held["distance"]
            distance = torch.where(closer, distance, held["distance"])
            closest = torch.where(closer[:, None], closest, held["closest"])
        held["distance"], held["closest"] = distance, closest

    @torch.no_grad()
    def update(self, owner: "TableVQ") -> None:
        """See Upkeep."""
        held = self.tally.take()
        if not held:
            return
        counts = summed(held["counts"])
        everyone = gathered(torch.cat([held["distance"][:, None], held["closest"]], 1))  # (W*V, 1+D)
        everyone = everyone.view(world_size(), len(counts), -1)
        distance, rank = everyone[..., 0].min(0)  # (V,)
        closest = everyone[rank, torch.arange(len(counts), device=rank.device), 1:]  # (V, D)
        total = counts.sum()
        self.share.lerp_(counts / total.clamp(min=1), (total > 0) * (1 - self.decay))
        alpha = torch.exp(-self.share * len(counts) * 10 / (1 - self.decay) - 1e-3) * distance.isfinite()
        owner.move(alpha, closest)


def _closest_latents(x: Tensor, keep: Tensor | None, table: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry the squared distance (V,) of its closest latent and that latent (V, D); inf where none counts."""
    best = table.new_full((len(table),), torch.inf)
    vectors = torch.zeros_like(table)
    half = x.square().sum(1) / 2
    if keep is not None:
        half = half.masked_fill(~keep, torch.inf)
    if not len(x):
        return best, vectors
    step = chunk_rows(len(table), x.device)
    for part, bias in zip(x.split(step), half.split(step), strict=True):
        distance, at = torch.addmm(bias, table, part.t(), alpha=-1).min(1)  # (V,)
        distance = distance * 2 + table.square().sum(1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        vectors = torch.where(closer[:, None], part[at], vectors)
    return best, vectors
