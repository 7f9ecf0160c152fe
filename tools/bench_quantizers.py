"""Quantizers beside vector-quantize-pytorch: milliseconds of a training step and of encode, and peak memory, as ratios.

    pip install vector-quantize-pytorch==1.32.*      # the other library; no dependency of codeczoo
    python tools/bench_quantizers.py                 # all cases; names of some: --cases vq_1024 rvq_8

Every case and library runs in a process of its own, one after the other, best of --repeats. A training step is forward,
backward and, here, `update`. "bare" is the matrix product of latents and entries and its argmax, all at once. Memory is
that of all tensors at the peak of a training step, as torch's allocator counts them: the quantizer's own with what the
step returns and works with, but not the latents given.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from codeczoo.core.base import Quantizer
from codeczoo.quantizers.fsq import FSQ
from codeczoo.quantizers.lfq import LFQ
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.tally import update
from codeczoo.quantizers.vq import EMAVQ, CosineEMAVQ


class Case(NamedTuple):
    """One comparison.

    Args:
        batch: sequences.
        length: tokens of each.
        dim: channels.
        entries: of the table that the bare product takes; 0: there is none.
        ours: makes our quantizer.
        theirs: name of their class and its arguments.
    """

    batch: int
    length: int
    dim: int
    entries: int
    ours: Callable[[], Quantizer]
    theirs: tuple[str, dict[str, Any]]


def _rvq(layers: int) -> Quantizer:
    return Residual([EMAVQ(1024, 128) for _ in range(layers)])


LEVELS = [8, 8, 8, 5, 5, 5]
CASES = {
    "vq_1024x64": Case(
        16, 1024, 64, 1024, lambda: EMAVQ(1024, 64), ("VectorQuantize", {"dim": 64, "codebook_size": 1024})
    ),
    "vq_16384x32": Case(
        8, 1024, 32, 16384, lambda: EMAVQ(16384, 32), ("VectorQuantize", {"dim": 32, "codebook_size": 16384})
    ),
    "cosine_8192x16": Case(
        16, 512, 16, 8192, lambda: CosineEMAVQ(8192, 16),
        ("VectorQuantize", {"dim": 16, "codebook_size": 8192, "use_cosine_sim": True}),
    ),
    "rvq_8x1024x128": Case(
        16, 375, 128, 0, lambda: _rvq(8), ("ResidualVQ", {"dim": 128, "codebook_size": 1024, "num_quantizers": 8})
    ),
    "rvq_32x1024x128": Case(
        4, 375, 128, 0, lambda: _rvq(32), ("ResidualVQ", {"dim": 128, "codebook_size": 1024, "num_quantizers": 32})
    ),
    "fsq_64000": Case(16, 1024, 6, 0, lambda: FSQ(LEVELS), ("FSQ", {"levels": LEVELS})),
    "lfq_2^14": Case(4, 1024, 14, 0, lambda: LFQ(14), ("LFQ", {"dim": 14, "codebook_size": 2**14})),
    "lfq_2^18_512": Case(2, 256, 18, 0, lambda: LFQ(18), ("LFQ", {"dim": 18, "codebook_size": 2**18})),
    "lfq_2^18_16384": Case(16, 1024, 18, 0, lambda: LFQ(18), ("LFQ", {"dim": 18, "codebook_size": 2**18})),
}
LEAST = 0.5  # seconds
TOO_LARGE = {"lfq_2^18_16384"}  # for them: 17 GB a tensor, five at least


class Timer:
    """Best milliseconds of several runs.

    Args:
        repeats: how often to run at least, after one run that does not count; short ones run for LEAST seconds.
    """

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats

    def __call__(self, run: Callable[[], Any]) -> float:
        """Times `run`."""
        times: list[float] = []
        while len(times) <= self.repeats or sum(times) < LEAST:
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times[1:]) * 1e3


def peak_mb(quantizer: nn.Module, z: Tensor, run: Callable[[], Any]) -> float:
    """Most memory of all tensors but the latents z while it runs, MB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - z.nbytes) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = sum(x.nbytes for x in [*quantizer.parameters(), *quantizer.buffers()])
    peak = max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    return (held + peak) / 1e6


Side = tuple[nn.Module, Tensor, Callable[[Tensor], Any], Callable[[Tensor], Any]]


def ours(case: Case) -> Side:
    """The quantizer, latents as we take them, a training step and encode."""
    quantizer = case.ours()

    def train(z: Tensor) -> None:
        q = quantizer.train()(z)
        (q.z.sum() + sum(q.losses.values())).backward()
        update(quantizer)

    quantizer.to("cuda" if torch.cuda.is_available() else "cpu")
    return quantizer, torch.randn(case.batch, case.dim, case.length), train, lambda z: quantizer.eval().encode(z)


def theirs(case: Case) -> Side:
    """The same with vector-quantize-pytorch, which takes channels last."""
    import vector_quantize_pytorch

    name, arguments = case.theirs
    quantizer = getattr(vector_quantize_pytorch, name)(**arguments)

    def train(z: Tensor) -> None:
        out = quantizer.train()(z)
        (out[0].sum() + (out[2].sum() if len(out) > 2 else 0)).backward()

    def encode(z: Tensor) -> None:
        with torch.no_grad():
            quantizer.eval()(z)

    quantizer.to("cuda" if torch.cuda.is_available() else "cpu")
    return quantizer, torch.randn(case.batch, case.length, case.dim), train, encode


def measure(name: str, side: str, repeats: int) -> dict[str, float]:
    """One case of one library, or its bare product, in this process."""
    torch.manual_seed(0)
    case, timer = CASES[name], Timer(repeats)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if side == "bare":
        z = torch.randn(case.batch * case.length, case.dim, device=device)
        table = torch.randn(case.entries, case.dim, device=device)
        return {"encode": timer(lambda: (z @ table.t()).argmax(1))}
    quantizer, z, train, encode = (ours if side == "ours" else theirs)(case)
    z = z.to(device)

    def step() -> None:
        train(z.detach().requires_grad_())

    memory = peak_mb(quantizer, z, step)
    return {"train": timer(step), "memory": memory, "encode": timer(lambda: encode(z))}


def apart(name: str, side: str, repeats: int) -> dict[str, float]:
    """`measure` in a fresh process; empty where it fails."""
    command = [sys.executable, __file__, "--one", name, side, "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(f"{name} {side}: {done.stderr.strip().splitlines()[-1]}\n")
        return {}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def ratio(a: dict[str, float], b: dict[str, float], key: str) -> str:
    """How many times a's value is of b's."""
    return f"{a[key] / max(b[key], 1e-3):.2f}" if key in a and key in b else ""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.repeats)))
        return
    table = Table(
        "case", "train ms", "theirs", "faster", "encode ms", "theirs", "faster", "bare ms", "of bare", "MB", "theirs",
        "share",
    )
    for name in track(args.cases, "cases", transient=True):
        a = apart(name, "ours", args.repeats)
        b = {} if name in TOO_LARGE else apart(name, "theirs", args.repeats)
        bare = apart(name, "bare", args.repeats) if CASES[name].entries else {}
        numbers = []
        for key in ("train", "encode", "memory"):
            numbers += [f"{side[key]:.1f}" if key in side else "" for side in (a, b)]
            numbers.append(ratio(b, a, key) if key != "memory" else ratio(a, b, key))
            if key == "encode":
                numbers += [f"{bare['encode']:.1f}" if bare else "", ratio(a, bare, "encode")]
        table.add_row(name, *numbers)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
