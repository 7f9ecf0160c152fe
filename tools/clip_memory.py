"""Peak memory and time of `codeczoo encode` and `codeczoo decode` for clips of different lengths, a process each.

    python tools/clip_memory.py best.safetensors --sizes 128x128 --frames 120 1200 7200 --work /tmp/clips

Without a weights file: a recipe's codec with random weights (the time is that of a trained one, and so is the memory).
Clips are made by moving and looping a given one, or generated noise that moves.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from codeczoo import build, zoo
from codeczoo.engine.compose import compose
from codeczoo.io import video

PIECE = 16  # frames made at once


class Used(NamedTuple):
    """Of a process: most memory at any time, MB, and seconds."""

    megabytes: float
    seconds: float


def frames_of(source: Path | None, frames: int, size: tuple[int, int]) -> Iterator[Tensor]:
    """Frames in pieces, float (3, t, H, W): the source forwards again and again, drifting sideways."""
    if source is None:
        base = torch.rand(3, PIECE, *size)
        base = torch.nn.functional.avg_pool2d(base, 9, 1, 4)
    else:
        base = torch.nn.functional.interpolate(video.read(source, 0, 48).float() / 255, size)
    for start in range(0, frames, PIECE):
        times = torch.arange(start, min(start + PIECE, frames))
        yield base[:, times % base.shape[1]].roll(start // PIECE, 3)


def measured(arguments: list[str]) -> Used:
    """Runs a command of codeczoo. Raises RuntimeError where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "codeczoo", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"codeczoo {' '.join(arguments)} failed")
    return Used(usage.ru_maxrss / 1024, time.perf_counter() - start)


def main() -> None:
    """Prints a table, a row for each size and length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", help="weights file or recipe")
    parser.add_argument("--sizes", nargs="+", default=["128x128"], metavar="HxW")
    parser.add_argument("--frames", nargs="+", type=int, default=[60, 600])
    parser.add_argument("--rate", type=Fraction, default=Fraction(12), help="frames a second")
    parser.add_argument("--source", type=Path, help="clip to make them of")
    parser.add_argument("--work", type=Path, required=True, help="folder for the files")
    parser.add_argument("--tile", help="as for codeczoo decode")
    args = parser.parse_args()
    codec = args.codec
    if not Path(codec).is_file():
        torch.manual_seed(0)
        zoo.save(args.work / "random.safetensors", build(compose(args.codec)["codec"]))
        codec = str(args.work / "random.safetensors")
    table = Table("size", "frames", "seconds of clip", "encode MB", "s", "decode MB", "s", box=None)
    for size in args.sizes:
        for frames in args.frames:
            clip, sides = args.work / f"{size}_{frames}.mp4", size.split("x")
            if not clip.is_file():
                with video.Writer(clip, args.rate) as file:
                    for piece in frames_of(args.source, frames, (int(sides[0]), int(sides[1]))):
                        file.append(piece)
            out = ["-o", str(args.work), "--overwrite"]
            encode = measured(["encode", str(clip), "--codec", codec, *out])
            tile = ["--tile", args.tile] if args.tile else []
            decode = measured(
                ["decode", str(clip.with_suffix(".cz")), "-o", str(args.work / "out"), "--overwrite", *tile]
            )
            told = [f"{value:.0f}" for used in (encode, decode) for value in used]
            table.add_row(size, str(frames), f"{float(frames / args.rate):.0f}", *told)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
