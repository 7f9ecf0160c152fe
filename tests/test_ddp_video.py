"""Two processes, DDP or FSDP, train a video codec on clips and pictures as one does on the concatenated batches."""

from pathlib import Path

import pytest

pytest.importorskip("lightning")
pytest.importorskip("hydra")

from test_ddp import RANKS, compare, train
from video_recipe import joint_recipe

# See test_ddp.py. All frames are judged: random ones are drawn by each rank for itself.
OVERRIDES = [
    "trainer.max_steps=3", "trainer.val_check_interval=3", "optimizer.eps=1.0", "optimizer.lr=0.1",
    "objective.terms.frames.frames=null", "adversaries.frames.adversary.discriminator.frames=null",
    "adversaries.frames.optimizer.eps=1.0", "adversaries.frames.optimizer.lr=0.1",
    "adversaries.clips.optimizer.eps=1.0", "adversaries.clips.optimizer.lr=0.1",
]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    folder = tmp_path_factory.mktemp("one")
    batches = ["data.clips.batch_size=4", "data.pictures.batch_size=8"]
    return folder, train(folder, joint_recipe(folder), *OVERRIDES, *batches)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_equal_one_process(strategy: str, tmp_path: Path, one_process: tuple[Path, dict[str, dict]]) -> None:
    batches = ["data.clips.batch_size=2", "data.pictures.batch_size=4"]
    two = train(tmp_path, joint_recipe(tmp_path), f"trainer={strategy}", *RANKS, *OVERRIDES, *batches)
    compare(tmp_path, two, *one_process)
