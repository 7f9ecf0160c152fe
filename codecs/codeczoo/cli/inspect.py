"""`codeczoo inspect`: what is in an export, in numbers, and some of it decoded."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codeczoo.cli import common

if TYPE_CHECKING:
    from torch import Tensor

    from codeczoo.export.dataset import Reader
    from codeczoo.export.statistics import Statistics

BINS = 60  # columns of a histogram
WIDTH, HEIGHT = 512, 64  # of a drawn one, pixels
BARS = " ▁▂▃▄▅▆▇█"
SHOWN = 32  # codebooks whose histogram is shown
ACROSS = 8  # pictures of a line, frames of a clip


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "inspect", description="Counts of an export, how often each code occurs; with -o, some documents as media."
    )
    parser.add_argument("export", metavar="EXPORT", help="folder that `codeczoo export` made")
    what = "decode some documents into this folder, and draw the histogram"
    parser.add_argument("-o", "--output", metavar="OUT", help=what)
    what = "documents to decode, evenly from the first to the last (default 8)"
    parser.add_argument("--samples", type=common.positive, default=8, metavar="N", help=what)
    common.add_codec(parser, "the one that the files name")
    common.add_window(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the numbers. Returns 1 when a document could not be decoded."""
    from codeczoo.cli.drawings import grid
    from codeczoo.export import dataset
    from codeczoo.export.statistics import Statistics

    reader, out = dataset.read(args.export), None if args.output is None else common.output_folder(args.output)
    found = Statistics.of(reader)
    header = {key: value for key, value in reader.header.items() if key not in ("spec", "codebooks", "used")}
    facts = header | found.to_dict()
    report = common.Report(args.json)
    if not args.json:
        show(facts, found)
    if out is None:
        if args.json:
            common.say(json.dumps(facts | {"histograms": [count.tolist() for count in found.counts]}))
        return 0
    files = decode(args, reader, out / "media", report)
    if files:
        sheet(out / "samples.png", files, reader.spec.media)
    counts = [(f"codebook {i}", count) for i, count in enumerate(found.counts) if count.any()]
    grid(out / "histogram.png", [(name, [drawn(count)]) for name, count in counts[:SHOWN]])
    return report.finish("decoded", facts if args.json else {"into": str(out)})


def show(facts: dict[str, Any], found: "Statistics") -> None:
    """A line per fact, a table of the codebooks, a bar chart of each."""
    width = max(map(len, facts))
    for key, value in facts.items():
        if key != "codebooks":
            common.say(f"{key:<{width}}  {value if isinstance(value, str | int | float) else json.dumps(value)}")
    common.say("")
    rows = []
    for i, (book, count) in enumerate(zip(facts["codebooks"], found.counts, strict=True)):
        if not book["codes"]:  # a prefix without it
            continue
        used, bits = f"{book['used']} ({book['used'] / book['size']:.1%})", f"{book['entropy']:.2f}"
        of = f"{np.log2(book['size']):.2f}"
        rows.append({"codebook": i, "stream": book["stream"], "codes": book["codes"], "of": book["size"], "used": used})
        rows[-1] |= {"bits": bits, "at most": of, "how often codes occur, from 0 on": bars(count) if i < SHOWN else ""}
    common.table((*rows[0],), rows)


def bars(count: "np.ndarray[Any, Any]") -> str:
    """A histogram of BINS columns at most, the highest full; what occurs at all is seen."""
    edges = np.linspace(0, len(count), min(BINS, len(count)) + 1).astype(int)
    sums = np.add.reduceat(count, edges[:-1]) / np.diff(edges)
    levels = np.ceil(sums / max(sums.max(), 1e-9) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[level] for level in levels)


def drawn(count: "np.ndarray[Any, Any]") -> "Tensor":
    """A histogram as a picture (3, HEIGHT, WIDTH): codes to the right, black bars up to the most frequent bin."""
    import torch

    edges = np.linspace(0, len(count), min(WIDTH, len(count)) + 1).astype(int)
    sums = np.add.reduceat(count, edges[:-1]) / np.diff(edges)
    columns = np.repeat(sums, -(-WIDTH // len(sums)))[:WIDTH] / max(sums.max(), 1e-9)
    dark = np.arange(HEIGHT, 0, -1)[:, None] <= np.ceil(columns * HEIGHT)  # (HEIGHT, WIDTH)
    return torch.from_numpy(1.0 - dark).float().expand(3, -1, -1)


def decode(args: argparse.Namespace, reader: "Reader", out: Path, report: common.Report) -> list[Path]:
    """Some documents as media of their own size, below a folder; gives the files."""
    from codeczoo.export.batches import Prefix
    from codeczoo.export.sources import Options
    from codeczoo.export.unpack import unpack
    from codeczoo.io.files import Found

    runner = common.open_codec(args, args.codec or reader.header["codec"])
    reader.check_codec(runner.weights_hash)
    media = common.open_media(runner, Options(window=args.window))
    numbers = sorted({round(i * (len(reader) - 1) / max(1, args.samples - 1)) for i in range(args.samples)})
    made = []

    def place(found: Found) -> Path:
        return found.output(out, f".{media.format_of(found)}")

    for sample in media.decode(unpack(reader, numbers), Prefix(), place):
        if sample.error:
            report.fail(sample.found.path, sample.error)
        else:
            report.done += 1
            made.append(place(sample.found))
    return made


def sheet(path: Path, files: Sequence[Path], media: str) -> None:
    """All files in one picture: pictures, spectrograms, or frames of each clip beside one another."""
    from codeczoo.cli.drawings import grid, spectrogram
    from codeczoo.io import audio, image, video

    if media == "image":
        pictures = [image.read(file).float() / 255 for file in files]
        grid(path, [(str(i), pictures[i : i + ACROSS]) for i in range(0, len(pictures), ACROSS)])
    elif media == "audio":
        grid(path, [(file.stem, [spectrogram(*audio.read(file))]) for file in files])
    else:
        clips = [video.read(file) if file.suffix != ".png" else image.read(file)[:, None] for file in files]
        places = [np.linspace(0, clip.shape[1] - 1, min(ACROSS, clip.shape[1])).astype(int) for clip in clips]
        pairs = zip(files, clips, places, strict=True)
        grid(path, [(file.stem, [clip[:, t].float() / 255 for t in ts]) for file, clip, ts in pairs])
