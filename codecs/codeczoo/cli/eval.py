"""`codeczoo eval`: quality and bits of a codec at every rate, beside image, sound and video codecs at equal bytes."""

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common, crops, defaults, labels
from codeczoo.core.errors import InputError, nearest

if TYPE_CHECKING:
    from codeczoo.core.types import TokenSpec
    from codeczoo.export.batches import Prefix
    from codeczoo.export.evaluate import Evaluation
    from codeczoo.export.judging import Networks, Observer
    from codeczoo.export.sources import Media

AGAINST = ("jpeg", "webp", "avif", "opus", "mp3", "h264", "h265")  # BASELINES of export.judges, without their import
KINDS = ("positions", "codebooks", "streams")
COLUMNS = {
    "system": "", "rate": "", "kbps": ".2f", "payload_kbps": ".2f", "bits": ".0f", "bpp": ".4f",
    "payload_bytes": ".1f", "file_bytes": ".1f", "file_bpp": ".4f", "psnr": ".2f", "ssim": ".4f", "ms_ssim": ".4f",
    "flicker": ".2f", "lpips": ".4f", "rfid": ".2f", "fvd": ".1f", "mel": ".3f", "superb_mel": ".3f", "stft": ".3f",
    "si_sdr": ".2f", "pesq": ".2f", "stoi": ".3f", "vuv": ".1%", "f0_cents": ".0f", "f0_corr": ".3f",
    "t_acc": ".1%", "t_ned": ".1%", "f_sim": ".3f", "probe": ".1%", "probe_codes": ".1%", "probe_vectors": ".1%",
    "codebook_use": ".1%", "perplexity": ".0f", "shrunk": ".0%", "too_large": ".0%",
}  # fmt: skip


def numbers(text: str) -> list[int]:
    """Whole numbers separated by commas, for argparse."""
    return [common.positive(part) for part in text.split(",")]


def rates(text: str) -> list[float]:
    """Numbers above 0 separated by commas, for argparse."""
    return [common.positive_number(part) for part in text.split(",")]


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
        description="Measures are means over media as the codec sees them (cropped or resized; at its rate, mixed to "
        "mono where it is mono). Pictures: baselines get, one by one, the bytes of the whole .cz file; where that is "
        "little they may shrink the picture (share: shrunk). Videos: the same, for elementary streams; PSNR, SSIM and "
        "LPIPS are means over frames; flicker is how much the error changes from frame to frame, in levels of 8 bits. "
        "Recordings: baselines get the bytes of the coded codes. Where even that is too little, the smallest file "
        "counts (share: too_large). PESQ, STOI and those of pitch (vuv, f0_cents, f0_corr) are means over the "
        "recordings that they have a value for; recordings of more than 30 s count as several, of 30 s each.",
    )
    common.add_inputs(parser, "pictures, recordings or videos, or manifests of them")
    common.add_codec(parser, common.FOR_MEDIA)
    common.add_context(parser, f"bytes of .cz files that are coded with a model: '{common.SHIPPED}', or a file")
    parser.add_argument("--fit", choices=("crop", "resize"), help="of pictures (default crop, as papers do)")
    group = parser.add_mutually_exclusive_group()
    for kind in KINDS:
        group.add_argument(f"--{kind}", type=numbers, metavar="N,N", help=f"rates: the first N {kind}")
    group.add_argument("--kbps", type=rates, metavar="R,R", help="rates: as many codebooks as R kbit/s hold")
    common.add_sampling(parser)
    parser.add_argument("--against", type=names, default=[], metavar="A,B", help=f"baselines: {', '.join(AGAINST)}")
    add_networks(parser)
    labels.add_probe(parser)
    crops.add_crops(parser)
    parser.add_argument("-o", "--out", metavar="DIR", help="folder for eval.json, rate_distortion.png and pictures")
    parser.set_defaults(run=run)


def add_networks(parser: argparse.ArgumentParser) -> None:
    """--fid-weights, --fvd-weights, --lpips-weights."""
    parser.add_argument("--fid-weights", metavar="P", help="Inception weights, for rFID")
    parser.add_argument("--fvd-weights", metavar="P", help="I3D weights, for FVD of clips of 9 frames or more")
    parser.add_argument("--lpips-weights", metavar="P", help="VGG weights with LPIPS heads")


