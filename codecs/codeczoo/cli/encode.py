"""`codeczoo encode`: files to .cz token files."""

import argparse
from typing import Any

from codeczoo.cli import common


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "encode",
        description="One .cz file per picture, recording or clip, folder structure kept; outputs that exist are "
        "skipped. The sound of a clip goes into its file as it is, or as tokens of --audio CODEC. Files of EnCodec and "
        "DAC (.ecdc, .dac) become .cz files too, where the codec has their weights.",
    )
    common.add_inputs(parser, "pictures, recordings or clips")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the .cz files")
    common.add_codec(parser)
    common.add_prefix(parser)
    common.add_options(parser)
    common.add_audio(parser, "codec for the sound of clips")
    parser.add_argument("--overwrite", action="store_true", help="encode again where the output exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encodes. Returns 1 when an input was bad."""
    from codeczoo.export.batches import threaded
    from codeczoo.export.sources import Options, Sample
    from codeczoo.io import tokens

    report, folder = common.Report(args.json), common.output_folder(args.output)
    runner = common.open_codec(args, args.codec)
    options = Options(args.fit, args.window, common.audio_of(args))
    media, prefix = common.open_media(runner, options), common.prefix_of(args, runner.codec.spec)
    foreign = [suffix for suffix in media.TOKEN_SUFFIXES if suffix != tokens.SUFFIX]
    found = common.find_inputs(media, args.paths, (*media.SUFFIXES, *foreign))
    files = [f for f in found if args.overwrite or not f.output(folder, tokens.SUFFIX).exists()]

    def write(sample: Sample) -> tuple[Sample, int]:
        if sample.tokens is None:
            return sample, 0
        fit = None if sample.fit is None else sample.fit.to_dict()
        path = sample.found.output(folder, tokens.SUFFIX)
        name, digest = runner.name, runner.weights_hash
        return sample, tokens.write(
            path, sample.tokens, codec=name, weights_hash=digest, fit=fit, attachments=sample.attachments
        )

    size = 0
    samples = threaded(map(media.complete, media.encode(files, prefix)), write, 2 * args.batch)
    for sample, written in common.progress(samples, len(files), "encode"):
        size += written
        if sample.error:
            report.fail(sample.found.path, sample.error)
        else:
            report.done += 1
    return report.finish("encoded", {"skipped": len(found) - len(files), "bytes": size})
