"""The options of `codeczoo export` about ids: their order, where they begin, text among them, how many to keep."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.core.errors import InputError
from codeczoo.export import OFFSETS, PATTERNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codeczoo.core.types import TokenSpec
    from codeczoo.export.batches import Prefix
    from codeczoo.export.derive import Change, Vary
    from codeczoo.export.patterns import Pattern

PLACES = ("before", "after")  # of text


def steps(text: str) -> list[int]:
    """Whole numbers separated by commas, for argparse."""
    if not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"must be whole numbers of at least 0 separated by commas, got '{text}'")
    return [int(part) for part in text.split(",")]


def steps_or_none(text: str) -> list[int]:
    """As `steps`; "none" for no factors."""
    return [] if text == "none" else steps(text)


def listed(numbers: "Sequence[int]") -> str:
    """Numbers as they are given."""
    return ",".join(map(str, numbers)) or "none"


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    group = parser.add_argument_group("ids", "see docs/export.md")
    group.add_argument("--pattern", choices=PATTERNS, help="order of the ids (default flat; with --from as there)")
    what = "of each codebook or digit, for delay (default 0,1,2,..) and coarse-first (all but the first, default 0)"
    group.add_argument("--delays", type=steps, metavar="N,N", help=f"steps {what}")
    what = "whether codebooks share ids (default: own in patterns of one row, shared in those of several)"
    group.add_argument("--offsets", choices=OFFSETS, help=what)
    what = "of every code, e.g. the levels 8,8,8,5,5,5 of an FSQ: an id for each instead of one of 64000 (default none)"
    group.add_argument("--factors", type=steps_or_none, metavar="N,N", help=what)
    group.add_argument("--vocab-offset", type=int, metavar="N", help="id of the first code (default 0)")
    group.add_argument("--vocabulary", metavar="FILE", help="made by `codeczoo vocabulary`: says where the ids begin")
    what = "of the vocabulary (default: what the codec takes: image, audio or video)"
    group.add_argument("--modality", metavar="NAME", help=f"name of the codec's part {what}")
    what = "a tokenizer of transformers: ids begin behind its own; it is saved with theirs in OUT/tokenizer"
    group.add_argument("--tokenizer", metavar="DIR", help=what)
    what = "ids of this field of what is said of each file go with those of its media (--tokenizer or --vocabulary)"
    group.add_argument("--text", metavar="FIELD", help=what)
    group.add_argument("--text-place", choices=PLACES, default="before", help="before the media (default) or after")
    what = "e.g. positions=16..256: a number for each document, drawn by its SHA-256; positions=NAME: its field NAME"
    group.add_argument("--vary", metavar="WHAT=A..B", help=what)


@dataclass(frozen=True)
class Place:
    """Where the ids of a codec begin, and what there is besides.

    Args:
        given: arguments of the pattern: vocab_offset, offsets; without those that nobody chose.
        factors: of every code; none: a code is one id.
        size: of the whole vocabulary, where it is more than this codec's.
        about: for the header.
        tokenizer: for text; None where there is none.
        extended: whether the tokenizer has names for the codec's ids that are to be saved.
    """

    given: dict[str, Any]
    factors: tuple[int, ...] = ()
    size: int = 0
    about: dict[str, Any] | None = None
    tokenizer: Any = None
    extended: bool = False

    def codebooks(self, codebooks: int | None) -> int | None:
        """So many codebooks as the pattern counts them, digit by digit; None: all."""
        return codebooks and codebooks * max(1, len(self.factors))

    def save(self, folder: Path) -> None:
        """The tokenizer, into an export."""
        if self.extended:
            from codeczoo.export.vocabulary import TOKENIZER

            self.tokenizer.save_pretrained(str(folder / TOKENIZER))


def place_of(
    args: argparse.Namespace, spec: "TokenSpec", codec: str, weights_hash: str, now: "Sequence[int]" = ()
) -> Place:
    """What the arguments say. Raises InputError for those that do not go together, or for another codec's part.

    Args:
        args: of the options.
        spec: of the tokens.
        codec: its name.
        weights_hash: of its weights.
        now: factors of an export that is there, which stay where nothing else is said.
    """
    ways = [name for name in ("vocabulary", "tokenizer", "vocab_offset") if getattr(args, name) is not None]
    if len(ways) > 1:
        raise InputError(f"{' and '.join('--' + way.replace('_', '-') for way in ways)} both say where the ids begin")
    if args.modality is not None and args.vocabulary is None:
        raise InputError("--modality is a part of a --vocabulary, and none is given")
    if args.text is not None and args.vocabulary is None and args.tokenizer is None:
        raise InputError("--text needs the ids of a --tokenizer, or of a --vocabulary that was made with one")
    if args.vocabulary is not None:
        return _in_vocabulary(args, spec, weights_hash)
    chosen = {} if args.offsets is None else {"offsets": args.offsets}
    factors = tuple(now if args.factors is None else args.factors)
    if args.tokenizer is None:
        return Place(chosen if args.vocab_offset is None else chosen | {"vocab_offset": args.vocab_offset}, factors)
    from codeczoo.export import text
    from codeczoo.export.vocabulary import Block, stacked

    tokenizer = text.load(Path(args.tokenizer))
    block = Block(spec.media, codec, weights_hash, spec, 0, args.offsets or "own", factors)
    words = stacked(text.size_of(tokenizer), [block])
    about = {"modality": spec.media, "text": words.text, "size": words.size}
    extended = text.extend(tokenizer, words.blocks)
    return Place(chosen | {"vocab_offset": words.text}, factors, words.size, about, extended, True)


def _in_vocabulary(args: argparse.Namespace, spec: "TokenSpec", weights_hash: str) -> Place:
    from codeczoo.export import text
    from codeczoo.export.vocabulary import TOKENIZER, Vocabularies

    path, name = Path(args.vocabulary), args.modality or spec.media
    words = Vocabularies.read(path)
    block = words.block(name)
    if block.weights_hash != weights_hash:
        raise InputError(f"'{name}' of {path} is {block.codec} (weights {block.weights_hash}), not {weights_hash}")
    if args.offsets not in (None, block.offsets):
        raise InputError(f"--offsets {args.offsets}: '{name}' of {path} has {block.offsets} ones")
    if args.factors is not None and tuple(args.factors) != block.factors:
        raise InputError(f"--factors {listed(args.factors)}: '{name}' of {path} has {listed(block.factors)}")
    about = {"modality": name, "text": words.text, "size": words.size}
    tokenizer = text.load(path.with_name(TOKENIZER)) if args.text is not None else None
    given = {"vocab_offset": block.offset, "offsets": block.offsets}
    return Place(given, block.factors, words.size, about, tokenizer)


def pattern_of(args: argparse.Namespace, spec: "TokenSpec", place: Place, prefix: "Prefix") -> "Pattern":
    """The pattern that the arguments ask for. Raises InputError for an option that it has not."""
    from codeczoo.core.config import build
    from codeczoo.export import patterns

    name = "".join(word.capitalize() for word in (args.pattern or "flat").split("-"))
    takes = getattr(patterns, name).OPTIONS
    if args.delays is not None and "delays" not in takes:
        raise InputError(f"--delays: pattern {args.pattern or 'flat'} has none")
    options = {"delays": args.delays, "codebooks": place.codebooks(prefix.codebooks)}
    tree = {"_target_": f"codeczoo.export.patterns.{name}"} | place.given
    tree |= {key: options[key] for key in takes if key in options}
    if place.factors:
        digits, target = tree | {"_partial_": True}, "codeczoo.export.patterns.Factored"
        tree = {"_target_": target, "factors": place.factors, "pattern": digits}
    pattern: Pattern = build(tree | {"spec": spec})
    return pattern


def change_of(args: argparse.Namespace, place: Place, pattern: "Pattern | None", vary: "Vary | None") -> "Change":
    """What is done to the documents of a store. Raises InputError."""
    from codeczoo.export.derive import Change
    from codeczoo.export.text import Text

    text = None if args.text is None else Text(place.tokenizer, args.text, args.text_place)
    return Change(pattern, vary, text)


def vary_of(args: argparse.Namespace, spec: "TokenSpec") -> "Vary | None":
    """What --vary asks for. Raises InputError."""
    from codeczoo.export.batches import Prefix
    from codeczoo.export.derive import Vary

    if args.vary is None:
        return None
    kind, _, value = args.vary.partition("=")
    low, dots, high = value.partition("..")
    if kind not in ("positions", "codebooks", "streams") or not value:
        raise InputError(f"--vary {args.vary}: e.g. positions=16..256, codebooks=1..8 or positions=FIELD is wanted")
    if not dots:
        Prefix(**{kind: 1}).check(spec)
        return Vary(kind, field=value)
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high)):
        raise InputError(f"--vary {args.vary}: A..B are whole numbers, 1 <= A <= B")
    Prefix(**{kind: int(high)}).check(spec)
    return Vary(kind, int(low), int(high))
