"""`codeczoo export`: files, or the tokens they became, as a data set for language-model training."""

import argparse
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common
from codeczoo.core.errors import InputError
from codeczoo.export import DTYPES, FORMATS, PATTERNS

if TYPE_CHECKING:
    from codeczoo.core.types import TokenSpec
    from codeczoo.export.batches import Prefix
    from codeczoo.export.patterns import Pattern
    from codeczoo.export.plan import Plan
    from codeczoo.export.shard import Facts
    from codeczoo.export.sources import Media


def steps(text: str) -> list[int]:
    """Whole numbers separated by commas, for argparse."""
    if not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"must be whole numbers of at least 0 separated by commas, got '{text}'")
    return [int(part) for part in text.split(",")]


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "export",
        description="Pictures or recordings (or .cz files of the same codec) to a folder of token ids: docs/export.md.",
    )
    common.add_inputs(parser, "pictures, recordings and .cz files")
    what = "of a manifest or data set: the column with the media or their paths"
    parser.add_argument("--column", metavar="NAME", help=f"{what} (default: the first that looks so)")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder of the export; appears complete")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--pattern", choices=PATTERNS, default="flat", help="order of the ids (default flat)")
    parser.add_argument("--vocab-offset", type=int, default=0, metavar="N", help="id of the first code (default 0)")
    what = "of each codebook, for delay (default 0,1,2,..) and coarse-first (all but the first codebook, default 0)"
    parser.add_argument("--delays", type=steps, metavar="N,N", help=f"steps {what}")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="auto: uint16 if it holds all ids")
    common.add_codec(parser)
    common.add_prefix(parser)
    common.add_options(parser)
    parser.add_argument("--shard", type=common.positive, default=1000, metavar="N", help="inputs a part (default 1000)")
    parser.add_argument("--resume", action="store_true", help="go on with the export that was begun there, if one was")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exports. Returns 1 when an input was bad."""
    from codeczoo.export import dataset

    dataset.format_module("parquet")  # tells in one line that pyarrow is missing; the next imports would in many
    from codeczoo.export import store
    from codeczoo.export.derive import derive
    from codeczoo.export.engines import Local
    from codeczoo.export.shard import Worker
    from codeczoo.export.sources import Options

    report, out = common.Report(args.json), Path(args.output)
    derived = args.format != "parquet"
    folder = out.with_name(f"{out.name}.store") if derived else out
    if derived and out.exists() and not args.overwrite:
        raise InputError(f"{out} exists; choose another folder or give --overwrite")
    runner = common.open_codec(args, args.codec)
    media = common.open_media(runner, Options(args.fit, args.window))
    prefix = common.prefix_of(args, runner.codec.spec).check(runner.codec.spec)
    pattern = pattern_of(args, runner.codec.spec, prefix)
    dtype = dataset.format_module(args.format).Writer.dtype_for(pattern.vocabulary.size, args.dtype)
    options = {
        "PATH": args.paths,
        "codec": runner.name,
        "weights_hash": runner.weights_hash,
        "prefix": asdict(prefix),
        "pattern": pattern.to_dict(),
        "dtype": dataset.dtype_for(pattern.vocabulary.size) if derived else dtype,
        "batch": runner.batch,
        "precision": runner.precision,
        "device": runner.device.type,
        "shard": args.shard,
        "column": args.column,
        "fit": args.fit,
        "window": args.window,
    }
    plan = plan_of(args, folder, media, options)
    worker = Worker(plan, runner)
    watch(Local(worker).run(), plan, report)
    header = store.finish(plan, dataset.header_of(runner, worker.pattern, "parquet"))
    report.done, report.failed = header["documents"], store.failures(folder)
    if derived:
        with dataset.atomic_folder(out, args.overwrite) as temporary:
            header = derive(dataset.read(folder), temporary, args.format, dtype)
        shutil.rmtree(folder)
    return report.finish("exported", {key: header[key] for key in ("tokens", "vocab_size", "dtype")})


def plan_of(args: argparse.Namespace, folder: Path, media: "Media", options: dict[str, Any]) -> "Plan":
    """The plan that is there, with --resume, or a new one. Raises InputError where it must not be begun, or goes on."""
    from codeczoo.export import store
    from codeczoo.export.dataset import HEADER
    from codeczoo.export.inputs import inputs
    from codeczoo.export.plan import PLAN, Plan

    if folder.exists():
        begun = (folder / PLAN).is_file()
        if begun and args.resume:
            return Plan.open(folder).check(options)
        if not args.overwrite:
            if begun:
                how = f"{store.state(folder)}: --resume goes on, --overwrite begins anew"
                raise InputError(f"{folder} holds an export, {how}")
            raise InputError(f"{folder} exists; choose another folder")
        if not begun and not (folder / HEADER).is_file():
            raise InputError(f"{folder} exists and is no export; it is not overwritten")
    files = inputs(args.paths, (*media.SUFFIXES, *media.TOKEN_SUFFIXES), args.column)
    with store.aside(folder):
        return Plan.freeze(folder, files, options, args.shard)


def watch(parts: "Iterable[Facts]", plan: "Plan", report: common.Report) -> None:
    """Waits for all parts; tells failures as they come."""
    told: dict[int, str] = {}
    for facts in parts:
        new = {number: why for number, why in facts.failed.items() if number not in told}
        for number, why in new.items():
            one = plan.inputs_of(facts.shard)[number - plan.shards[facts.shard].first]
            report.fail(Path(one.where), why)
        told |= new


def pattern_of(args: argparse.Namespace, spec: "TokenSpec", prefix: "Prefix") -> "Pattern":
    """The pattern that the arguments ask for. Raises InputError for an option that it has not."""
    from codeczoo.core.config import build
    from codeczoo.export import patterns

    name = "".join(word.capitalize() for word in args.pattern.split("-"))
    options = {"delays": args.delays, "codebooks": prefix.codebooks}
    takes = getattr(patterns, name).OPTIONS
    if args.delays is not None and "delays" not in takes:
        raise InputError(f"--delays: pattern {args.pattern} has none")
    tree = {"_target_": f"codeczoo.export.patterns.{name}", "vocab_offset": args.vocab_offset, "spec": spec}
    pattern: Pattern = build(tree | {key: options[key] for key in takes})
    return pattern
