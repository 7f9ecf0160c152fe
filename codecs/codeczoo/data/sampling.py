"""Which sample is drawn when: pure functions of the seed and a count, independent of workers and ranks.

Training is one endless row of draws, numbered over all ranks; every run of `length` draws holds each sample once, in a
fresh order. Of W ranks with B samples each, global batch b takes draws b·W·B to (b+1)·W·B - 1, and rank r the r-th
slice of it, so that W ranks with batch B see together what one process with batch W·B sees.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from codeczoo.core.errors import InputError

ORDER, AUGMENT, BATCH = 0, 1, 2  # what a random stream is for, so that no two share their numbers


class Draw(NamedTuple):
    """What a dataset is asked for.

    Args:
        number: of the draw.
        sample: which one.
        batch: the first draw of its batch over all ranks: names the batch, whoever asks.
    """

    number: int
    sample: int
    batch: int = 0


def generator(seed: int, *place: int) -> torch.Generator:
    """A random stream of its own for every place, e.g. `generator(seed, AUGMENT, draw)`."""
    mixed = np.random.SeedSequence((seed, *place)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed))


def integer(below: int, random: torch.Generator) -> int:
    """A whole number in 0..below - 1."""
    return int(torch.randint(below, (), generator=random))


def uniform(low: float, high: float, random: torch.Generator) -> float:
    """A number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=random))


def rank_and_world() -> tuple[int, int]:
    """This process's rank and how many there are, as torch.distributed says; (0, 1) without it."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class EndlessBatches(Sampler[list[Draw]]):
    """Batches of draws without end, for `DataLoader(batch_sampler=)`.

    Args:
        length: number of samples.
        batch_size: B, per process.
        seed: of the order.
        start: first draw, counted over all ranks: where a resumed run goes on.
        rank_world: (rank, world size); None asks torch.distributed when the iteration begins.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, start: int = 0, rank_world: tuple[int, int] | None = None
    ) -> None:
        if length < 1 or batch_size < 1:
            raise InputError(f"sampling wants length and batch_size >= 1, got {length} and {batch_size}")
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        self.rank_world = rank_world

    def __iter__(self) -> Iterator[list[Draw]]:
        rank, world = self.rank_world or rank_and_world()
        epoch, order = -1, torch.empty(0)
        start = self.start
        while True:
            batch = []
            first = start + rank * self.batch_size
            for draw in range(first, first + self.batch_size):
                if draw // self.length != epoch:
                    epoch = draw // self.length
                    order = torch.randperm(self.length, generator=generator(self.seed, ORDER, epoch))
                batch.append(Draw(draw, int(order[draw % self.length]), start))
            yield batch
            start += world * self.batch_size


class OrderedBatches(Sampler[list[Draw]]):
    """Every sample once, in order, for validation. Global batches are split evenly over the ranks.

    All ranks get the same number of batches, so that collectives in a validation step stay matched; batch sizes differ
    by at most one and stay at or below `batch_size` (more only where there are fewer than batches x ranks samples).
    An average over batches must therefore be weighted by their sizes.

    Args:
        length: number of samples, at least the world size.
        batch_size: most samples per batch and process.
        rank_world: (rank, world size); None asks torch.distributed.
    """

    def __init__(self, length: int, batch_size: int, rank_world: tuple[int, int] | None = None) -> None:
        self.length, self.batch_size, self.rank_world = length, batch_size, rank_world

    def __iter__(self) -> Iterator[list[Draw]]:
        rank, world = self.rank_world or rank_and_world()
        for batch in np.array_split(np.arange(self.length), len(self) * world)[rank::world]:
            yield [Draw(int(i), int(i)) for i in batch]

    def __len__(self) -> int:
        _, world = self.rank_world or rank_and_world()
        if self.length < world:
            raise InputError(f"{self.length} validation samples cannot be split over {world} ranks")
        return min(-(-self.length // (world * self.batch_size)), self.length // world)
