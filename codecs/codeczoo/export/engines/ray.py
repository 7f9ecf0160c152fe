"""Engine "ray": actors of Ray, each with the codec, on one machine or a cluster with a shared folder.

The actor of a shard dies: another one makes the part. Ray's own data pipeline is not used: it keeps nothing that was
done when it dies.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from codeczoo import zoo
from codeczoo.core.errors import InputError, MissingError
from codeczoo.export.batches import Runner
from codeczoo.export.engines.base import Engine
from codeczoo.export.engines.turns import Turns
from codeczoo.export.plan import Plan
from codeczoo.export.shard import Facts, Worker
from codeczoo.export.store import is_done

try:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.exceptions import ActorDiedError, RayTaskError
except ImportError:
    raise MissingError('engine ray needs ray: pip install "codeczoo[ray]"') from None

DEATHS = 3  # of actors over one shard, before it is the shard that is wrong


class Ray(Engine):
    """One shard at a time for each actor, in order, and the next one read ahead.

    Starts Ray, or joins the cluster that RAY_ADDRESS names.

    Args:
        plan: what is to be done; its folder and its codec are there for all actors under the same path.
        batch: most samples at once.
        workers: actors; None: one for each GPU, or for each CPU where the codec runs on those.

    Raises:
        InputError: more actors than Ray has GPUs, or CPUs, for.
    """

    def __init__(self, plan: Plan, batch: int, workers: int | None) -> None:
        self.plan, self.batch = plan, batch
        if not ray.is_initialized():
            logging.getLogger("ray").setLevel(logging.ERROR)
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        kind = "GPU" if plan.options["device"] == "cuda" else "CPU"
        self.most = int(ray.cluster_resources().get(kind, 0))
        if not 1 <= (workers or self.most) <= self.most:
            raise InputError(f"--workers {workers or 1}: Ray has {self.most} {kind}s")
        self.workers = workers or self.most
        self._needs = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
        self._codec = str(zoo.find(plan.options["codec"]).absolute())

    def run(self) -> Iterator[Facts]:
        """See Engine."""
        turns = Turns(shard for shard in range(len(self.plan.shards)) if not is_done(self.plan, shard))
        actors = {number: self._new() for number in range(min(self.workers, len(turns)))}
        free, busy = [*actors], dict[Any, tuple[int, int]]()  # result to come: shard, number of the actor
        deaths = Counter[int]()
        while turns or busy:
            while turns and free:
                number = free.pop()
                shard, following = turns.take(number)
                busy[actors[number].work.remote(shard, following)] = shard, number
            result = ray.wait(list(busy))[0][0]
            shard, number = busy.pop(result)
            try:
                yield ray.get(result)
            except ActorDiedError as error:
                deaths[shard] += 1
                if deaths[shard] == DEATHS:
                    why = str(error).strip().splitlines()[-1]
                    raise InputError(f"{DEATHS} actors died over shard {shard}, the last: {why}") from None
                turns.lost(number, shard)
                actors[number] = self._new()
            except RayTaskError as error:
                raise error.cause from None
            free.append(number)

    def _new(self) -> Any:
        made: Any = ray.remote(**self._needs)(Actor)  # type: ignore[call-overload]
        return made.remote(str(self.plan.folder.absolute()), self._codec, self.batch)


class Actor:
    """Makes parts in a process of its own.

    Args:
        folder: of the plan.
        codec: its weights file.
        batch: most samples at once.
    """

    def __init__(self, folder: str, codec: str, batch: int) -> None:
        plan = Plan.open(Path(folder))
        options, model = plan.options, zoo.load(codec)
        digest = zoo.weights_hash(model)
        runner = Runner(model.to(options["device"]), options["codec"], digest, batch, options["precision"])
        self.worker, self._coming = Worker(plan, runner), deque[int]()

    def work(self, shard: int, following: Sequence[int]) -> Facts:
        """Makes a part; what became of its inputs. The files of what follows are read ahead."""
        if self._coming and self._coming[0] != shard:  # it was to be next, and another actor took it
            self._coming.clear()
        self._coming.extend(following)
        *_, facts = self.worker.work(shard, self._ahead())
        return facts

    def _ahead(self) -> Iterator[int]:
        while self._coming:
            yield self._coming.popleft()
