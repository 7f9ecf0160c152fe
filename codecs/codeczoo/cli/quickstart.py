"""`codeczoo quickstart`: the three jobs in a few minutes on a processor, with nothing to download.

Every step is a command of its own, printed before it runs, so that it can be tried again by hand.
"""

import argparse
import shlex
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common
from codeczoo.cli.first_look import first_look

if TYPE_CHECKING:
    from torch import Tensor

    from codeczoo.core.base import Codec
    from codeczoo.io.tokens import TokenFile

RECIPE = "image/one_d_piece_tiny"
HELD_OUT = 256  # pictures that codebook use is measured on
NUMBERS = (1_000_000_003, 1_000_000_010)  # of the two pictures; training draws numbers below 10^9
SHARES = (16, 4, 1)  # prefix lengths: N / 16, N / 4, N
ENLARGE = 4  # in the picture, so that one sees something


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "quickstart",
        description="Encodes and decodes a picture, a sound and a clip with the codecs that come with the package, in "
        "seconds. Then trains a tiny One-D-Piece on built-in pictures, encodes two pictures to .cz files, decodes them "
        "at three lengths, exports their tokens; at most three minutes on two CPU cores.",
    )
    parser.add_argument("-o", "--output", default="quickstart", metavar="OUT", help="folder (default: quickstart)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe, as in codeczoo train")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Tries the shipped codecs; trains, encodes, decodes, exports; shows what came out."""
    out = common.output_folder(args.output)
    start = monotonic()
    first_look(out, step)
    step("train", RECIPE, *args.overrides, "--out", out / "run")
    codec_file = max((out / "run").glob("*/*/best.safetensors"), key=lambda path: path.stat().st_mtime)

    from codeczoo import zoo

    codec = zoo.load(codec_file)
    assert codec.spec.input_size is not None and codec.spec.streams[0].shape[0] is not None
    size, n = codec.spec.input_size[0], codec.spec.streams[0].shape[0]
    lengths = [max(1, n // share) for share in SHARES]
    draw(out / "pictures", size)
    step("encode", out / "pictures", "-o", out / "tokens", "--codec", codec_file, "--overwrite")
    for length in lengths:
        step("decode", out / "tokens", "-o", out / f"decoded_{length}", "--positions", length, "--overwrite")
    step("export", out / "tokens", "-o", out / "export", "--codec", codec_file, "--format", "npy", "--overwrite")
    show(out, codec, lengths)
    common.say(f"\n{monotonic() - start:.0f} s. Originals above their reconstructions: {out / 'quickstart.png'}")
    return 0


def step(*words: object) -> None:
    """Prints a command line and runs it in this process. Raises CodeczooError, or InputError when an input was bad."""
    from codeczoo.cli.main import run_command
    from codeczoo.core.errors import InputError

    arguments = [str(word) for word in words]
    common.say(f"\n$ codeczoo {shlex.join(arguments)}")
    if run_command(arguments):
        raise InputError(f"codeczoo {arguments[0]} failed; see above")


def draw(folder: Path, size: int) -> None:
    """Writes the two pictures."""
    from codeczoo.data.pictures import generated_picture
    from codeczoo.io import image

    for name, number in zip("ab", NUMBERS, strict=True):
        image.write(folder / f"{name}.png", generated_picture(0, number, size))


def show(out: Path, codec: "Codec", lengths: list[int]) -> None:
    """The table on stdout, and the picture."""
    from codeczoo.cli.drawings import grid
    from codeczoo.io import image, tokens

    stored = [tokens.read(out / "tokens" / f"{name}{tokens.SUFFIX}") for name in "ab"]
    originals = [image.read(out / "pictures" / f"{name}.png").float() / 255 for name in "ab"]
    lines, rows = [("original", originals)], []
    for length in lengths:
        decoded = [image.read(out / f"decoded_{length}" / f"{name}.png").float() / 255 for name in "ab"]
        sizes = [file_bytes(file, length) for file in stored]
        lines.append((f"{length} tokens", decoded))
        rows.append(measures(originals, decoded, length, codec) | {"bytes of .cz": f"{sum(sizes) / len(sizes):.0f}"})
    common.say("")
    common.table(("tokens", "bits", "bytes of .cz", "PSNR, dB", "SSIM", "codebook use"), rows)
    common.say(f"means of two pictures; codebook use over {HELD_OUT} held-out pictures")
    grid(out / "quickstart.png", [(label, [enlarge(x) for x in pictures]) for label, pictures in lines])


def file_bytes(file: "TokenFile", length: int) -> int:
    """Bytes of a .cz file that holds a prefix of these tokens."""
    from codeczoo.io import tokens

    about = file.header
    kept = file.tokens.prefix(positions=length)
    return len(tokens.dumps(kept, codec=about.codec, weights_hash=about.weights_hash, fit=about.fit))


def measures(originals: "list[Tensor]", decoded: "list[Tensor]", length: int, codec: "Codec") -> dict[str, str]:
    """One row of the table."""
    import torch

    from codeczoo.data.pictures import generated_picture
    from codeczoo.metrics.codebook import CodebookUse
    from codeczoo.metrics.image import psnr, ssim

    x, x_hat = torch.stack(originals), torch.stack(decoded)
    use = CodebookUse(codec.spec)
    held_out = torch.stack([generated_picture(0, NUMBERS[-1] + 1 + i, x.shape[-1]) for i in range(HELD_OUT)])
    with torch.inference_mode():
        use.update(codec.encode(held_out, n_positions=length))
    return {
        "tokens": str(length),
        "bits": f"{length * codec.spec.streams[0].bits_per_position:.0f}",
        "PSNR, dB": f"{psnr(x, x_hat).mean():.1f}",
        "SSIM": f"{ssim(x, x_hat).mean():.3f}",
        "codebook use": f"{use.result()[0].share:.0%}",
    }


def enlarge(x: "Tensor") -> "Tensor":
    """x (3, H, W), every pixel repeated."""
    return x.repeat_interleave(ENLARGE, 1).repeat_interleave(ENLARGE, 2)
