"""How `codeczoo export` begins, or goes on: which process this is, the plan, the engine."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    from codeczoo.export.batches import Runner
    from codeczoo.export.engines import Engine
    from codeczoo.export.engines.ranks import Rank
    from codeczoo.export.plan import Plan
    from codeczoo.export.sources import Media


def rank_of(args: argparse.Namespace, derived: bool) -> "Rank":
    """Which process this is; of ranks, on a GPU of its own. Raises InputError for what the engine cannot do."""
    import torch

    from codeczoo.export.engines.ranks import Rank, this_rank

    if args.workers is not None and args.engine != "ray":
        raise InputError(f"--workers is for --engine ray; {args.engine} has one process for each codec")
    if args.engine != "ranks":
        return Rank(0, 1, 0)
    found = this_rank()
    if derived:
        raise InputError("--engine ranks makes parquet; then: codeczoo export --from OUT --format F -o OTHER")
    if args.overwrite and found.world > 1:
        raise InputError("--engine ranks: --overwrite would delete what other ranks make; delete the folder before")
    if args.device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(found.local % torch.cuda.device_count())
    return found


def engine_of(args: argparse.Namespace, plan: "Plan", runner: "Runner", rank: "Rank") -> "Engine":
    """The engine that was asked for, ready to run."""
    from codeczoo.export.engines import Local, Ranks
    from codeczoo.export.shard import Worker

    if args.engine == "ray":
        from codeczoo.export.engines.ray import Ray

        runner.codec.cpu()  # the actors want the GPUs
        return Ray(plan, args.batch, args.workers)
    worker = Worker(plan, runner)
    return Local(worker) if args.engine == "local" else Ranks(worker, rank)


def plan_of(args: argparse.Namespace, folder: Path, media: "Media", options: dict[str, Any]) -> "Plan":
    """The plan that is there, with --resume, or a new one. Raises InputError where it must not be begun, or goes on."""
    from codeczoo.export import store
    from codeczoo.export.dataset import HEADER
    from codeczoo.export.inputs import inputs
    from codeczoo.export.plan import PLAN, Plan

    begun, finished = (folder / PLAN).is_file(), (folder / HEADER).is_file()
    if begun and args.resume:
        return Plan.open(folder).check(options)
    if not store.is_free(folder) and not args.overwrite:
        if begun:
            how = f"{store.state(folder)}: --resume goes on, --overwrite begins anew"
            raise InputError(f"{folder} holds an export, {how}")
        raise InputError(f"{folder} exists; choose another folder")
    if not store.is_free(folder) and not begun and not finished:
        raise InputError(f"{folder} exists and is no export; it is not overwritten")
    files = inputs(args.paths, (*media.SUFFIXES, *media.TOKEN_SUFFIXES), args.column)
    with store.aside(folder):
        return Plan.freeze(folder, files, options, args.shard)


