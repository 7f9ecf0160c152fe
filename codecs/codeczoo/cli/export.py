"""`codeczoo export`: files, or the tokens they became, as a data set for language-model training."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from codeczoo.cli import common
from codeczoo.core.errors import InputError
from codeczoo.export import DTYPES, FORMATS, PATTERNS


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "export",
        description="Pictures (or .cz files of the same codec) to one folder of token ids; see docs/export.md.",
    )
    common.add_inputs(parser, "pictures and .cz files")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder of the export; appears complete")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--pattern", choices=PATTERNS, default="flat", help="order of the ids (default flat)")
    parser.add_argument("--vocab-offset", type=int, default=0, metavar="N", help="id of the first code (default 0)")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="auto: uint16 if it holds all ids")
    common.add_codec(parser)
    common.add_prefix(parser)
    common.add_fit(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exports. Returns 1 when an input was bad."""
    from codeczoo.core.config import build
    from codeczoo.export import dataset
    from codeczoo.export.sources import encode_files
    from codeczoo.io import image, tokens
    from codeczoo.io.files import find

    report, out = common.Report(args.json), Path(args.output)
    format_ = import_module(f"codeczoo.export.{args.format}")
    with dataset.atomic_folder(out, args.overwrite) as folder:
        files = find(args.paths, (*image.SUFFIXES, tokens.SUFFIX))
        runner = common.open_codec(args, args.codec)
        name = "".join(word.capitalize() for word in args.pattern.split("-"))
        tree = {"_target_": f"codeczoo.export.patterns.{name}", "vocab_offset": args.vocab_offset}
        pattern = build(tree | {"spec": runner.codec.spec})
        writer = format_.Writer(folder, dataset.dtype_for(pattern.vocabulary.size, args.dtype))
        samples = encode_files(runner, files, common.prefix_of(args), args.fit)
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
