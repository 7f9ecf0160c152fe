"""Runs a function of a test module as the ranks of a process group (gloo), each a process of its own."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed

HERE = Path(__file__).resolve().parent
PATIENCE = 600  # seconds; the tests take 5 to 30, many times that on a busy machine


def in_ranks(
    function: Callable[..., Any], worlds: Sequence[int], folder: Path, before: Callable[[], Any] | None = None
) -> list[list[Any]]:
    """What each rank of each world gives; the worlds run at the same time.

    Args:
        function: of a test module, called with (rank, world); what it returns is saved and loaded.
        worlds: numbers of ranks. One rank has no process group.
        folder: an empty one.
        before: of the same module, called before there is a process group; `function` gets what it returns as its
            third argument.
    """
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent / "codecs")}
    module = Path(function.__code__.co_filename).stem
    ranks = [(world, rank) for world in worlds for rank in range(world)]
    command = [sys.executable, __file__, module, function.__name__, before.__name__ if before else "", str(folder)]
    started = [subprocess.Popen([*command, str(rank), str(world)], env=env) for world, rank in ranks]
    try:
        assert [process.wait(PATIENCE) for process in started] == [0] * len(started)
    finally:
        for process in started:
            process.kill()
    return [[torch.load(_result(folder, w, r), weights_only=True) for r in range(w)] for w in worlds]


def _result(folder: str | Path, world: int, rank: int) -> Path:
    return Path(folder, f"{world}-{rank}.pt")


def _rank(module: str, function: str, before: str, folder: str, rank: int, world: int) -> None:
    """One process."""
    tests = importlib.import_module(module)
    made = [getattr(tests, before)()] if before else []
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
    torch.save(getattr(tests, function)(rank, world, *made), _result(folder, world, rank))
    if world > 1:
        distributed.barrier()
    sys.stderr.flush()
    os._exit(0)  # gloo's threads, torn down with the interpreter, once aborted a rank that was done


if __name__ == "__main__":
    _rank(*sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6]))
