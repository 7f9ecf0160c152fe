"""Streams of batches out of tar shards: endless for training, once and in order for validation."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from codeczoo.core.errors import InputError
from codeczoo.data.media import Media, this_worker
from codeczoo.data.samples import Batch, Sample, collate
from codeczoo.data.sampling import AUGMENT, BATCH, ORDER, generator
from codeczoo.data.shard_reader import ShardReader

FRUITLESS = 5  # passes of one worker, which reads other shards in each, before it is the data set that is wrong


class TrainingShards(IterableDataset[Batch]):
    """Endless batches. In each pass every shard is read by exactly one worker of one rank, in a fresh order.

    Args:
        reader: of the shards.
        batch_size: per process.
        seed: of order and augmentation.
        buffer: samples among which the order is drawn, per worker.
        start: where a resumed run begins; only chooses another order.
        rank_world: (rank, world size) of this process.
    """

    def __init__(
        self, reader: ShardReader, batch_size: int, seed: int, buffer: int, start: int, rank_world: tuple[int, int]
    ) -> None:
        self.reader, self.batch_size, self.seed, self.buffer, self.start = reader, batch_size, seed, buffer, start
        self.rank, self.world = rank_world

    @property
    def skipped(self) -> int:
        """See ShardReader."""
        return self.reader.skipped

    def __iter__(self) -> Iterator[Batch]:
        batch: list[Sample] = []
        for sample in self.samples():
            batch.append(sample)
            if len(batch) == self.batch_size:
                yield collate(batch)
                batch = []

    def samples(self) -> Iterator[Sample]:
        """This worker's share of pass after pass. Raises InputError when FRUITLESS passes in a row gave nothing."""
        worker, workers = this_worker()
        shards, place = self.reader.shards, self.rank * workers + worker
        fruitless = made = 0
        for epoch in count():
            order = torch.randperm(len(shards), generator=generator(self.seed, ORDER, self.start, epoch))
            mine = [shards[i] for i in order[place :: self.world * workers].tolist()]
            order_key = f"{self.seed} {self.start} {epoch} {place}"
            fruitless += 1
            for number, item in enumerate(self.reader.shuffled(mine, self.buffer, order_key)):
                random = generator(self.seed, AUGMENT, self.start, epoch, place, number)
                sample = self.reader.load(item, random, self.media_of(made // self.batch_size))
                if sample is not None:
                    fruitless, made = 0, made + 1
                    yield sample
            if fruitless == FRUITLESS:
                raise InputError(f"no usable sample in {fruitless} passes over the shards, the last from {mine[0]}")

    def media_of(self, batch: int) -> Media:
        """What makes this worker's batch number `batch`; that of the same step on all ranks has the same in common."""
        worker, workers = this_worker()
        return self.reader.media.of_batch(generator(self.seed, BATCH, self.start, batch * workers + worker))


class ValidationShards(IterableDataset[Batch]):
    """All samples in order, each on one rank, with the same number of batches on every rank.

    Every rank reads all shards but decodes only its share. Iterate with at most one worker.

    Args:
        reader: of the shards.
        batch_size: per process.
        rank_world: (rank, world size) of this process.
    """

    def __init__(self, reader: ShardReader, batch_size: int, rank_world: tuple[int, int]) -> None:
        self.reader, self.batch_size = reader, batch_size
        self.rank, self.world = rank_world

    @property
    def skipped(self) -> int:
        """See ShardReader."""
        return self.reader.skipped

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.global_batches():
            share = np.array_split(np.arange(len(batch)), self.world)[self.rank]
            yield collate([self.reader.load(batch[i], generator(0), self.reader.media) for i in share])

    def global_batches(self) -> Iterator[list[dict[str, Any]]]:
        """Undecoded batches of all ranks; a last one with fewer samples than ranks is joined to the one before it."""
        held: list[dict[str, Any]] = []
        now: list[dict[str, Any]] = []
        for shard in self.reader.shards:
            for sample in self.reader.raw(shard):
                if len(now) == self.world * self.batch_size:
                    if held:
                        yield held
                    held, now = now, []
                now.append(sample)
        batches = [held, now] if len(now) >= self.world else [held + now]
        if len(batches[-1]) < self.world:
            raise InputError(f"{len(batches[-1])} validation samples cannot be split over {self.world} ranks")
        yield from filter(None, batches)
