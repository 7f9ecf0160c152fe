"""Does the data module keep the model busy? Loader-only and step-only samples per second, side by side.

Samples are pictures, or segments of audio.

    python tools/bench_loader.py image_folder root=/path/to/train image_size=64 workers=2
    python tools/bench_loader.py audio_folder root=/path/to/train.jsonl segment=3.0 workers=1
    python tools/bench_loader.py generated --codec codec.yaml     (a tree with _target_, or {codec: tree})
    python tools/bench_loader.py generated --codec codec.safetensors --json
"""

import argparse
import json
import sys
import time
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor

import codeczoo
from codeczoo.core.errors import CodeczooError, ConfigError


def main() -> int:
    """Prints the table or, with --json, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="name of a file in conf/data, e.g. image_folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="arguments of the data module")
    parser.add_argument("--codec", type=Path, help="YAML tree or weights of a codec, for the step-only rate")
    parser.add_argument("--batches", type=int, default=50, help="batches to time (default 50)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_intermixed_args()
    try:
        result = measure(args.data, args.overrides, args.codec, args.batches)
    except CodeczooError as error:
        print(f"bench_loader: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


def measure(name: str, overrides: list[str], codec: Path | None, batches: int) -> dict[str, Any]:
    """Rates in samples per second, and what they were measured with."""
    tree = data_tree(name, overrides)
    module = codeczoo.build(tree)
    module.setup()
    loader_rate, x = time_loader(module, batches)
    result = {
        "data": name,
        "workers": module.workers,
        "batch": list(x.shape),
        "batches": batches,
        "loader_samples_per_second": loader_rate,
        "skipped": module.skipped,
    }
    if codec is not None:
        result["step_samples_per_second"] = time_step(load_codec(codec), x, min(batches, 10))
    return result


def data_tree(name: str, overrides: list[str]) -> dict[str, Any]:
    """conf/data/NAME.yaml with the overrides, whose values are YAML."""
    file = files("codeczoo.conf").joinpath(f"data/{name}.yaml")
    if not file.is_file():
        known = sorted(f.name.removesuffix(".yaml") for f in files("codeczoo.conf").joinpath("data").iterdir())
        raise ConfigError(f"no data module {name}; allowed: {', '.join(known)}")
    tree = yaml.safe_load(file.read_text())
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or key not in tree:
            raise ConfigError(f"override {override!r} must be KEY=VALUE with KEY one of {', '.join(tree)}")
        tree[key] = yaml.safe_load(value)
    missing = [key for key, value in tree.items() if value == "???"]
    if missing:
        raise ConfigError(f"{name} wants {', '.join(f'{key}=...' for key in missing)}")
    return tree


def time_loader(module: Any, batches: int) -> tuple[float, Tensor]:
    """Samples per second after a warm-up that empties what the workers had read ahead, and one batch."""
    batches_of = iter(module.train_dataloader())
    for batch in islice(batches_of, 2 + 2 * module.workers):
        x = batch["x"]
    start = time.perf_counter()
    count = sum(len(batch["key"]) for batch in islice(batches_of, batches))
    return count / (time.perf_counter() - start), x


def load_codec(path: Path) -> codeczoo.Codec:
    """A codec from a YAML tree or from weights."""
    if path.suffix not in (".yaml", ".yml"):
        return codeczoo.load(str(path))
    tree = yaml.safe_load(path.read_text())
    return codeczoo.build(tree.get("codec", tree))


def time_step(codec: codeczoo.Codec, x: Tensor, steps: int) -> float:
    """Samples per second of forward, backward and AdamW on one batch; squared error and the codec's own losses."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    codec, x = codec.train().to(device), x.to(device)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-4)
    for step in range(steps + 2):
        if step == 2:
            synchronize()
            start = time.perf_counter()
        reconstruction = codec(x)
        assert reconstruction.x_hat is not None
        losses = [(reconstruction.x_hat - x).square().mean(), *reconstruction.losses.values()]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    synchronize()
    return steps * len(x) / (time.perf_counter() - start)


def synchronize() -> None:
    """Waits for the accelerator, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def show(result: dict[str, Any]) -> None:
    """The table, and who waits for whom."""
    loader, step = result["loader_samples_per_second"], result.get("step_samples_per_second")
    table = Table(title=f"{result['data']}, {result['workers']} workers, batches {result['batch']}")
    for column in ("loader only, samples/s", "step only, samples/s", "the model waits"):
        table.add_column(column, justify="right")
    waits = "-" if step is None else f"{max(0.0, 1 - loader / step):.0%} of the time"
    table.add_row(f"{loader:.0f}", "-" if step is None else f"{step:.0f}", waits)
    Console().print(table)
    if result["skipped"]:
        Console().print(f"skipped: {result['skipped']} samples that cannot be used")


if __name__ == "__main__":
    sys.exit(main())
