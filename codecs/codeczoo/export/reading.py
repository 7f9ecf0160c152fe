"""The files of one shard after the other, as threads read them: those of the next while the codec works on one."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, tee
from typing import NamedTuple

from codeczoo.core.errors import CodeczooError
from codeczoo.export.batches import Prefix
from codeczoo.export.inputs import Absent, Input
from codeczoo.export.plan import Plan
from codeczoo.export.sources import Media, Sample


class Job(NamedTuple):
    """The inputs of a shard: those to be read, and why others cannot be, by their numbers in the plan."""

    shard: int
    present: dict[int, Input]
    failed: dict[int, str]


class Reading:
    """Shards in the order in which they are read. The samples of each job are taken, all of them, before the next job.

    Args:
        plan: of the shards.
        media: reads the files.
        prefix: of token files among them.
        shard: the first one.
        following: those after it, asked one by one when they are wanted; ends at one that cannot be asked.
    """

    def __init__(self, plan: Plan, media: Media, prefix: Prefix, shard: int, following: Iterable[int]) -> None:
        self._jobs, read = tee(_jobs(plan, shard, following))
        self._samples = media.loaded((one.found() for job in read for one in job.present.values()), prefix)

    def next(self) -> Job | None:
        """The next shard; None behind the last."""
        return next(self._jobs, None)

    def samples(self, job: Job) -> Iterator[Sample]:
        """One for each input that is there, in order."""
        return islice(self._samples, len(job.present))

    def close(self) -> None:
        """Reads no more."""
        self._samples.close()


def _jobs(plan: Plan, shard: int, following: Iterable[int]) -> Iterator[Job]:
    yield _job(plan, shard)
    with suppress(CodeczooError):  # told when it is their turn
        for number in following:
            yield _job(plan, number)


def _job(plan: Plan, shard: int) -> Job:
    inputs = dict(enumerate(plan.inputs_of(shard), plan.shards[shard].first))
    failed = {number: one.why for number, one in inputs.items() if isinstance(one, Absent) and one.failed}
    return Job(shard, {number: one for number, one in inputs.items() if not isinstance(one, Absent)}, failed)
