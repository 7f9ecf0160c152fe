"""Engine "local": one process makes all parts."""

from collections.abc import Iterator

from codeczoo.export.engines.base import Engine
from codeczoo.export.shard import Facts, Worker
from codeczoo.export.store import undone


class Local(Engine):
    """Takes the shards in order.

    Args:
        worker: makes the parts.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def run(self) -> Iterator[Facts]:
        """See Engine."""
        for shard in undone(self.worker.plan, self.worker.spec):
            yield from self.worker.work(shard)
