"""Numbers and pictures of a run: to the loggers, to curve.csv and curve.png in the run folder."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from codeczoo.core.types import Tokens
from codeczoo.engine.task import CodecTask
from codeczoo.engine.validation import Clip
from codeczoo.io.audio_write import write as write_audio
from codeczoo.io.files import atomic
from codeczoo.io.image import write
from codeczoo.metrics.codebook import CodebookUse


class Recorder(Callback):
    """Writes every `trainer.log_every_n_steps` effective batches, from rank 0 alone, and after every validation.

    Attributes:
        latest: newest numbers by name, for the progress bar.

    Args:
        folder: of the run; None writes no files.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.latest: dict[str, float] = {}
        self._use: CodebookUse | None = None
        self._drawn = time.perf_counter()
        self._restart_clock()

    # --- speed -------------------------------------------------------------------------------------------------------

    def _restart_clock(self) -> None:
        self._begin = self._last_end = time.perf_counter()
        self._waited, self._samples = 0.0, 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """What passed since the last batch's end was waiting for data."""
        self._waited += time.perf_counter() - self._last_end

    def _speed(self, world_size: int) -> dict[str, float]:
        took = max(time.perf_counter() - self._begin, 1e-9)
        return {"samples_per_s": self._samples * world_size / took, "data_wait": self._waited / took}

    # --- training ----------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run forgets the lines that came after its checkpoint."""
        assert isinstance(pl_module, CodecTask)
        self._use = CodebookUse(pl_module.codec.spec).to(pl_module.device)
        if self.folder is not None and trainer.is_global_zero:
            forget_after(self.folder / "curve.csv", trainer.global_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock begins."""
        self._restart_clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts; writes when it is time."""
        assert isinstance(pl_module, CodecTask) and self._use is not None
        self._samples += len(batch["x"])
        if codes := tuple(outputs["codes"]):
            self._use.update(Tokens(pl_module.codec.spec, codes, torch.zeros(len(batch["x"]), 0)))
        stepped = pl_module.batches % pl_module.accumulate == 0
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if stepped and trainer.global_step % every == 0 and trainer.is_global_zero:
            uses = self._use.result()
            numbers = {name: float(value) for name, value in outputs["values"].items()}  # waits for the device
            numbers["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
            if uses:
                numbers["codebook_use"] = sum(u.share for u in uses) / len(uses)
            self._write(trainer, {f"train/{k}": v for k, v in (numbers | self._speed(trainer.world_size)).items()})
            self._use.reset()
            self._restart_clock()
        self._last_end = time.perf_counter()

    def _write(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        self.latest |= numbers
        for logger in trainer.loggers:
            logger.log_metrics(dict(numbers), step=trainer.global_step)
        if self.folder is not None:
            with (self.folder / "curve.csv").open("a", newline="") as file:
                rows = csv.writer(file)
                rows.writerows([trainer.global_step, name, f"{value:.7g}"] for name, value in numbers.items())

    # --- validation --------------------------------------------------------------------------------------------------

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Numbers, picture, sounds, curve."""
        assert isinstance(pl_module, CodecTask)
        clips = pl_module.validation.clips()
        picture = pl_module.validation.picture()
        if trainer.is_global_zero and not trainer.sanity_checking:
            found = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
            self._write(trainer, found)
            if picture is not None:
                self._show(trainer, picture)
            for clip in clips:
                self._play(trainer, clip)
            if time.perf_counter() - self._drawn > 60:  # drawing takes a second
                self._draw()
        self._restart_clock()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The whole curve."""
        if trainer.is_global_zero:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.perf_counter()
        if self.folder is not None and (self.folder / "curve.csv").is_file():
            draw(self.folder / "curve.csv", self.folder / "curve.png")

    def _show(self, trainer: Trainer, picture: Tensor) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/reconstruction", picture, trainer.global_step)
            elif isinstance(logger, WandbLogger):
                logger.log_image("val/reconstruction", [picture], step=trainer.global_step)
        if self.folder is not None:
            (self.folder / "pictures").mkdir(exist_ok=True)
            write(self.folder / "pictures" / f"{trainer.global_step:08}.png", picture)

    def _play(self, trainer: Trainer, clip: Clip) -> None:
        name = f"original_{clip.name}" if clip.original else f"{trainer.global_step:08}_{clip.name}"
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and not clip.original:
                where = f"val/reconstruction_{clip.name}"
                logger.experiment.add_audio(where, clip.x.mean(0), trainer.global_step, clip.sample_rate)
        if self.folder is not None and not (clip.original and (self.folder / "audio" / f"{name}.wav").exists()):
            write_audio(self.folder / "audio" / f"{name}.wav", clip.x, clip.sample_rate)


def read_curve(path: Path) -> list[tuple[int, str, float]]:
    """The lines (step, name, value) of a curve.csv; none when there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [(int(step), name, float(value)) for step, name, value in csv.reader(file)]


def forget_after(path: Path, step: int) -> None:
    """Drops the lines of a curve.csv that are of later steps."""
    lines = read_curve(path)
    if any(at > step for at, _, _ in lines):
        with atomic(path) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows(line for line in lines if line[0] <= step)


# By the begin of a number's name, or of what follows its "train/" or "val/"; the rest are losses.
PANELS = ("psnr", "ssim", "val/mel", "val/si_sdr", "val/stoi", "codebook_use", "samples_per_s", "lr")


def draw(source: Path, target: Path) -> None:
    """The numbers of a curve.csv over the steps, like beside like."""
    from matplotlib.figure import Figure  # half a second to import, and only here

    panels: dict[str, dict[str, list[tuple[int, float]]]] = {"loss": {}, **{name: {} for name in PANELS}}
    for step, name, value in read_curve(source):
        kind = next((k for k in PANELS if name.startswith(k) or name.partition("/")[2].startswith(k)), "loss")
        if name not in ("val/perplexity", "train/data_wait"):
            panels[kind].setdefault(name, []).append((step, value))
    panels = {kind: curves for kind, curves in panels.items() if curves}
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(12, 3 * rows))
    for number, (kind, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, 3, number)
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), label=name)
        axes.set_title(kind.removeprefix("val/"))
        axes.legend(fontsize=7)
    figure.tight_layout()
    with atomic(target) as temporary:
        figure.savefig(temporary, format="png", dpi=80)
