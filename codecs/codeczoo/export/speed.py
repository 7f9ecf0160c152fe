"""How fast a codec is and how much memory it takes, on one sample at a time."""

from collections.abc import Callable
from ctypes import CDLL
from math import prod
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from codeczoo.export.batches import Runner
from codeczoo.export.judging import Facts

LEAST, RUNS = 1.0, 3  # seconds and times that something is run at least
LONGEST = {"audio": 10.0, "video": 2**21}  # seconds, pixels of all frames: more of a sample is not taken
MIB = 2**20


@torch.inference_mode()
def speed(runner: Runner, x: Tensor) -> Facts:
    """Seconds of encode and decode, how much media that was, and the most memory that either took.

    Args:
        runner: the codec.
        x: what it sees, (1, C, *spatial).

    Returns:
        encode_seconds, decode_seconds: the fastest run, all tokens.
        size: "pictures", "seconds" of sound, or "frames", by that name.
        memory_mib: more than before, weights not counted; left out where the system does not tell.
    """
    x = _cut(runner, x).to(runner.device)
    with runner.autocast():
        memory = _peak(runner.device, lambda: runner.codec.decode(runner.codec.encode(x)))  # first: nothing is kept yet
        tokens = runner.codec.encode(x)
        encode = _fastest(runner.device, lambda: runner.codec.encode(x))
        decode = _fastest(runner.device, lambda: runner.codec.decode(tokens))
    facts = {"encode_seconds": encode, "decode_seconds": decode, **_size(runner, x)}
    return facts if memory is None else facts | {"memory_mib": memory / MIB}


def _cut(runner: Runner, x: Tensor) -> Tensor:
    """The beginning of x."""
    spec = runner.codec.spec
    if spec.media == "image":
        return x
    most = LONGEST["video"] / prod(x.shape[3:]) if spec.media == "video" else LONGEST["audio"] * (spec.sample_rate or 1)
    return x[:, :, : max(1, int(most))]


def _size(runner: Runner, x: Tensor) -> Facts:
    spec = runner.codec.spec
    if spec.media == "image":
        return {"pictures": 1.0}
    return {"frames": x.shape[2]} if spec.media == "video" else {"seconds": x.shape[2] / (spec.sample_rate or 1)}


def _fastest(device: torch.device, run: Callable[[], object]) -> float:
    """Seconds of the fastest of at least RUNS runs in at least LEAST seconds."""
    times: list[float] = []
    while len(times) < RUNS or sum(times) < LEAST:
        start = perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - start)
    return min(times)


def _peak(device: torch.device, run: Callable[[], object]) -> int | None:
    """Bytes that `run` takes at most, more than were taken before; None where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        CDLL("libc.so.6").malloc_trim(0)  # what earlier runs left would be taken again, and not be seen
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of this process starts anew
        before = _status("VmRSS")
        run()
        return max(0, _status("VmHWM") - before)
    except (OSError, AttributeError, StopIteration):  # another system, another C library
        return None


def _status(name: str) -> int:
    """Bytes of one line of /proc/self/status. Raises OSError, StopIteration."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
