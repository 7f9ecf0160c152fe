"""Encode and decode images/s of recipes' codecs with random weights, beside what the machine's matrix product would do.

    python tools/bench_codec.py image/titok_s128_stage2 image/titok_b64_stage2 image/titok_l32_stage2 --batch 4
    python tools/bench_codec.py image/flextok_d12_d12 --batch 4 --steps 1,20 --positions 32,256

The limit is the work in floating-point operations (counted by torch) over the rate of a 2048 x 2048 product, timed just
before and after each measurement, because machines drift. "share" is measured over limit. With --precision bf16 it also
says which share of codes differs from float32. Codecs whose decoder samples are decoded at each of --steps, with and
without guidance, from each of --positions.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import codeczoo
from codeczoo.core.base import Codec
from codeczoo.engine.compose import compose


def best(run: Callable[[], Any], repeats: int) -> float:
    """Least seconds of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def product_rate(device: str, dtype: torch.dtype, n: int = 2048) -> float:
    """GFLOP/s of an n x n matrix product."""
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / best(lambda: a @ b, 5) / 1e9


def measure(run: Callable[[], Any], device: str, dtype: torch.dtype, repeats: int, batch: int) -> dict[str, float]:
    """Images/s, the limit and the share of it."""
    unfused = torch.backends.mkldnn.flags(enabled=False)  # what is fused is not counted; without it bf16 is emulated:
    with unfused, torch.autocast(device, enabled=False), FlopCounterMode(display=False) as counter:
        run()
    work = counter.get_total_flops() / 1e9
    before = product_rate(device, dtype)
    seconds = best(run, repeats)
    rate = max(before, product_rate(device, dtype))
    limit = batch * rate / work
    return {
        "gflop": work / batch, "rate": rate, "img_s": batch / seconds, "limit": limit, "share": batch / seconds / limit
    }


def jobs(codec: Codec, x: Tensor, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names and what is timed."""
    tokens, sampling = codec.encode(x), codec.sampling
    yield "encode", lambda: codec.encode(x)
    if sampling is None:
        yield "decode", lambda: codec.decode(tokens)
        return
    lengths = args.positions or [tokens.codes.shape[2]]
    for n, steps, guidance in product(lengths, args.steps or [sampling.steps], (1.0, 7.5)):
        codec.sampling = replace(sampling, steps=steps, guidance=guidance)
        name = f"decode {n}, {steps} steps, guidance {guidance:g}"
        yield name, partial(codec.decode, tokens.prefix(positions=n))


def whole_numbers(text: str) -> list[int]:
    """Whole numbers separated by commas."""
    return [int(part) for part in text.split(",")]


def bench(recipe: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Encode and decode of one recipe's codec."""
    torch.manual_seed(0)
    codec = codeczoo.build(compose(recipe)["codec"]).eval().to(args.device)
    height, width = codec.spec.input_size or (256, 256)
    x = torch.rand(args.batch, 3, height, width, device=args.device)
    reduced = args.precision == "bf16"
    dtype = torch.bfloat16 if reduced else torch.float32
    with torch.inference_mode():
        exact = codec.encode(x)
        with torch.autocast(args.device, dtype) if reduced else nullcontext():
            changed = (codec.encode(x).codes != exact.codes).float().mean().item()
            rows = [
                {"recipe": recipe, "job": name, **measure(run, args.device, dtype, args.repeats, args.batch)}
                for name, run in jobs(codec, x, args)
            ]
    return [row | {"codes_changed": changed} for row in rows] if reduced else rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=whole_numbers, metavar="N,N", help="of decoders that sample")
    parser.add_argument("--positions", type=whole_numbers, metavar="N,N", help="prefixes that such decoders paint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="TF32 acceleration")  # of a switch that counting the work uses
    rows = [row for recipe in args.recipes for row in bench(recipe, args)]
    if args.json:
        print(json.dumps(rows))
        return
    table = Table("recipe", "job", "GFLOP/image", "product GFLOP/s", "images/s", "limit", "share", "codes changed")
    for row in rows:
        changed = f"{row['codes_changed']:.2%}" if "codes_changed" in row else ""
        numbers = (f"{row['gflop']:.1f}", f"{row['rate']:.0f}", f"{row['img_s']:.2f}", f"{row['limit']:.2f}")
        table.add_row(row["recipe"].rpartition("/")[2], row["job"], *numbers, f"{row['share']:.0%}", changed)
    Console().print(table)


if __name__ == "__main__":
    main()
