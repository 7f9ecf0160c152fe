"""Encode and decode frames/s of recipes' video codecs with random weights, beside what the machine's product would do.

    python tools/bench_video.py video/vidtok_tiny --clips 17x128 17x256 --precisions float32 bf16

A clip is frames x side; "pieces" is the same clip by a stream, four latents in time a step. The limit is the work in
floating-point operations (counted by torch) over the rate of a 2048 x 2048 product, timed just before and after, and
"share" is measured over limit. Codes of bf16 are compared with those of float32. On one thread (OMP_NUM_THREADS=1) it
is processor time, which other programs disturb less.

--peer adds AutoencoderKLCosmos of diffusers (pip install diffusers) beside recipes of Cosmos DV: the same network but
for its continuous latents of 16 channels. None of VidTok, Cosmos-Tokenizer and HiTVideo is on PyPI.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import codeczoo
from codeczoo.core.types import Tokens
from codeczoo.engine.compose import compose
from codeczoo.video.codec import VideoCodec

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def best(run: Callable[[], Any], repeats: int) -> float:
    """Least seconds of several runs."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def product_rate(dtype: torch.dtype, n: int = 2048) -> float:
    """GFLOP/s of an n x n matrix product."""
    a, b = (torch.randn(n, n, dtype=dtype) for _ in range(2))
    return 2 * n**3 / best(lambda: a @ b, 5) / 1e9


def encode_pieces(codec: VideoCodec, x: Tensor) -> None:
    """The clip by a stream."""
    stream, pieces = codec.stream(), x.split(4 * codec.stride[0], 2)
    for i, piece in enumerate(pieces):
        stream.encode(piece, i == len(pieces) - 1)


def decode_pieces(codec: VideoCodec, tokens: Tokens) -> None:
    """The codes by a stream."""
    stream = codec.stream()
    strides = [s.stride[0] for s in codec.spec.streams if s.stride]
    parts = [codes.split(4 * strides[0] // own, 2) for codes, own in zip(tokens.streams, strides, strict=True)]
    most = max(map(len, parts))
    for i in range(most):
        piece = tuple(p[i] if i < len(p) else p[0][:, :, :0] for p in parts)
        stream.decode(piece, i == most - 1)


def changed(rough: Tokens, exact: Tokens) -> float:
    """Share of codes that differ."""
    differ = torch.cat([(a != b).flatten() for a, b in zip(rough.streams, exact.streams, strict=True)])
    return differ.float().mean().item()


def bench(recipe: str, clip: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Encode and decode of one recipe's codec, whole and in pieces, in each precision."""
    torch.manual_seed(0)
    codec = codeczoo.build(compose(recipe)["codec"]).eval()
    frames, side = map(int, clip.split("x"))
    x = torch.rand(1, 3, frames, side, side)
    exact = codec.encode(x)
    jobs = {"encode": lambda: codec.encode(x), "decode": lambda: codec.decode(exact)}
    pieces = {"encode": lambda: encode_pieces(codec, x), "decode": lambda: decode_pieces(codec, exact)}
    rows = []
    for name, run in jobs.items():
        with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            run()
        work = counter.get_total_flops() / 1e9
        for precision in args.precisions:
            dtype = PRECISIONS[precision]
            with torch.autocast("cpu", dtype) if precision == "bf16" else nullcontext():
                before = product_rate(dtype)
                whole, parts = best(run, args.repeats), best(pieces[name], args.repeats)
                limit = frames * max(before, product_rate(dtype)) / work
                row = {"recipe": recipe, "clip": clip, "job": name, "precision": precision, "gflop": work / frames}
                row |= {"rate": frames / whole, "pieces": frames / parts, "limit": limit}
                rows.append(row | {"codes_changed": changed(codec.encode(x), exact) if name == "encode" else None})
    return rows


def peer(recipe: str, clip: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Encode and decode of diffusers' network of the same strides, with random weights."""
    from diffusers import AutoencoderKLCosmos

    torch.manual_seed(0)
    frames, side = map(int, clip.split("x"))
    time_stride, stride, _ = codeczoo.build(compose(recipe)["codec"]).stride
    network = AutoencoderKLCosmos(spatial_compression_ratio=stride, temporal_compression_ratio=time_stride).eval()
    x = 2 * torch.rand(1, 3, frames, side, side) - 1
    z = network.encode(x).latent_dist.mode()
    jobs = {"encode": lambda: network.encode(x).latent_dist.mode(), "decode": lambda: network.decode(z).sample}
    rows = []
    for name, run in jobs.items():
        for precision in args.precisions:
            with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
                rate = frames / best(run, args.repeats)
            rows.append({"recipe": "diffusers", "clip": clip, "job": name, "precision": precision, "rate": rate})
    return rows


@torch.inference_mode()
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--clips", nargs="+", default=["17x128", "17x256"])
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="diffusers' network beside recipes of Cosmos DV")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="TF32 acceleration")  # of a switch that counting the work uses
    rows = []
    for recipe in args.recipes:
        for clip in args.clips:
            rows += bench(recipe, clip, args)
            rows += peer(recipe, clip, args) if args.peer and "cosmos_dv" in recipe else []
    if args.json:
        print(json.dumps(rows))
        return
    table = Table("recipe", "clip", "job", "precision", "GFLOP/frame", "frames/s", "pieces", "limit", "share", "other")
    for row in rows:
        numbers = (f"{row[key]:.2f}" if key in row else "" for key in ("gflop", "rate", "pieces", "limit"))
        share = f"{row['rate'] / row['limit']:.0%}" if "limit" in row else ""
        differ = "" if row.get("codes_changed") is None else f"{row['codes_changed']:.2%}"
        names = (row["recipe"].rpartition("/")[2], row["clip"], row["job"], row["precision"])
        table.add_row(*names, *numbers, share, differ)
    Console().print(table)


if __name__ == "__main__":
    main()