def run(args: argparse.Namespace) -> int:
    """Evaluates. Returns 1 when an input was bad."""
    from codeczoo.export.evaluate import Evaluation
    from codeczoo.export.sources import Options

    out = None if args.out is None else common.output_folder(args.out)
    name = args.codec or defaults.only_for(labels.listed(args.paths, defaults.suffixes()).files)
    runner = common.open_codec(args, name)
    common.set_sampling(args, runner.codec)
    media = common.open_media(runner, Options(fit=args.fit))
    inputs = labels.listed(args.paths, media.SUFFIXES, media.UNIT)
    files, nets, report = inputs.files, networks(args, runner.device), common.Report(as_json=False)
    evaluation = Evaluation(runner, prefixes(args, runner.codec.spec), args.against, nets)
    evaluation.observers = observers(args, media, inputs, nets, report)
    if args.probe and "probe" not in evaluation.observers:
        raise labels.nothing_to_probe(args.probe)
    measured = groupby(evaluation.add(media.clips(files)), lambda sample: sample.found)
    for found, clips in common.progress(measured, len(files), "eval"):
        errors = [clip.error for clip in clips if clip.error]
        if errors:
            report.fail(found.path, errors[0])
        else:
            report.done += 1
    if not report.done:
        raise InputError(f"nothing measured: all {len(files)} inputs are bad")
    facts = {"codec": runner.name, "weights_hash": runner.weights_hash, media.UNIT: report.done}
    facts |= {"failed": report.failed, "rows": evaluation.result()}
    facts |= evaluation.observed
    if out is not None:
        write(out, facts, evaluation)
    show(facts, args.json, media.UNIT)
    return 1 if report.failed else 0


def prefixes(args: argparse.Namespace, spec: "TokenSpec") -> "list[Prefix]":
    """The rates that the arguments ask for. Raises InputError."""
    from codeczoo.export.batches import at_kbps
    from codeczoo.export.evaluate import rates_of

    if args.kbps:
        return rates_of(spec, "codebooks", [at_kbps(spec, kbps) for kbps in args.kbps])
    kind = next((kind for kind in KINDS if getattr(args, kind)), None)
    return rates_of(spec, kind, getattr(args, kind) if kind else ())


def networks(args: argparse.Namespace, device: Any) -> "Networks":
    """The networks whose weights are given. Raises MissingError."""
    from codeczoo.export.judging import Networks
    from codeczoo.losses.lpips import LPIPS
    from codeczoo.metrics.i3d import ClipFeatures
    from codeczoo.metrics.inception import Inception

    return Networks(
        lpips=LPIPS(args.lpips_weights).to(device).compare if args.lpips_weights else None,
        inception=Inception(args.fid_weights).to(device) if args.fid_weights else None,
        i3d=ClipFeatures(args.fvd_weights).to(device) if args.fvd_weights else None,
    )


def observers(
    args: argparse.Namespace, media: "Media", inputs: labels.Said, networks: "Networks", report: common.Report
) -> "dict[str, Observer]":
    """What --probe and the options for text and faces ask for. Raises InputError."""
    found = {
        "crops": crops.crops_of(args, media.runner, inputs.files),
        "probe": labels.probe_of(args, media, inputs, networks, report),
    }
    return {name: observer for name, observer in found.items() if observer is not None}


def write(folder: Path, facts: dict[str, Any], evaluation: "Evaluation") -> None:
    """eval.json, the plot and the reconstructions."""
    from codeczoo.cli import drawings
    from codeczoo.io.files import atomic

    with atomic(folder / "eval.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")
    drawings.draw(folder, facts["rows"], evaluation)


def show(facts: dict[str, Any], as_json: bool, unit: str) -> None:
    """The table, or everything as JSON."""
    if as_json:
        common.say(json.dumps(facts))
        return
    formats = formats_of(facts["rows"])
    rows = [{name: format(row[name], formats[name]) for name in formats if name in row} for row in facts["rows"]]
    common.table(list(formats), rows)
    if "probe" in facts:
        common.say(labels.told(facts["probe"]))
    common.say(f"{facts[unit]} {unit}, {len(facts['failed'])} failed")


def formats_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns that some row has, and how they are written: those of COLUMNS, bpp of each stream beside bpp."""
    found = dict.fromkeys(name for row in rows for name in row)
    formats: dict[str, str] = {}
    for name, how in COLUMNS.items():
        formats |= {name: how} if name in found else {}
        formats |= {each: how for each in found if name == "bpp" and each.startswith("bpp ")}
    return formats
