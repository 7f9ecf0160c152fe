"""last.ckpt to resume from, best and last weights that `codeczoo.load` opens, and a graceful Ctrl-C."""

import signal
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from codeczoo import zoo
from codeczoo.core.errors import ConfigError, nearest
from codeczoo.engine.sharding import whole
from codeczoo.engine.task import CodecTask


class Interrupted(Exception):
    """Ctrl-C came; the checkpoint is written."""


class Checkpoints(Callback):
    """Writes last.ckpt and last.safetensors every `every` effective batches and at the end, best.safetensors after the
    best validation.

    Args:
        folder: of the run.
        recipe: text that goes into the weights' headers.
        every: effective batches between checkpoints.
        monitor: validation number that says which weights are the best, such as "val/psnr".
        mode: "max" where its greatest value is the best, "min" where the least is.
    """

    def __init__(self, folder: Path, recipe: str, every: int, monitor: str, mode: str = "max") -> None:
        if every < 1:
            raise ConfigError(f"run.checkpoint_every must be at least 1, got {every}")
        if mode not in ("max", "min"):
            raise ConfigError(f"run.mode must be max or min, got {mode!r}")
        self.folder, self.recipe, self.every, self.monitor, self.mode = folder, recipe, every, monitor, mode
        self.best: float | None = None
        self.saved_at = -1
        self._asked_to_stop = False
        self._previous: Any = None

    # --- saving ------------------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time. Raises Interrupted after Ctrl-C, on all ranks in the same batch."""
        assert isinstance(pl_module, CodecTask)
        if pl_module.batches % pl_module.accumulate:
            return
        step, stop = trainer.global_step, self._asked_to_stop
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop or step == trainer.max_steps or step % self.every == 0:
            self.save(trainer, pl_module)
        if stop:
            raise Interrupted

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Runs that end by time or early stopping are saved too."""
        assert isinstance(pl_module, CodecTask)
        if self.saved_at != trainer.global_step:
            self.save(trainer, pl_module)

    def save(self, trainer: Trainer, task: CodecTask) -> None:
        """Everything that a resume needs, and the weights. Every rank must call it."""
        self.saved_at = trainer.global_step
        temporary = self.folder / "last.ckpt.part"
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            temporary.replace(self.folder / "last.ckpt")
        self._save_weights(trainer, task, "last")

    def _save_weights(self, trainer: Trainer, task: CodecTask, name: str) -> None:
        numbers = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        extra = {"step": trainer.global_step, "ema": task.ema is not None, "validation": numbers}
        with task.averaged():
            codec = whole(task.codec)
            if trainer.is_global_zero:
                zoo.save(self.folder / f"{name}.safetensors", codec, recipe=self.recipe, extra=extra)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the best weights."""
        assert isinstance(pl_module, CodecTask)
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            known = [k for k in trainer.callback_metrics if k.startswith("val/")]
            raise ConfigError(f"run.monitor: validation gives no '{self.monitor}'; {nearest(self.monitor, known)}")
        value = float(trainer.callback_metrics[self.monitor])
        if self.best is None or (value > self.best if self.mode == "max" else value < self.best):
            self.best = value
            self._save_weights(trainer, pl_module, "best")

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.best = state_dict["best"]

    # --- Ctrl-C ------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over Ctrl-C where this process may."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_sigint)

    def _on_sigint(self, number: int, frame: Any) -> None:
        if self._asked_to_stop:  # the second one is meant
            raise KeyboardInterrupt
        self._asked_to_stop = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives it back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
