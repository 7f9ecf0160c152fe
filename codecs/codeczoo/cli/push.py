"""`codeczoo push`: a codec and its model card to the Hugging Face Hub."""

import argparse
from typing import Any

from codeczoo.cli import common

HALF = ("float16", "bfloat16")


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "push",
        description="Uploads the weights and a model card; others then say --codec OWNER/NAME. `hf auth login` or "
        "HF_TOKEN says who you are.",
    )
    parser.add_argument("codec", metavar="CODEC", help="shipped name, weights file or run folder")
    parser.add_argument("repository", metavar="OWNER/NAME", help="is made where it does not exist")
    parser.add_argument("--private", action="store_true", help="make it visible to its owner alone")
    parser.add_argument("--store", choices=HALF, help="store matrices in half the size (a few codes may change)")
    parser.add_argument("--licence", metavar="ID", help="of the weights, e.g. cc-by-4.0; stands in the card")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Uploads."""
    import torch

    from codeczoo import zoo
    from codeczoo.io import weights

    header = weights.read_header(zoo.find(args.codec))
    extra = header["extra"] | ({"licence": args.licence} if args.licence else {})
    dtype = None if args.store is None else getattr(torch, args.store)
    codec = zoo.load_autoencoder(args.codec)
    common.say(zoo.push_to_hub(codec, args.repository, header["recipe"], extra, dtype, args.private))
    return 0
