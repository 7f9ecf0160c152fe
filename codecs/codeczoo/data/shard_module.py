"""What data modules of tar shards share."""

from logging import getLogger
from pathlib import Path
from typing import Any

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.data.media import Media
from codeczoo.data.module import DataModule, Loader
from codeczoo.data.sampling import rank_and_world
from codeczoo.data.shard_reader import ShardReader, expand
from codeczoo.data.shards import TrainingShards, ValidationShards

log = getLogger(__name__)


class ShardModule(DataModule):
    """Samples in WebDataset tar shards.

    In each pass over the data every sample is seen once, over all ranks and workers; ranks or workers with smaller
    shards begin their next pass earlier. Which samples meet in a batch depends on the number of workers. A resumed run
    does NOT go on with the next batch: it begins a pass in a fresh order, and says so in the log.

    Corrupt files, samples without the file or caption wanted and the rest of damaged shards are skipped, counted in
    `skipped`, and the first ones named in the log.

    Args:
        urls: shards: paths or URLs (http through curl, pipe:COMMAND, ...) with {000..123} for many; a string or a list.
        train_media: how their files become x.
        val_media: how validation files do.
        batch_size: per process.
        val_urls: shards for validation, read in order; None for none.
        text: where the captions are: "txt" or e.g. "json.caption"; None reads none.
        shuffle: samples held per worker, among which the next is drawn.
        seed: of order and augmentation.
        workers: processes that read ahead; ranks x workers must not exceed the number of shards.

    Raises:
        InputError: (on setup) a local shard that does not exist.
        ConfigError: (when the loader is made) fewer shards than ranks x workers.
    """

    def __init__(
        self, urls: str | list[str], train_media: Media, val_media: Media, batch_size: int,
        val_urls: str | list[str] | None, text: str | None, shuffle: int, seed: int, workers: int,
    ) -> None:
        super().__init__(batch_size, seed, workers)
        if shuffle < 1:
            raise ConfigError(f"data: shuffle must be at least 1, got {shuffle}")
        self.shards, self.val_shards = expand(urls), expand(val_urls or [])
        self.text, self.shuffle = text, shuffle
        self.train_media, self.val_media = train_media, val_media

    def setup(self, stage: str | None = None) -> None:
        """Looks whether the local shards are there."""
        for shard in self.shards + self.val_shards:
            if "://" not in shard and not shard.startswith("pipe:") and not Path(shard).is_file():
                raise InputError(f"no such shard: {shard}")

    def train_dataloader(self) -> Loader:
        """Endless batches in an order of their own for each start."""
        self._go_on()
        rank_world = rank_and_world()
        readers = rank_world[1] * max(1, self.workers)
        if len(self.shards) < readers:
            raise ConfigError(
                f"data: {len(self.shards)} shards cannot feed {rank_world[1]} ranks x {max(1, self.workers)} workers; "
                f"set data.workers to at most {len(self.shards) // rank_world[1]} or write more shards"
            )
        if self._start:
            log.warning("resumed after %d samples: tar shards begin again in a fresh order", self._start)
        reader = ShardReader(self.shards, self.train_media, self.text, self.workers)
        self.train_set = TrainingShards(reader, self.batch_size, self.seed, self.shuffle, self._start, rank_world)
        return self.stream_loader(self.train_set, self.workers)

    def val_dataloader(self) -> Loader | list[Any]:
        """The validation samples in order, each on one rank only; an empty list when there are none."""
        if not self.val_shards:
            return []
        workers = min(1, self.workers)
        reader = ShardReader(self.val_shards, self.val_media, self.text, workers)
        self.val_set = ValidationShards(reader, self.batch_size, rank_and_world())
        return self.stream_loader(self.val_set, workers)

    def order(self) -> dict[str, int]:
        """See DataModule."""
        return {"seed": self.seed, "shards": len(self.shards)}
