"""Engine "ranks": processes that torchrun, srun or mpirun started, on one machine or many with a shared folder.

They never talk. Shard i belongs to rank i % world. A rank that has made its own parts makes those that others have not
made yet, from the last one back, so the parts of a rank that died are made too. Now and then two ranks make the same
part at the end; it is the same part, and the slower one leaves off once it is there. Each ends when all are there.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

from codeczoo.core.errors import InputError
from codeczoo.export.engines.base import Engine
from codeczoo.export.plan import PLAN, Plan
from codeczoo.export.shard import Facts, Worker
from codeczoo.export.store import is_done, to_do

PATIENCE, PAUSE = 120.0, 0.2  # seconds
VARIABLES = (  # rank, number of ranks, rank on its machine
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)


class Rank(NamedTuple):
    """Which process this is: number, how many there are, number on its machine."""

    number: int
    world: int
    local: int


def this_rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """What the launcher says. Raises InputError where none does."""
    for names in VARIABLES:
        if names[0] in environment and names[1] in environment:
            try:
                found = Rank(*(int(environment.get(name, 0)) for name in names))
            except ValueError:
                raise InputError(f"{', '.join(names)} must be numbers") from None
            if not 0 <= found.number < found.world:
                raise InputError(f"{names[0]}={found.number} must be below {names[1]}={found.world}")
            return found
    raise InputError("--engine ranks: wants a launcher that sets RANK and WORLD_SIZE, as torchrun, srun and mpirun do")


def begun(folder: Path) -> Plan:
    """The plan that rank 0 makes, once it is there. Raises InputError where nothing comes for PATIENCE seconds."""
    start = monotonic()
    while not (folder / PLAN).is_file():
        if not folder.exists() and monotonic() - start > PATIENCE:
            raise InputError(f"rank 0 has begun no export in {folder} for {PATIENCE:g} s (is that a shared folder?)")
        sleep(PAUSE)
    return Plan.open(folder)


class Ranks(Engine):
    """Takes its own shards, then those that are left.

    Args:
        worker: makes the parts.
        rank: which process this is.
    """

    def __init__(self, worker: Worker, rank: Rank) -> None:
        self.worker, self.rank = worker, rank

    def run(self) -> Iterator[Facts]:
        """See Engine."""
        plan, (number, world, _) = self.worker.plan, self.rank
        shards = range(len(plan.shards))
        order = [*shards[number::world], *(shard for shard in reversed(shards) if shard % world != number)]
        with closing(self.worker):
            for i, shard in enumerate(order):
                if not is_done(plan, shard):
                    yield from self._until_made(shard, to_do(plan, islice(order, i + 1, None)))

    def _until_made(self, shard: int, following: Iterator[int]) -> Iterator[Facts]:
        """Makes a part until it is there, whoever made it."""
        plan = self.worker.plan
        with closing(self.worker.work(shard, following)) as work:
            for facts in work:
                made = Facts.read(plan, shard) if plan.part(shard).is_file() else None
                yield made or facts
                if made:
                    return
