"""The progress bar."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from codeczoo.engine.recorder import Recorder


class ProgressBar(Callback):
    """One line: batches, time left, loss, quality, codebook use, speed, share of time spent waiting for data.

    Args:
        recorder: has the numbers.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.progress: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the bar, on rank 0."""
        if trainer.is_global_zero:
            columns = MofNCompleteColumn(), BarColumn(20), TimeRemainingColumn(), TextColumn("{task.fields[numbers]}")
            self.progress = Progress(*columns, console=Console(stderr=True))
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self.progress.add_task("train", total=total, completed=trainer.global_step, numbers="")
            self.progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves it."""
        if self.progress is not None:
            task = self.progress.task_ids[0]
            self.progress.update(task, completed=trainer.global_step, numbers=summary(self.recorder.latest))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the new numbers."""
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[0], numbers=summary(self.recorder.latest))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the last line where it is."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def summary(numbers: dict[str, float]) -> str:
    """The few numbers that fit beside the bar."""
    forms = (
        ("train/loss", "loss {:.4f}"), ("train/psnr", "psnr {:.1f}"), ("val/psnr", "val {:.1f}"),
        ("val/mel", "val mel {:.3f}"),
        ("train/codebook_use", "codes {:.0%}"), ("train/samples_per_s", "{:.0f}/s"), ("train/data_wait", "wait {:.0%}"),
    )
    return "  ".join(form.format(numbers[name]) for name, form in forms if name in numbers)
