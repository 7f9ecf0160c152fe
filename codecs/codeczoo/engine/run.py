"""Training: from a checked configuration to a run folder."""

import os
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from logging import WARNING, getLogger
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

import codeczoo
from codeczoo.core.config import build
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.engine.checkpoints import Checkpoints, Interrupted
from codeczoo.engine.compose import ALLOW, missing
from codeczoo.engine.progress import ProgressBar
from codeczoo.engine.recorder import Recorder
from codeczoo.engine.task import CodecTask
from codeczoo.nn.hardware import bf16_is_fast


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Args:
        folder: of the run, with its checkpoint, weights, curve and pictures.
        step: effective batches done.
        interrupted: by Ctrl-C, after saving.
        first: whether this process is the first of those that trained: the folder is its.
    """

    folder: Path
    step: int
    interrupted: bool
    first: bool


def train(config: Mapping[str, Any], out: str | Path = "runs", resume: str | None = None) -> Outcome:
    """Trains the codec of a composed recipe.

    Args:
        config: from `engine.compose.compose`.
        out: the run folder is out/NAME/DATE.
        resume: "last" for the newest run of this name below `out`, or a run folder or its last.ckpt; None: a new run.

    Raises:
        CodeczooError: before anything is trained, for whatever does not fit together.
    """
    unset = missing(config)
    if unset:
        raise ConfigError(f"recipe {config['name']}: still to be set: {', '.join(f'{key}=...' for key in unset)}")
    checkpoint = None if resume is None else find_checkpoint(Path(out) / config["name"], resume)
    getLogger("lightning.pytorch").setLevel(WARNING)  # no advertisements
    seed_everything(config["seed"], workers=False, verbose=False)
    task = build_task(config)
    data = build(config["data"], ALLOW, "data")
    folder = new_folder(Path(out) / config["name"]) if checkpoint is None else checkpoint.parent
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    trainer = build_trainer(config, folder, text)
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(text)
        (folder / "version.txt").write_text(code_version() + "\n")
    return _fit(trainer, task, data, folder, checkpoint)


def _fit(
    trainer: Trainer, task: CodecTask, data: LightningDataModule, folder: Path, checkpoint: Path | None
) -> Outcome:
    interrupted = False
    with warnings.catch_warnings():
        # The data modules keep their place themselves, which Lightning cannot see.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen parts
        warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # Validation.results are of all ranks
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own
        try:
            trainer.fit(task, data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
        except Interrupted:
            interrupted = True
    return Outcome(folder, task.batches // task.accumulate, interrupted, trainer.is_global_zero)


def build_task(config: Mapping[str, Any]) -> CodecTask:
    """Codec, objective, adversaries, optimizers and warm starts of a configuration, in one module."""
    codec = build(config["codec"], ALLOW, "codec")
    parts = {
        name: build(config[name], ALLOW, name) for name in ("objective", "optimizer", "schedule", "adversaries")
        if name in config
    }
    validation = build(config["validation"], ALLOW, "validation")(codec.spec)
    make = build(config["task"], ALLOW, "task")
    return make(codec=codec, validation=validation, seed=config["seed"], **parts)


def build_trainer(config: Mapping[str, Any], folder: Path, recipe: str) -> Trainer:
    """The Trainer with its loggers and callbacks."""
    loggers = [
        build(logger, ALLOW, f"logger.{name}")(save_dir=str(folder)) for name, logger in config["logger"].items()
    ]
    recorder = Recorder(folder)
    run = config["run"]
    checkpoints = Checkpoints(folder, recipe, run["checkpoint_every"], run["monitor"], run["mode"])
    callbacks = [recorder, checkpoints, ProgressBar(recorder)]
    make = build(config["trainer"], ALLOW, "trainer")
    trainer = make(callbacks=callbacks, logger=loggers, default_root_dir=str(folder))
    if "bf16" in str(trainer.precision) and not bf16_is_fast(trainer.strategy.root_device):
        rank_zero_warn("this processor has no bf16 instructions; trainer.precision=32-true will be many times faster")
    return trainer


def new_folder(parent: Path) -> Path:
    """A folder named after the date; after the job under Slurm, so that a requeued job finds its own again.

    Lightning starts the other ranks of this machine with this process's environment, so they read the same name there.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and "CODECZOO_RUN" in os.environ:
        return parent / os.environ["CODECZOO_RUN"]
    job = os.environ.get("SLURM_JOB_ID")
    name = base = f"slurm-{job}" if job else datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while not job and (parent / name).exists():  # two runs in one second
        name = f"{base}_{(number := number + 1)}"
    os.environ["CODECZOO_RUN"] = name
    return parent / name


def find_checkpoint(parent: Path, resume: str) -> Path:
    """The last.ckpt that --resume means. Raises InputError."""
    if resume == "last":
        found = sorted(parent.glob("*/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise InputError(f"--resume last: no run with a last.ckpt below {parent}")
        return found[-1]
    path = Path(resume)
    path = path / "last.ckpt" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"--resume: no checkpoint at {path}; give 'last', a run folder or its last.ckpt")
    return path


def code_version() -> str:
    """Package version, and the commit when it runs from a git checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = ""
    versions = f"codeczoo {codeczoo.__version__}, torch {torch.__version__}"
    return f"{versions}, commit {commit}" if commit else versions


def parameter_count(config: Mapping[str, Any]) -> int:
    """Parameters of the codec, without allocating them."""
    with torch.device("meta"):
        codec = build(config["codec"], ALLOW, "codec")
    return sum(p.numel() for p in codec.parameters())
