"""Files/s and ids/s of `codeczoo export` from end to end, beside what the codec does with the same batches in memory.

    python tools/bench_export.py image/one_d_piece_small photos/ --files 256 --workers 1 2

A recipe's codec with random weights, or a weights file. Each worker is a process of one thread with its own codec, as
engine "ranks" has them; those of one line begin together and stop when the last one does. "share" is end to end over
codec alone: 100 % means that reading, writing and counting cost nothing. Best of several runs, as machines drift. On a
machine that others use, "thread" says more: the share of processor seconds that the thread with the codec spends on it;
and "reading": processor seconds of the other threads over those of the codec, which must fit on a core beside it.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

import codeczoo
from codeczoo import zoo
from codeczoo.engine.compose import compose
from codeczoo.export import clips, recordings
from codeczoo.export.batches import Runner
from codeczoo.export.engines.ranks import Rank, Ranks
from codeczoo.export.inputs import inputs
from codeczoo.export.media import MEDIA
from codeczoo.export.patterns import Flat
from codeczoo.export.plan import Plan
from codeczoo.export.shard import Worker

PATIENCE = 600.0  # seconds that a worker waits for the others


def weights_of(name: str, folder: Path) -> Path:
    """A weights file: the one that is named (a shipped one too), or of a recipe's codec with random weights."""
    if Path(name).exists() or name in zoo.shipped():
        return zoo.find(name)
    torch.manual_seed(0)
    zoo.save(folder / "codec.safetensors", codeczoo.build(compose(name)["codec"]))
    return folder / "codec.safetensors"


def plan_of(args: argparse.Namespace, codec: Any, folder: Path, workers: int) -> Plan:
    """Of the first files, several shards for each worker."""
    media = MEDIA[codec.spec.media]
    chosen = [one for one, _ in zip(inputs(args.paths, media.SUFFIXES), range(args.files), strict=False)]
    options = {
        "weights_hash": zoo.weights_hash(codec), "prefix": {}, "pattern": Flat(codec.spec).to_dict(), "dtype": "uint32",
        "fit": None, "window": None, "sidecars": False,
    }  # fmt: skip
    return Plan.freeze(folder, chosen, options, -(-len(chosen) // (args.shards * workers)))


@contextmanager
def recorded(codec: Any) -> Iterator[list[Callable[[], Any]]]:
    """Gives what the codec does meanwhile, of batches and of the pieces of long media, to be done again."""
    calls: list[Callable[[], Any]] = []

    def keeping(encode: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            kept = [[] if isinstance(value, Iterator) else value for value in args]
            given = [teed(value, own) if value is not own else value for value, own in zip(args, kept, strict=True)]
            calls.append(partial(encode, *kept, **kwargs))
            return encode(*given, **kwargs)

        return run

    with ExitStack() as patches:
        for owner, name in ((codec, "encode"), (recordings, "encode_pieces"), (clips, "encode_pieces")):
            patches.enter_context(patch.object(owner, name, keeping(getattr(owner, name))))
        yield calls


def replay(calls: Sequence[Callable[[], Any]]) -> None:
    """The same again."""
    with torch.inference_mode():
        for call in calls:
            call().to("cpu")


def teed(items: Iterator[Any], into: list[Any]) -> Iterator[Any]:
    """The items, which are kept too."""
    for item in items:
        into.append(item)
        yield item


def begin(barrier: Any) -> None:
    """In each process, first of all."""
    global together  # a barrier reaches a process only when it begins
    together = barrier
    torch.set_num_threads(1)


def work(args: argparse.Namespace, weights: Path, folder: Path, rank: Rank) -> tuple[list[Any], list[Any], int, int]:
    """One worker: what the clocks say of each run from end to end, and of the codec alone; documents, ids."""
    codec = zoo.load(weights).to(args.device)
    plan = Plan.open(folder)
    worker = Worker(plan, Runner(codec, "codec", zoo.weights_hash(codec), args.batch))
    mine = range(rank.number, len(plan.shards), rank.world)
    with recorded(codec) as calls:
        facts = [[*worker.work(shard)][-1] for shard in mine]
    seconds = []
    for _ in range(args.repeats):
        together.wait(PATIENCE)
        if not rank.number:
            for part in folder.glob("part-*"):
                part.unlink()
        for run in (lambda: [*Ranks(worker, rank).run()], partial(replay, calls)):
            together.wait(PATIENCE)
            start = clocks()
            run()
            seconds.append([after - before for before, after in zip(start, clocks(), strict=True)])
    return seconds[::2], seconds[1::2], sum(f.documents for f in facts), sum(f.tokens for f in facts)


def clocks() -> tuple[float, float, float]:
    """Seconds: of the wall, of this thread, of the process."""
    return time.perf_counter(), time.thread_time(), time.process_time()


def measure(args: argparse.Namespace, weights: Path, folder: Path, workers: int) -> dict[str, Any]:
    """A line of the table."""
    plan_of(args, zoo.load(weights), folder, workers)
    context = get_context("spawn")
    ranks = [Rank(n, workers, n) for n in range(workers)]
    with ProcessPoolExecutor(workers, context, begin, (context.Barrier(workers),)) as pool:
        found = [future.result() for future in [pool.submit(work, args, weights, folder, rank) for rank in ranks]]
    # Of each clock the best run, as slow as its slowest worker.
    whole, alone = (
        [min(max(one[i][run][clock] for one in found) for run in range(args.repeats)) for clock in range(3)]
        for i in (0, 1)
    )
    files, ids = sum(one[2] for one in found), sum(one[3] for one in found)
    rmtree(folder)
    row = {"workers": workers, "files": files, "files_s": files / whole[0], "ids_s": ids / whole[0]}
    row |= {"codec_files_s": files / alone[0], "share": alone[0] / whole[0]}
    return row | {"thread": alone[1] / whole[1], "reading": (whole[2] - whole[1]) / alone[1]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", help="recipe, weights file or run folder")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="as `codeczoo export` takes them")
    parser.add_argument("--files", type=int, default=256, help="at most so many (default 256)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shards", type=int, default=3, help="of each worker (default 3)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    with TemporaryDirectory() as scratch:
        weights = weights_of(args.codec, Path(scratch))
        rows = [measure(args, weights, Path(scratch) / "out", workers) for workers in args.workers]
    if args.json:
        print(json.dumps(rows))
        return
    columns = ("workers", "files", "files/s", "ids/s", "codec alone, files/s", "share", "thread", "reading")
    table = Table(*columns, title=args.codec)
    for row in rows:
        figures = (f"{row[key]:.4g}" for key in ("files_s", "ids_s", "codec_files_s"))
        shares = (f"{row[key]:.0%}" for key in ("share", "thread", "reading"))
        table.add_row(str(row["workers"]), str(row["files"]), *figures, *shares)
    Console().print(table)


if __name__ == "__main__":
    main()
