"""`codeczoo vocabulary`: one vocabulary for text and several codecs, for the exports of all of them."""

import argparse
import json
from pathlib import Path
from typing import Any

from codeczoo.cli import common
from codeczoo.core.errors import InputError

EPILOG = """example:
  codeczoo vocabulary image=runs/titok audio=runs/encodec:shared --tokenizer llama/ -o words/
  codeczoo export photos -o ids --codec runs/titok --format litdata --vocabulary words/vocabulary.json"""


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "vocabulary",
        description="Lays the ids of several codecs behind one another, and behind those of a text tokenizer.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = "a name and its codec; then :8,8,8,5,5,5, factors of its codes, and :shared, the same ids for all codebooks"
    parser.add_argument("parts", nargs="+", metavar="NAME=CODEC", help=f"{what} (docs/export.md)")
    what = "folder for vocabulary.json and, with --tokenizer, tokenizer/"
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=what)
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--tokenizer", metavar="DIR", help="of transformers: its ids come first, the new ones get names")
    text.add_argument("--vocab-offset", type=int, default=0, metavar="N", help="first id (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a vocabulary that is there")
    parser.add_argument("--json", action="store_true", help="what was made, as JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the vocabulary and prints where each part lies."""
    from codeczoo import zoo
    from codeczoo.export import OFFSETS, text
    from codeczoo.export.vocabulary import FILE, TOKENIZER, Block, stacked

    out = common.output_folder(args.output)
    if (out / FILE).exists() and not args.overwrite:
        raise InputError(f"{out / FILE} exists; exports were perhaps made with it: --overwrite, or another folder")
    tokenizer = None if args.tokenizer is None else text.load(Path(args.tokenizer))
    blocks = []
    for part in args.parts:
        name, is_one, codec = part.partition("=")
        if not (is_one and name and codec):
            raise InputError(f"'{part}': NAME=CODEC is wanted, e.g. image=runs/titok")
        codec, factors, shared = suffixed(codec)
        loaded = zoo.load(codec)
        blocks.append(Block(name, codec, zoo.weights_hash(loaded), loaded.spec, 0, OFFSETS[shared], factors))
    words = stacked(args.vocab_offset if tokenizer is None else text.size_of(tokenizer), blocks)
    if tokenizer is not None:
        text.extend(tokenizer, words.blocks).save_pretrained(str(out / TOKENIZER))
    words.write(out / FILE)
    if args.json:
        common.say(json.dumps(json.loads((out / FILE).read_text())))
        return 0
    rows = [{"ids of": "text", "from": 0, "to": words.text - 1}] if words.text else []
    for block in words.blocks:
        ids = block.vocabulary
        rows.append({"ids of": block.name, "from": ids.offset, "to": ids.size - 1, **ids.special})
    common.table(("ids of", "from", "to", "start", "end", "pad", "separator"), rows)
    return 0


def suffixed(codec: str) -> tuple[str, tuple[int, ...], bool]:
    """A codec's name, the factors and whether "shared" stands behind it: NAME, NAME:8,8,8, NAME:shared, both."""
    factors: tuple[int, ...] = ()
    shared = False
    while ":" in codec and not Path(codec).exists():
        name, _, suffix = codec.rpartition(":")
        numbers = suffix.split(",")
        if suffix == "shared":
            shared = True
        elif all(map(str.isdecimal, numbers)):
            factors = tuple(map(int, numbers))
        else:
            raise InputError(f"'{codec}': no such file, and ':{suffix}' is neither :shared nor factors like :8,8,8")
        codec = name
    return codec, factors, shared
