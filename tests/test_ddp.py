"""Two processes, DDP or FSDP, train as one does on the concatenated batch.

One-D-Piece draws its tail drop per rank, as published, so its ranks differ by design; TiTok has no randomness.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("hydra")

import codeczoo

SCRIPT = """
import json, os, sys
from codeczoo import zoo
from codeczoo.engine import run
from codeczoo.engine.compose import compose
from codeczoo.engine.sharding import whole

tasks = []
build_task = run.build_task
run.build_task = lambda config: tasks.append(build_task(config)) or tasks[-1]
out, recipe, *overrides = sys.argv[1:]
outcome = run.train(compose(recipe, overrides), out)
task = tasks[0]
found = {
    "step": outcome.step, "codec": zoo.weights_hash(whole(task.codec)), "batches": task.batches, "all": {},
}
for name, value in task.state_dict().items():
    value = value.full_tensor() if hasattr(value, "full_tensor") else value
    found["all"][name] = value.double().sum().item()
rank = os.environ.get("LOCAL_RANK", "0")
with open(f"{out}/rank{rank}.json", "w") as file:
    json.dump(found, file)
"""
RECIPE = "image/titok_tiny_stage2"
RANKS = ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=2", "trainer.devices=2"]
# eps 1 keeps Adam linear in small gradients, so that rounding is not blown up. The quantizer is trained here, without
# upkeep, which FSDP refuses for a codebook that is a parameter.
OVERRIDES = [
    "trainer.max_steps=4", "trainer.val_check_interval=2", "data.workers=0", "data.n_val=7", "logger=none",
    "adversaries.blur.start=2", "adversaries.blur.optimizer.eps=1.0", "adversaries.blur.optimizer.lr=0.1",
    "optimizer.eps=1.0", "optimizer.lr=0.1", "schedule.warmup=0", "task.freeze=[encoder.patch_embed]", "task.clip=0.5",
    "objective.weights.codebook=1.0", "objective.weights.commitment=0.25",
    "codec.quantizer.upkeep=null", "adversaries.blur.probability=0.7",
    "+task.balancer={_target_: codeczoo.engine.balancer.Balancer, norm: 2.0, decay: 0.9}",
]


def train(folder: Path, recipe: str, *overrides: str) -> dict[str, dict]:
    """What each rank of one training found, by file name."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), recipe, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("rank*.json")}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    folder = tmp_path_factory.mktemp("one")
    return folder, train(folder, RECIPE, *OVERRIDES, "data.batch_size=8")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_equal_one_process(strategy: str, tmp_path: Path, one_process: tuple[Path, dict[str, dict]]) -> None:
    folder, one = one_process
    two = train(tmp_path, RECIPE, f"trainer={strategy}", *RANKS, *OVERRIDES, "data.batch_size=2", "task.accumulate=2")
    compare(tmp_path, two, folder, one)
    assert two["rank0"]["step"] == one["rank0"]["step"] == 4 and two["rank0"]["batches"] == 8


def compare(two_folder: Path, two: dict[str, dict], one_folder: Path, one: dict[str, dict]) -> None:
    """Asserts that both ranks have the same and that it is, but for rounding, what one process has."""
    assert set(two) == {"rank0", "rank1"}
    assert two["rank0"] == two["rank1"]  # codec bit by bit; adversary, EMA and running means by their sums
    (a,), (b,) = ([*place.glob("*/*/last.safetensors")] for place in (two_folder, one_folder))
    left, right = codeczoo.load(a).state_dict(), codeczoo.load(b).state_dict()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-5, msg=name)
    for name, value in one["rank0"]["all"].items():
        assert two["rank0"]["all"][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
