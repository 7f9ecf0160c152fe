"""What several commands share: arguments, opening the codec, progress, the report at the end."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    from codeczoo.core.base import Codec
    from codeczoo.core.types import TokenSpec
    from codeczoo.export.batches import Prefix, Runner
    from codeczoo.export.sources import Media, Options
    from codeczoo.io.context import ContextModel
    from codeczoo.io.files import Found

A = TypeVar("A")
FITS = ("resize", "crop", "pad", "tile")  # io.image.MODES, without its import
SOLVERS = ("euler", "heun")  # core.types.Solver, likewise
FOR_MEDIA = "the shipped one for the files' media, see codeczoo list"
TOKEN_SUFFIXES = (".cz", ".ecdc", ".dac")  # export.recordings.Recordings.TOKEN_SUFFIXES, likewise
SHIPPED = "shipped"  # of --context: the model that comes with the package
PATIENCE = 2.0  # seconds before a progress bar appears


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got '{text}'")
    return int(text)


def positive_number(text: str) -> float:
    """A number above 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got '{text}'")
    return number


def add_inputs(parser: argparse.ArgumentParser, what: str) -> None:
    """PATH... and -o OUT."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help=f"{what}: files, folders (any depth) or patterns")


def add_codec(parser: argparse.ArgumentParser, default: str) -> None:
    """--codec, with words on what happens without it, and how it runs."""
    what = f"shipped name, weights file, folder or owner/name[@revision] on the Hub (default: {default})"
    parser.add_argument("--codec", metavar="NAME", help=what)
    add_running(parser)


def add_context(parser: argparse.ArgumentParser, what: str) -> None:
    """--context."""
    parser.add_argument("--context", metavar="FILE", help=what)


def add_running(parser: argparse.ArgumentParser) -> None:
    """--batch, --device, --precision, --json."""
    parser.add_argument("--batch", type=positive, default=8, metavar="N", help="most files at once (default 8)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="bf16 changes a few codes")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")


def add_prefix(parser: argparse.ArgumentParser) -> None:
    """--positions, --codebooks, --streams."""
    group = parser.add_argument_group("prefix", "keep less, where the codec decodes it (see codeczoo info)")
    for name in ("positions", "codebooks", "streams"):
        group.add_argument(f"--{name}", type=positive, metavar="N", help=f"only the first N {name}")
    group.add_argument("--kbps", type=positive_number, metavar="R", help="as many codebooks as R kbit/s hold")


def add_options(parser: argparse.ArgumentParser) -> None:
    """--fit, --window."""
    parser.add_argument("--fit", choices=FITS, help="how a picture gets the codec's size (default resize)")
    add_window(parser)


def add_window(parser: argparse.ArgumentParser) -> None:
    """--window."""
    what = "audio codecs that see all of a recording at once take long ones in windows of so many seconds"
    parser.add_argument("--window", type=positive_number, metavar="SECONDS", help=what)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """--steps, --guidance, --seed, --solver, --no-projection."""
    group = parser.add_argument_group("sampling", "for codecs whose decoder samples (see codeczoo info)")
    group.add_argument("--steps", type=positive, metavar="N", help="of the solver")
    group.add_argument("--guidance", type=float, metavar="G", help="how much more the tokens count; 1: none, one pass")
    group.add_argument("--seed", type=int, metavar="S", help="of the noise")
    group.add_argument("--solver", choices=SOLVERS, help="heun asks the network twice a step")
    what = "plain guidance instead of projected guidance"
    group.add_argument("--no-projection", dest="projected", action="store_false", default=None, help=what)


def set_sampling(args: argparse.Namespace, codec: "Codec") -> None:
    """Lets the codec sample as the arguments ask. Raises InputError for one that samples nothing, or out of range."""
    from dataclasses import fields, replace

    from codeczoo.core.types import Sampling

    given = {f.name: getattr(args, f.name) for f in fields(Sampling) if getattr(args, f.name) is not None}
    if not given:
        return
    if codec.sampling is None:
        option = f"--{next(iter(given))}".replace("--projected", "--no-projection")
        raise InputError(f"{option}: the decoder of this codec does not sample")
    codec.sampling = replace(codec.sampling, **given)


def prefix_of(args: argparse.Namespace, spec: "TokenSpec") -> "Prefix":
    """The prefix that the arguments ask for. Raises InputError for two wishes about codebooks, and as `at_kbps`."""
    from codeczoo.export.batches import Prefix, at_kbps

    if args.kbps is None:
        return Prefix(args.positions, args.codebooks, args.streams)
    if args.codebooks is not None:
        raise InputError("--kbps and --codebooks say the same: give one of them")
    codebooks = at_kbps(spec, args.kbps)
    all_of_them = codebooks == len(spec.streams[0].vocab_sizes)
    return Prefix(args.positions, None if all_of_them else codebooks, args.streams)


def check_options(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Before the first of some codecs works: whether the prefix, and --format where there is one, are for all of them.

    Raises InputError.
    """
    from codeczoo import zoo
    from codeczoo.core.types import TokenSpec
    from codeczoo.export.media import MEDIA
    from codeczoo.io.weights import read_header

    for name in names:
        spec = TokenSpec.from_dict(read_header(zoo.find(name))["spec"])
        if not spec.streams:
            continue  # it is no codec, which is told when it is opened
        try:
            prefix_of(args, spec).check(spec)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        kind, wanted = MEDIA[spec.media], getattr(args, "format", None)
        if wanted not in (None, *kind.FORMATS):
            raise InputError(f"--format {wanted}: {kind.UNIT} are written as {', '.join(kind.FORMATS)}")


