"""`codeczoo decode`: .cz token files back to pictures of the original size."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common
from codeczoo.core.errors import CodeczooError, InputError

if TYPE_CHECKING:
    from codeczoo.io.files import Found


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "decode", description="One picture per .cz file, of the original size. Outputs that exist are skipped."
    )
    common.add_inputs(parser, ".cz files")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the pictures")
    common.add_codec(parser, required=False)
    common.add_prefix(parser)
    parser.add_argument("--format", choices=("png", "jpg", "webp"), default="png", help="default png, lossless")
    parser.add_argument("--overwrite", action="store_true", help="decode again where the output exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decodes. Returns 1 when an input was bad."""
    from codeczoo.export.batches import threaded
    from codeczoo.export.sources import Sample, decode_files, picture
    from codeczoo.io import image, tokens
    from codeczoo.io.files import find

    report, folder = common.Report(args.json), common.output_folder(args.output)
    found = find(args.paths, (tokens.SUFFIX,))
    files = [f for f in found if args.overwrite or not f.output(folder, f".{args.format}").exists()]
    runner = common.open_codec(args, args.codec or named_codec(found))

    def write(sample: Sample) -> Sample:
        if sample.x is not None:
            image.write(sample.found.output(folder, f".{args.format}"), picture(sample))
        return sample

    samples = threaded(decode_files(runner, files, common.prefix_of(args)), write, 2 * args.batch)
    for sample in common.progress(samples, len(files), "decode"):
        if sample.error:
            report.fail(sample.found.path, sample.error)
        else:
            report.done += 1
    return report.finish("decoded", {"skipped": len(found) - len(files)})


def named_codec(files: "Sequence[Found]") -> str:
    """The codec that the first readable file names. Raises InputError when none is readable."""
    from codeczoo.io import tokens

    errors = []
    for found in files:
        try:
            return tokens.read_header(found.path).codec
        except CodeczooError as error:
            errors.append(str(error))
    raise InputError(f"no .cz file can be read; {errors[0]}")
