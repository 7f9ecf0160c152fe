"""`codeczoo encode`: files to .cz token files."""

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from codeczoo.cli import common, defaults, target
from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    from codeczoo.io.files import Found


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
    common.add_codec(parser, common.FOR_MEDIA)
    common.add_prefix(parser)
    target.add_target(parser, max_bytes=True)
    common.add_options(parser)
    common.add_audio(parser, "codec for the sound of clips")
    what = f"smaller files by a model of the codes: '{common.SHIPPED}', or what `codeczoo context` made"
    common.add_context(parser, f"{what}, which decode then needs too")
    parser.add_argument("--overwrite", action="store_true", help="encode again where the output exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encodes. Returns 1 when an input was bad or missed the target."""
    report, size, skipped = common.Report(args.json), 0, 0
    chosen = [(args.codec, None)] if args.codec else defaults.chosen(args.paths)
    common.check_options(args, [name for name, _ in chosen])
    for name, files in chosen:
        counts = encode(args, name, files, report)
        size, skipped = size + counts.size, skipped + counts.skipped
    return report.finish("encoded", {"skipped": skipped, "bytes": size})


class Counts(NamedTuple):
    """Of one codec: bytes written, files that had an output."""

    size: int
    skipped: int


def encode(args: argparse.Namespace, name: str, found: "list[Found] | None", report: common.Report) -> Counts:
    """Encodes with one codec the files that are given, or those of the arguments."""
    from codeczoo.export.batches import threaded
    from codeczoo.export.sources import Options, Sample, contents
    from codeczoo.io import tokens
    from codeczoo.io.files import atomic

    folder = common.output_folder(args.output)
    runner = common.open_codec(args, name)
    if runner.context is not None and runner.context.weights_hash != runner.weights_hash:
        raise InputError(f"{args.context}: a model of the codes of {runner.context.codec}, not of {name}'s")
    options = Options(args.fit, args.window, common.audio_of(args))
    media, prefix = common.open_media(runner, options), common.prefix_of(args, runner.codec.spec)
    cutter = target.cutter_of(args, media, prefix)
    chosen = None if cutter is None else target.Chosen(cutter, report)
    if found is None:
        foreign = [suffix for suffix in media.TOKEN_SUFFIXES if suffix != tokens.SUFFIX]
        found = common.find_inputs(media, args.paths, (*media.SUFFIXES, *foreign))
    files = [f for f in found if args.overwrite or not f.output(folder, tokens.SUFFIX).exists()]

    def write(sample: Sample) -> tuple[Sample, int]:
        if sample.tokens is None:
            return sample, 0
        data = contents(runner, sample)
        with atomic(sample.found.output(folder, tokens.SUFFIX)) as temporary:
            temporary.write_bytes(data)
        return sample, len(data)

    size = 0
    encoded: Iterable[Sample] = map(media.complete, media.encode(files, prefix))
    samples = threaded(encoded if cutter is None else cutter.cut(encoded), write, 2 * args.batch)
    for sample, written in common.progress(samples, len(files), "encode"):
        size += written
        if sample.error:
            report.fail(sample.found.path, sample.error)
        else:
            report.done += 1
            if chosen is not None:
                chosen.add(sample, written)
    if chosen is not None:
        chosen.finish()
    return Counts(size, len(found) - len(files))
