"""`codeczoo export`: files, or the tokens they became, as a data set for language-model training."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common
from codeczoo.core.errors import InputError
from codeczoo.export import DTYPES, FORMATS, PATTERNS

if TYPE_CHECKING:
    from codeczoo.core.types import TokenSpec
    from codeczoo.export.batches import Prefix
    from codeczoo.export.patterns import Pattern


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
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exports. Returns 1 when an input was bad."""
    from codeczoo.export import dataset
    from codeczoo.export.sources import Options

    report, out = common.Report(args.json), Path(args.output)
    format_ = import_module(f"codeczoo.export.{args.format}")
    with dataset.atomic_folder(out, args.overwrite) as folder:
        runner = common.open_codec(args, args.codec)
        spec = runner.codec.spec
        media, prefix = common.open_media(runner, Options(args.fit, args.window)), common.prefix_of(args, spec)
        prefix.check(spec)
        files = common.find_inputs(media, args.paths, (*media.SUFFIXES, *media.TOKEN_SUFFIXES))
        pattern = pattern_of(args, spec, prefix)
        writer = format_.Writer(folder, dataset.dtype_for(pattern.vocabulary.size, args.dtype))
        samples = media.encode(files, prefix)
        for sample in common.progress(samples, len(files), "export"):
            if sample.tokens is None:
                report.fail(sample.found.path, sample.error)
                continue
            writer.add(dataset.document_of(sample), pattern.ids(sample.tokens))
            report.done += 1
        if not report.done:
            raise InputError(f"nothing exported: all {len(files)} inputs are bad")
        header = dataset.header_of(runner, pattern, args.format)
        header = writer.close(header | {"failed": len(report.failed)})
    return report.finish("exported", {key: header[key] for key in ("tokens", "vocab_size", "dtype")})


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
