"""`codeczoo eval`: quality and bits of a codec at every rate, beside JPEG and WebP."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common
from codeczoo.core.errors import InputError, nearest

if TYPE_CHECKING:
    from codeczoo.export.evaluate import Evaluation, Networks

AGAINST = ("jpeg", "webp")  # export.baselines.BASELINES, without its import
KINDS = ("positions", "codebooks", "streams")
COLUMNS = {
    "system": "", "rate": "", "bits": ".0f", "bpp": ".4f", "payload_bytes": ".1f", "file_bytes": ".1f",
    "file_bpp": ".4f", "psnr": ".2f", "ssim": ".4f", "ms_ssim": ".4f", "lpips": ".4f", "rfid": ".2f",
    "codebook_use": ".1%", "perplexity": ".0f", "shrunk": ".0%", "too_large": ".0%",
}  # fmt: skip


def numbers(text: str) -> list[int]:
    """Whole numbers separated by commas, for argparse."""
    return [common.positive(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """Baselines separated by commas, for argparse."""
    found = text.split(",")
    for name in found:
        if name not in AGAINST:
            raise argparse.ArgumentTypeError(f"no baseline '{name}'; {nearest(name, AGAINST)}")
    return found


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "eval",
        description="Measures are means over pictures as the codec sees them (cropped or resized to its size). "
        "Baselines get, picture by picture, the bytes of the whole .cz file; where that is little they may shrink the "
        "picture (share: shrunk), and where even that is too large, the smallest file counts (share: too_large).",
    )
    common.add_inputs(parser, "pictures")
    common.add_codec(parser)
    parser.add_argument("--fit", choices=("crop", "resize"), help="to the codec's size (default crop, as papers do)")
    group = parser.add_mutually_exclusive_group()
    for kind in KINDS:
        group.add_argument(f"--{kind}", type=numbers, metavar="N,N", help=f"rates: the first N {kind}")
    parser.add_argument("--against", type=names, default=[], metavar="A,B", help="baselines: jpeg, webp")
    parser.add_argument("--fid-weights", metavar="P", help="Inception weights, for rFID")
    parser.add_argument("--lpips-weights", metavar="P", help="VGG weights with LPIPS heads")
    parser.add_argument("-o", "--out", metavar="DIR", help="folder for eval.json, rate_distortion.png and grid.png")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluates. Returns 1 when an input was bad."""
    from codeczoo.export.batches import Prefix
    from codeczoo.export.evaluate import Evaluation, rates_of
    from codeczoo.export.sources import encode_files
    from codeczoo.io import image
    from codeczoo.io.files import find

    out = None if args.out is None else common.output_folder(args.out)
    files = find(args.paths, image.SUFFIXES)
    runner = common.open_codec(args, args.codec)
    spec = runner.codec.spec
    kind = next((kind for kind in KINDS if getattr(args, kind)), None)
    rates = rates_of(spec, kind, getattr(args, kind) if kind else ())
    evaluation = Evaluation(runner, rates, args.against, networks(args, runner.device))
    report = common.Report(as_json=False)
    samples = encode_files(runner, files, Prefix(), args.fit or ("crop" if spec.input_size else None))
    for sample in common.progress(evaluation.add(samples), len(files), "eval"):
        if sample.error:
            report.fail(sample.found.path, sample.error)
        else:
            report.done += 1
    if not report.done:
        raise InputError(f"nothing measured: all {len(files)} inputs are bad")
    facts = {"codec": runner.name, "weights_hash": runner.weights_hash, "pictures": report.done}
    facts |= {"failed": report.failed, "rows": evaluation.result()}
    if out is not None:
        write(out, facts, evaluation)
    show(facts, args.json)
    return 1 if report.failed else 0


def networks(args: argparse.Namespace, device: Any) -> "Networks":
    """The networks whose weights are given. Raises MissingError."""
    from codeczoo.export.evaluate import Networks
    from codeczoo.losses.lpips import LPIPS
    from codeczoo.metrics.inception import Inception

    return Networks(
        lpips=LPIPS(args.lpips_weights).to(device).compare if args.lpips_weights else None,
        inception=Inception(args.fid_weights).to(device) if args.fid_weights else None,
    )


def write(folder: Path, facts: dict[str, Any], evaluation: "Evaluation") -> None:
    """eval.json, the plot and the grid."""
    from codeczoo.cli import report
    from codeczoo.io.files import atomic

    with atomic(folder / "eval.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")
    report.plot(folder / "rate_distortion.png", facts["rows"])
    rows = [row for rows in evaluation.rows for row in rows]
    report.grid(
        folder / "grid.png",
        [("original", evaluation.originals), *((f"{row.system}, {row.rate}", row.pictures) for row in rows)],
    )


def show(facts: dict[str, Any], as_json: bool) -> None:
    """The table, or everything as JSON."""
    if as_json:
        common.say(json.dumps(facts))
        return
    columns = [name for name in COLUMNS if any(name in row for row in facts["rows"])]
    common.table(columns, [{c: format(row[c], COLUMNS[c]) for c in columns if c in row} for row in facts["rows"]])
    common.say(f"{facts['pictures']} pictures, {len(facts['failed'])} failed")
