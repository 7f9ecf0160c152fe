"""Engine "local": one process makes all parts."""

from collections.abc import Iterator

from codeczoo.export.engines.base import Engine
from codeczoo.export.shard import Facts, Worker
from codeczoo.export.store import is_done


class Local(Engine):
    """Takes the shards in order.

    Args:
        worker: makes the parts.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def run(self) -> Iterator[Facts]:
        """See Engine."""
        for shard in range(len(self.worker.plan.shards)):
            if not is_done(self.worker.plan, shard):
                yield from self.worker.work(shard)
