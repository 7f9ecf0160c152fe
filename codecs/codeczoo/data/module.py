"""What all data modules share: loaders, exact resume, and the count of skipped samples."""

import gc
import signal
from collections.abc import Callable, Iterator
from logging import getLogger
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from codeczoo.core.errors import CodeczooError, ConfigError, MissingError
from codeczoo.data.samples import Batch, collate
from codeczoo.data.sampling import Draw, EndlessBatches, OrderedBatches, rank_and_world

try:
    from lightning.pytorch import LightningDataModule, Trainer
except ImportError:
    raise MissingError('training wants Lightning: pip install "codeczoo[train]"') from None

log = getLogger(__name__)
REPORT_EVERY = 1000  # batches between looks at the skipped samples, where no end of an epoch comes


class Indexed(Protocol):
    """A dataset by draws, as `FileSet`."""

    def __len__(self) -> int: ...
    def __getitem__(self, draw: Draw) -> Any: ...


def leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and Slurm's SIGUSR1 reach workers too; the training process must still get the batches to end its step."""
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class Loader(DataLoader[Batch]):
    """A DataLoader that reports newly skipped samples, and whose workers' errors stay one line."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        report = getattr(self.dataset, "report", lambda: None)
        gc.collect()  # a worker that frees a decoder of this process waits for its threads, which it does not have
        try:
            for count, batch in enumerate(super().__iter__(), 1):
                yield batch
                if count % REPORT_EVERY == 0:
                    report()
        except CodeczooError as error:
            # From a worker the message is a traceback whose last line is "module.InputError: what it said".
            last = str(error).strip().splitlines()[-1]
            raise type(error)(last.split("Error: ", 1)[-1]) from None
        report()


def finished(trainer: Trainer | None) -> int:
    """Batches that the trainer has trained on, since it was made or its checkpoint was; 0 without a trainer."""
    if trainer is None:
        return 0
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return int(total.processed)


class DataModule(LightningDataModule):
    """Base of the data modules. Training is one endless epoch (set `max_steps`, `use_distributed_sampler=False`).

    Batches are dicts: "x" float32, (B, 3, H, W) in [0, 1] or (B, C, T) in [-1, 1], "key" list of str and, where there
    are captions, "text"; "lengths" int64 (B,) where validation clips differ in length.
    The state holds how many samples the trainer has finished training on (not how many the workers have read ahead), so
    that a resumed run goes on with exactly the next batch, also with another number of workers.

    Args:
        batch_size: per process, as everywhere in Lightning; with N processes a step sees N times as many.
        seed: of order and augmentation.
        workers: processes that read ahead; 0 reads in the training process. The batches do not depend on it.
    """

    def __init__(self, batch_size: int, seed: int, workers: int) -> None:
        super().__init__()
        if batch_size < 1 or workers < 0 or seed < 0:
            got = f"{batch_size}, {workers} and {seed}"
            raise ConfigError(f"data: batch_size must be at least 1, workers and seed at least 0, got {got}")
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.counter: Callable[[], int] = lambda: finished(self.trainer)  # batches trained on, see `finished`
        self.train_set: Any = None
        self.val_set: Any = None
        self._start = 0  # draws before the current training loader
        self._finished_before = 0  # batches that the trainer had finished by then
        self._resumed_from: dict[str, int] | None = None

    # ---- loaders ----

    def setup(self, stage: str | None = None) -> None:
        """Finds out what samples there are."""
        raise NotImplementedError

    def train_dataloader(self) -> Loader:
        """Endless batches from where the last loader, or the loaded state, stopped."""
        self._go_on()
        batches = EndlessBatches(len(self.train_set), self.batch_size, self.seed, self._start)
        return self.draws_loader(self.train_set, batches)

    def val_dataloader(self) -> Loader | list[Any]:
        """The validation samples in order, each on one rank only; an empty list when there are none."""
        if self.val_set is None:
            return []
        return self.draws_loader(self.val_set, OrderedBatches(len(self.val_set), self.batch_size))

    def draws_loader(self, dataset: Indexed, batches: Sampler[list[Draw]]) -> Loader:
        """A loader of a dataset by draws."""
        return Loader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=torch.cuda.is_available(),
        )

    def stream_loader(self, dataset: Dataset[Batch], workers: int) -> Loader:
        """A loader of an iterable dataset that yields whole batches."""
        return Loader(
            dataset,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=torch.cuda.is_available(),
        )

    # ---- state ----

    @property
    def draws(self) -> int:
        """Training samples that the trainer has finished, over all ranks and since the first start."""
        _, world = rank_and_world()
        return self._start + (self.counter() - self._finished_before) * self.batch_size * world

    def state_dict(self) -> dict[str, int]:
        """Plain integers: where the run is, and what the order depends on."""
        return {"draws": self.draws, **self.order()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """The next training loader goes on after the batches of this state."""
        self._start, self._finished_before = state_dict["draws"], self.counter()
        self._resumed_from = state_dict

    def order(self) -> dict[str, int]:
        """What, besides the number of draws, decides which sample comes next."""
        return {"seed": self.seed, "samples": len(self.train_set) if self.train_set is not None else 0}

    def _go_on(self) -> None:
        if self._resumed_from is None:
            self._start = self.draws
        else:
            for name, now in self.order().items():
                before = self._resumed_from.get(name, now)
                if before != now:
                    log.warning("resumed with %s %s, was %s: the samples come in another order", name, now, before)
        self._resumed_from, self._finished_before = None, self.counter()

    @property
    def skipped(self) -> int:
        """Samples that this process and its workers could not use so far, training and validation."""
        return sum(s.skipped for s in (self.train_set, self.val_set) if hasattr(s, "skipped"))
