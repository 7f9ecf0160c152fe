"""`codeczoo export`: files, or the tokens they became, as a data set for language-model training."""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codeczoo.cli import common, defaults, ids, rewrite, target
from codeczoo.cli.export_progress import watched
from codeczoo.cli.export_run import engine_of, plan_of, rank_of
from codeczoo.core.errors import InputError
from codeczoo.export import DTYPES, ENGINES, FORMATS


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "export",
        description="Pictures or recordings (or .cz files of the same codec) to a folder of token ids: docs/export.md.",
    )
    what = "pictures, recordings and .cz files: files, folders (any depth) or patterns"
    parser.add_argument("paths", nargs="*", metavar="PATH", help=what)
    what = "an export that is there: its documents written anew, nothing is encoded"
    parser.add_argument("--from", dest="from_", metavar="EXPORT", help=what)
    what = "of a manifest or data set: the column with the media or their paths"
    parser.add_argument("--column", metavar="NAME", help=f"{what} (default: the first that looks so)")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder of the export; appears complete")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="auto: uint16 if it holds all ids")
    ids.add(parser)
    common.add_codec(parser, common.FOR_MEDIA)
    common.add_prefix(parser)
    target.add_target(parser, max_bytes=False)
    common.add_options(parser)
    what = "what stands in FILE.txt (as text) and FILE.json beside each file is said of it, as by a manifest"
    parser.add_argument("--sidecars", action="store_true", help=what)
    what = "local: this process; ray: actors of Ray; ranks: the processes that torchrun or srun starts (default local)"
    parser.add_argument("--engine", choices=ENGINES, default="local", help=what)
    what = "of engine ray (default: one for each GPU, or CPU where there is none)"
    parser.add_argument("--workers", type=common.positive, metavar="N", help=f"actors {what}")
    parser.add_argument("--shard", type=common.positive, default=1000, metavar="N", help="inputs a part (default 1000)")
    parser.add_argument("--resume", action="store_true", help="go on with the export that was begun there, if one was")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exports. Returns 1 when an input was bad or missed the target."""
    from codeczoo.export import dataset

    dataset.format_module("parquet")  # tells in one line that pyarrow is missing; the next imports would in many
    if args.from_ is not None:
        return rewrite.run(args)
    from codeczoo.export import card, store
    from codeczoo.export.engines.ranks import begun
    from codeczoo.export.sources import Options
    from codeczoo.export.statistics import Statistics

    if not args.paths:
        raise InputError("PATH is needed, or --from EXPORT")
    report, out = common.Report(args.json), Path(args.output)
    derived = args.format != "parquet" or args.text is not None or args.vary is not None
    rank = rank_of(args, derived)
    folder = out.with_name(f"{out.name}.store") if derived else out
    if derived and out.exists() and not args.overwrite:
        raise InputError(f"{out} exists; choose another folder or give --overwrite")
    runner = common.open_codec(args, args.codec or defaults.only(args.paths, args.column))
    media = common.open_media(runner, Options(args.fit, args.window))
    prefix = common.prefix_of(args, runner.codec.spec).check(runner.codec.spec)
    target.cutter_of(args, media, prefix)  # refuses what cannot be; workers make their own
    place = ids.place_of(args, runner.codec.spec, runner.name, runner.weights_hash)
    pattern = ids.pattern_of(args, runner.codec.spec, place, prefix)
    change = ids.change_of(args, place, None, ids.vary_of(args, runner.codec.spec))
    size = max(pattern.vocabulary.size, place.size)
    dtype = dataset.format_module(args.format).Writer.dtype_for(size, args.dtype)
    options = {
        "PATH": args.paths,
        "codec": runner.name,
        "weights_hash": runner.weights_hash,
        "prefix": asdict(prefix),
        "pattern": pattern.to_dict(),
        "dtype": dataset.dtype_for(size) if derived else dtype,
        "precision": runner.precision,
        "device": runner.device.type,
        "shard": args.shard,
        "column": args.column,
        "sidecars": args.sidecars,
        "fit": args.fit,
        "window": args.window,
        "target": args.target,
        "sampling": None if args.target is None or runner.codec.sampling is None else asdict(runner.codec.sampling),
    }
    plan = begun(folder).check(options) if rank.number else plan_of(args, folder, media, options)
    watched(engine_of(args, plan, runner, rank).run(), plan, report)
    header = dataset.header_of(runner, pattern, "parquet") | {"prefix": asdict(prefix)}
    header = store.finish(plan, header if place.about is None else header | {"vocabulary": place.about})
    if rank.number:
        return 0
    report.done, report.missed, report.failed = header["documents"], header.get("missed", 0), store.failures(folder)
    if derived:
        header = rewrite.write(args, dataset.read(folder), change, place)
        shutil.rmtree(folder)
    else:
        place.save(folder)
        card.write(folder, header, Statistics.of(dataset.read(folder)))
    facts = {key: header[key] for key in ("tokens", "vocab_size", "dtype")}
    code = report.finish("exported", facts | {"skipped": plan.inputs - report.done - len(report.failed)})
    return 0 if args.engine == "ranks" else code
