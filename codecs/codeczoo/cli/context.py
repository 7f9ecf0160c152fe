"""`codeczoo context`: learns a context model of a codec's tokens, for smaller .cz files."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common, ids
from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    from codeczoo.core.types import Tokens
    from codeczoo.export.context_fit import Fitted
    from codeczoo.export.dataset import Reader

HELD_OUT = 20  # of so many documents one is validated with, where there are no others
SUFFIX = ".safetensors"
COLUMNS = ("codebook", "looked at", "uniform", "unigram", "context")


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "context",
        description="Learns how likely each code is given those around it, from exports of one codec at full length. "
        "`codeczoo encode --context FILE` writes smaller .cz files with it, which can only be read with it.",
    )
    parser.add_argument("exports", nargs="+", metavar="EXPORT", help="folders that `codeczoo export` made")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=f"the model, {SUFFIX}")
    what = f"export of other media, to choose the weights with (default: every {HELD_OUT}th document)"
    parser.add_argument("--val", metavar="EXPORT", help=what)
    what = "values of the digits of large codes, e.g. the levels of an FSQ (default: digits of like size)"
    parser.add_argument("--factors", type=ids.steps, metavar="N,N", help=what)
    what = "of training, at most (default 5)"
    parser.add_argument("--minutes", type=common.positive_number, default=5.0, metavar="M", help=what)
    parser.add_argument("--steps", type=common.positive, metavar="N", help="of training, at most (default: no limit)")
    parser.add_argument("--width", type=common.positive, default=48, metavar="N", help="of hidden layers (default 48)")
    parser.add_argument("--dim", type=common.positive, default=16, metavar="N", help="of embeddings (default 16)")
    parser.add_argument("--json", action="store_true", help="the numbers as JSON on stdout")
    parser.set_defaults(run=run)


class Documents(Sequence["Tokens"]):
    """Some documents of exports, read when they are looked at.

    Args:
        places: export and number of each document.
    """

    def __init__(self, places: "Sequence[tuple[Reader, int]]") -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: Any) -> Any:
        reader, number = self.places[i]
        return reader.tokens(number)


def run(args: argparse.Namespace) -> int:
    """Trains, and shows bits of a code. Raises InputError."""
    from codeczoo.export import context_fit, dataset
    from codeczoo.io import context

    out = Path(args.output)
    if out.suffix != SUFFIX:
        raise InputError(f"{out}: a context model is saved as {SUFFIX}")
    readers = [dataset.read(path) for path in args.exports]
    first = readers[0]
    others = [] if args.val is None else [dataset.read(args.val)]
    for reader in (*readers, *others):
        reader.check_codec(first.header["weights_hash"])
    train = [(reader, i) for reader in readers for i in range(len(reader))]
    val = [(reader, i) for reader in others for i in range(len(reader))]
    if not val:
        train, val = [one for i, one in enumerate(train) if (i + 1) % HELD_OUT], train[HELD_OUT - 1 :: HELD_OUT]
    if not train or not val:
        raise InputError(f"{len(readers[0])} documents are too few to learn from and to validate with")
    fitted = context_fit.fit(
        Documents(train), Documents(val), codec=first.header["codec"], weights_hash=first.header["weights_hash"],
        spec=first.spec, factors=args.factors, minutes=args.minutes, steps=args.steps, width=args.width,
        dim=args.dim, shown=lambda hundredths: common.progress(hundredths, len(hundredths), "context"),
    )
    context.save(out, fitted.header, fitted.state)
    show(args, fitted, out)
    return 0


def show(args: argparse.Namespace, fitted: "Fitted", out: Path) -> None:
    """Bits of a code of each codebook."""
    from codeczoo.io import context

    facts = {"steps": fitted.steps, "model": context.load(out).digest, "bytes": out.stat().st_size, "into": str(out)}
    table = zip(fitted.codes, fitted.uniform, fitted.unigram, fitted.context, strict=True)
    rows = [dict(zip(COLUMNS, (i, *row), strict=True)) for i, row in enumerate(table)]
    if args.json:
        common.say(json.dumps({"codebooks": rows} | facts))
        return
    common.table(COLUMNS, [{k: f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows])
    common.say(", ".join(f"{key} {value}" for key, value in facts.items()))
