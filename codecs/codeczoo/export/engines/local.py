"""Engine "local": one process makes all parts."""

from collections.abc import Iterator
from contextlib import closing

from codeczoo.export.engines.base import Engine
from codeczoo.export.shard import Facts, Worker
from codeczoo.export.store import to_do


class Local(Engine):
    """Takes the shards in order.

    Args:
        worker: makes the parts.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def run(self) -> Iterator[Facts]:
        """See Engine."""
        plan = self.worker.plan
        shards = range(len(plan.shards))
        with closing(self.worker):
            for shard in to_do(plan, shards):
                yield from self.worker.work(shard, to_do(plan, shards[shard + 1 :]))
