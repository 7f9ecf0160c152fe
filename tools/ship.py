"""A trained run as weights that come with the package: stored small, measured, with a page in docs/models/.

    python tools/ship.py runs/haar_grid_small/DATE image-2d --val images/val --against jpeg,webp \
        --data "..." --licence Apache-2.0 --hardware "..." --command "codeczoo train ..."

Moving averages of codebooks are left out: only training needs them. Such a codebook becomes a plain one, from which
training may go on by gradient. Matrices are stored in 16 bits. Everything that is measured is measured with the stored
weights, by `codeczoo eval` on held-out files; its numbers and pictures make the page.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from codeczoo import zoo
from codeczoo.cli.eval import formats_of
from codeczoo.core.summary import summary, without_paths
from codeczoo.io.weights import load_strict, read_header

LARGEST = 12_000_000  # bytes of a weights file
ROOT = Path(__file__).resolve().parents[1]
WEIGHTS, MODELS = ROOT / "codecs" / "codeczoo" / "weights", ROOT / "docs" / "models"
AVERAGED = {"codeczoo.quantizers.vq.EMAVQ": "VQ", "codeczoo.quantizers.vq.CosineEMAVQ": "CosineVQ"}
KEPT = ("_repeat_", "vocab_size", "dim")  # of what describes a codebook
PICTURES = ("rate_distortion.png", "grid.png", "spectrograms.png", "contact_sheet_1.png")
LINED = ("grid.png", "spectrograms.png")  # a line for the originals, then one for each row of the table
WIDEST = 1000  # pixels of a picture on the page


def plain(tree: Any) -> Any:
    """The configuration tree with plain codebooks in place of averaged ones, and nothing that only training needs."""
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("_target_") in AVERAGED:
        kept = {key: tree[key] for key in KEPT if key in tree}
        return kept | {"_target_": f"codeczoo.quantizers.vq.{AVERAGED[tree['_target_']]}"}
    return {key: plain(value) for key, value in tree.items() if not (key == "depth" and "_target_" in str(value))}


def store(source: Path, target: Path, dtype: torch.dtype, extra: dict[str, Any]) -> None:
    """Writes the codec of a weights file as a small one."""
    trained, header = zoo.load_autoencoder(source), read_header(source)
    codec = zoo.skeleton(plain(trained.config))
    own = trained.state_dict()
    load_strict(codec, {key: own[key] for key in codec.state_dict()}, str(source))
    extra = {"step": header["extra"]["step"], "ema": header["extra"]["ema"], **extra}
    zoo.save(target, codec, without_paths(header["recipe"]), extra, dtype)
    if (size := target.stat().st_size) > LARGEST:
        target.unlink()
        sys.exit(f"{target} would have {size} bytes; {LARGEST} are allowed")


def evaluated(name: str, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows of `codeczoo eval`, whose files go to the folder."""
    codec = WEIGHTS / f"{name}.safetensors"
    line = ["eval", *args.val, "--codec", str(codec), "--out", str(folder), *args.eval.split()]
    if args.against:
        line += ["--against", args.against]
    subprocess.run([sys.executable, "-m", "codeczoo", *line], check=True)
    return json.loads((folder / "eval.json").read_text())["rows"]


def page(name: str, args: argparse.Namespace, rows: Sequence[dict[str, Any]], pictures: Sequence[str]) -> str:
    """The model's page."""
    path = WEIGHTS / f"{name}.safetensors"
    header, formats = read_header(path), formats_of(rows)
    about = {
        "class": header["class"], "parameters": f"{header['parameters']:,}", **summary(header["spec"]),
        "file": f"{path.stat().st_size / 1e6:.1f} MB", "weights": f"{header['weights_hash']}",
        "training data": args.data, "licence": args.licence, "steps": header["extra"]["step"],
        "hardware": args.hardware,
    }  # fmt: skip
    lines = [f"# {name}", "", args.what, "", "```sh", f"codeczoo encode FILES -o tokens --codec {name}"]
    lines += ["codeczoo decode tokens -o decoded", "```", "", "| | |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in about.items()]
    lines += ["", "## Training", "", "```sh", args.command, "```", "", f"![curve](images/{pictures[0]})", ""]
    lines += ["## Measured", "", f"`codeczoo eval` on {args.val_what}, with the weights as they are stored.", ""]
    lines += [f"| {' | '.join(formats)} |", "|" + "---|" * len(formats)]
    for row in rows:
        lines.append("| " + " | ".join(format(row[c], f) if c in row else "" for c, f in formats.items()) + " |")
    lines += [line for picture in pictures[1:] for line in ("", f"![{Path(picture).stem}](images/{picture})")]
    return "\n".join([*lines, "", "## Limits", "", args.limits, ""])


def own_lines(picture: Image.Image, rows: Sequence[dict[str, Any]]) -> Image.Image:
    """Of a picture of lines, those of the originals and of the codec."""
    height, first = picture.height // (len(rows) + 1), rows[0]["system"]
    kept = [0, *(i for i, row in enumerate(rows, 1) if row["system"] == first)]
    drawn = Image.new("RGB", (picture.width, len(kept) * height))
    for place, line in enumerate(kept):
        drawn.paste(picture.crop((0, line * height, picture.width, (line + 1) * height)), (0, place * height))
    return drawn


def put(source: Path, name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Puts a picture, at most WIDEST pixels wide, beside the pages; returns its file's name."""
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if source.name in LINED:
        picture = own_lines(picture, rows)
    picture.thumbnail((WIDEST, 10 * WIDEST), Image.Resampling.LANCZOS)
    target = MODELS / "images" / f"{name}_{source.stem}.webp"
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target, quality=85, method=6)
    return target.name


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder or weights file")
    parser.add_argument("name", help="that the codec gets")
    parser.add_argument("--val", nargs="+", required=True, help="held-out files or folders")
    parser.add_argument("--val-what", required=True, help="what they are, in words")
    parser.add_argument("--against", default="", help="baselines, as in codeczoo eval")
    parser.add_argument("--eval", default="", help="further words for codeczoo eval")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    for key in ("what", "data", "licence", "hardware", "command", "limits"):
        parser.add_argument(f"--{key}", required=True, help="for the page")
    args = parser.parse_args()
    source, target = zoo.find(args.run), WEIGHTS / f"{args.name}.safetensors"
    store(source, target, getattr(torch, args.dtype), {k: getattr(args, k) for k in ("data", "licence", "hardware")})
    with TemporaryDirectory() as folder:
        rows = evaluated(args.name, args, Path(folder))
        drawn = [Path(folder) / picture for picture in PICTURES if (Path(folder) / picture).exists()]
        pictures = [put(path, args.name, rows) for path in (source.parent / "curve.png", *drawn)]
    (MODELS / f"{args.name}.md").write_text(page(args.name, args, rows, pictures))


if __name__ == "__main__":
    main()
