"""Who makes which shard next, where each worker reads the files of its next shard ahead."""

from collections import deque
from collections.abc import Iterable


class Turns:
    """Shards in order, each worker's next one kept for it. Who has nothing left takes what is kept for another.

    Args:
        shards: to be made.
    """

    def __init__(self, shards: Iterable[int]) -> None:
        self._todo = deque(shards)
        self._kept: dict[int, int] = {}  # by worker

    def __len__(self) -> int:
        """How many shards nobody has begun."""
        return len(self._todo) + len(self._kept)

    def take(self, worker: int) -> tuple[int, list[int]]:
        """The shard that a worker makes now, and the one that it is to read ahead, where there is one left."""
        if worker in self._kept:
            shard = self._kept.pop(worker)
        elif self._todo:
            shard = self._todo.popleft()
        else:
            shard = self._kept.pop(next(iter(self._kept)))
        if self._todo:
            self._kept[worker] = self._todo.popleft()
        return shard, [self._kept[worker]] if worker in self._kept else []

    def lost(self, worker: int, shard: int) -> None:
        """A worker died over a shard: it and what was kept for the worker come next."""
        if worker in self._kept:
            self._todo.appendleft(self._kept.pop(worker))
        self._todo.appendleft(shard)
