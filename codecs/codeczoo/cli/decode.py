"""`codeczoo decode`: .cz token files back to media of the original size."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common
from codeczoo.core.errors import CodeczooError, InputError

if TYPE_CHECKING:
    from codeczoo.io.files import Found


# Of export.media.MEDIA, without their import.
FORMATS = ("png", "jpg", "webp", "wav", "flac", "mp3", "ogg", "opus", "mp4", "webm", "mkv", "gif")


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "decode",
        description="One picture, recording or clip per .cz file, of the original size, rate and length. Outputs that "
        "exist are skipped. Files of EnCodec and DAC (.ecdc, .dac) are decoded too; --codec names the weights.",
    )
    common.add_inputs(parser, ".cz files, and exports")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the media")
    common.add_codec(parser, "the one that the files name")
    common.add_prefix(parser)
    common.add_sampling(parser)
    common.add_window(parser)
    common.add_context(parser, "the context model that files were encoded with, where it is not a shipped one")
    lossless = "default png, wav and mp4; png, wav, flac and mkv are lossless"
    parser.add_argument("--format", choices=FORMATS, help=lossless)
    common.add_audio(parser, "codec for the sound of clips, where it is not where the file says")
    what = "decode frames of clips in tiles of so many pixels a side, blended: less memory, not quite the same frames"
    parser.add_argument("--tile", type=common.positive, metavar="PIXELS", help=what)
    parser.add_argument("--overwrite", action="store_true", help="decode again where the output exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decodes. Returns 1 when an input was bad."""
    from codeczoo.io.files import find, told_apart

    report = common.Report(args.json)
    files = find([p for p in args.paths if not is_export(p)], common.TOKEN_SUFFIXES)
    found = told_apart([*exported(args.paths), *files])
    groups = {args.codec: found} if args.codec else by_codec(found)
    common.check_options(args, groups)
    skipped = sum(decode(args, name, files, report) for name, files in groups.items())
    return report.finish("decoded", {"skipped": skipped})


def decode(args: argparse.Namespace, name: str, found: "Sequence[Found]", report: common.Report) -> int:
    """Decodes files with one codec. Returns how many have an output already."""
    from codeczoo.export.sources import Options

    folder = common.output_folder(args.output)
    runner = common.open_codec(args, name)
    common.set_sampling(args, runner.codec)
    options = Options(window=args.window, audio=common.audio_of(args), tile=args.tile)
    media, prefix = common.open_media(runner, options), common.prefix_of(args, runner.codec.spec)

    def place(found: "Found") -> Path:
        return found.output(folder, f".{args.format or media.format_of(found)}")

    files = [f for f in found if args.overwrite or not place(f).exists()]
    samples = media.decode(files, prefix, place)
    for sample in common.progress(samples, len(files), "decode"):
        if sample.error:
            report.fail(sample.found.path, sample.error)
        else:
            report.done += 1
    return len(found) - len(files)


def is_export(path: str) -> bool:
    """Whether that is what `codeczoo export` made."""
    return (Path(path) / "header.json").is_file()


def exported(paths: "Sequence[str]") -> "Iterator[Found]":
    """The documents of all exports among the paths. Raises FormatError."""
    for path in filter(is_export, paths):
        from codeczoo.export import dataset
        from codeczoo.export.unpack import unpack

        reader = dataset.read(path)
        yield from unpack(reader, range(len(reader)))


def by_codec(found: "Sequence[Found]") -> "dict[str, list[Found]]":
    """The files for each codec that they name; unreadable ones go with the first. Raises InputError for none else."""
    from codeczoo.io import tokens

    groups: dict[str, list[Found]] = {}
    unreadable, errors = [], []
    for one in found:
        try:
            groups.setdefault(tokens.read_header(one.source()).codec, []).append(one)
        except CodeczooError as error:
            unreadable.append(one)
            errors.append(str(error))
    if not groups:
        raise InputError(f"no .cz file can be read; {errors[0]}")
    next(iter(groups.values())).extend(unreadable)
    return groups
