"""`codeczoo import`: the authors' own checkpoint to a codeczoo weights file."""

import argparse
from pathlib import Path
from typing import Any

from codeczoo.cli import common


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "import", description="Reads the authors' checkpoint, never unpickling objects; writes one .safetensors file."
    )
    parser.add_argument("system", metavar="SYSTEM", help="e.g. titok, one_d_piece, tatitok, maskgit_vqgan")
    about = "the authors' weights file, or a folder with encoder.jit and decoder.jit"
    parser.add_argument("--weights", required=True, metavar="W", help=about)
    about = "the authors' configuration: JSON, YAML, or a .safetensors file whose header holds it"
    parser.add_argument("--config", required=True, metavar="C", help=about)
    parser.add_argument("--text-tower", metavar="DIR", help="folder of a CLIP text tower, for tatitok")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the .safetensors file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Imports."""
    from codeczoo import zoo

    output = Path(args.output)
    codec = zoo.original(args.system, args.weights, args.config, args.text_tower)
    zoo.save(output, codec, extra={"imported": args.system})
    common.say(f"{output}: {type(codec).__name__}, weights {zoo.weights_hash(codec)}")
    return 0