def open_media(runner: "Runner", options: "Options | None" = None) -> "Media":
    """How files get to the codec. Raises InputError for options that are not for it."""
    from codeczoo.export.media import media_of

    return media_of(runner, options)


def add_audio(parser: argparse.ArgumentParser, what: str) -> None:
    """--audio."""
    parser.add_argument("--audio", metavar="CODEC", help=f"{what}: shipped name, weights file or folder")


def audio_of(args: argparse.Namespace) -> "Runner | None":
    """The codec of --audio, ready to run; None where none was named. Raises InputError for another media."""
    runner = None if args.audio is None else open_codec(args, args.audio)
    if runner is not None and runner.codec.spec.media != "audio":
        raise InputError(f"--audio {args.audio}: that codec takes {runner.codec.spec.media}")
    return runner


def find_inputs(media: "Media", paths: Sequence[str], suffixes: Sequence[str]) -> "list[Found]":
    """The files that the arguments mean. Raises InputError, which says what the codec takes."""
    from codeczoo.io.files import find

    try:
        return find(paths, suffixes)
    except InputError as error:
        raise InputError(f"{error} (this codec takes {media.UNIT})") from None


def open_codec(args: argparse.Namespace, name: str) -> "Runner":
    """The codec on its device, ready to run."""
    from codeczoo import zoo
    from codeczoo.export.batches import Runner
    from codeczoo.nn.hardware import bf16_is_fast

    device = device_of(args.device)
    codec = zoo.load(name)
    digest = zoo.weights_hash(codec)
    if args.precision == "bf16" and not bf16_is_fast(device):
        sys.stderr.write("codeczoo: this processor has no bf16 instructions: float32 will be many times faster\n")
    context = context_of(getattr(args, "context", None), name, digest)
    return Runner(codec.to(device), name, digest, args.batch, args.precision, context)


def context_of(wanted: str | None, name: str, weights_hash: str) -> "ContextModel | None":
    """What --context means for a codec; a file may hold the model of another. Raises InputError."""
    from codeczoo.io import context

    if wanted is None:
        return None
    model = context.shipped(weights_hash) if wanted == SHIPPED else context.load(wanted)
    if model is None:
        raise InputError(f"--context {SHIPPED}: none comes with the package for {name}; `codeczoo context` makes them")
    return model


def device_of(wanted: str) -> str:
    """What --device means here. Raises InputError where there is none."""
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise InputError("--device cuda: there is no CUDA device here")
    return "cuda" if wanted != "cpu" and there else "cpu"


def output_folder(text: str) -> Path:
    """The folder that outputs go to, there or not yet. Raises InputError for a file."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise InputError(f"-o {path} is a file; a folder is wanted")
    return path


def progress(items: Iterable[A], total: int, label: str) -> Iterator[A]:
    """The items, with a bar on stderr when that is a terminal and they take more than PATIENCE seconds."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task, start = bar.add_task(label, total=total), monotonic()
    try:
        for item in items:
            yield item
            bar.advance(task)
            if monotonic() - start > PATIENCE:
                bar.start()
    finally:
        bar.stop()


def say(text: str) -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A table on stdout, as wide as it wants where stdout is no terminal. Absent and None values stay empty."""
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=1000)
    grid = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        grid.add_row(*("" if row.get(c) is None else str(row[c]) for c in columns))
    console.print(grid, highlight=False, markup=False)


class Report:
    """Counts what became of the inputs and reports bad ones as they come, one line each on stderr.

    Args:
        as_json: print JSON at the end instead of a sentence.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.done = 0
        self.missed = 0
        self.failed: list[dict[str, str]] = []
        self._start = monotonic()

    def fail(self, path: Path, error: str) -> None:
        """Counts and reports a bad input."""
        error = " ".join(error.split()).removeprefix(f"{path}: ")
        self.failed.append({"path": str(path), "error": error})
        sys.stderr.write(f"codeczoo: {path}: {error}\n")

    def miss(self, path: Path, text: str) -> None:
        """Counts and reports an input that is done, but missed its target."""
        self.missed += 1
        sys.stderr.write(f"codeczoo: {path}: {text}\n")

    def finish(self, what: str, facts: dict[str, Any]) -> int:
        """Prints the end of the report; returns the exit code: 1 when an input was bad or missed its target.

        Args:
            what: past tense, e.g. "encoded".
            facts: further counts; those that are 0 are left out of the sentence.
        """
        if self.as_json:
            seconds = round(monotonic() - self._start, 3)
            missed = {"missed": self.missed} if self.missed else {}
            say(json.dumps({what: self.done, **facts, **missed, "failed": self.failed, "seconds": seconds}))
        else:
            facts = {**facts, "missed": self.missed, "failed": len(self.failed)}
            say(", ".join([f"{self.done} {what}", *(f"{name} {value}" for name, value in facts.items() if value)]))
        return 1 if self.failed or self.missed else 0
