"""`codeczoo export --from`: an export in another format, with other ids, shorter, or with text; nothing is encoded."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common, ids
from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    from codeczoo.export.dataset import Reader
    from codeczoo.export.derive import Change, Vary

NOT_HERE = ("codec", "fit", "window", "column", "resume", "sidecars", "target")  # are about encoding


def run(args: argparse.Namespace) -> int:
    """Writes the export."""
    from codeczoo.export import dataset

    given = [name for name in NOT_HERE if getattr(args, name)]
    if args.paths or given:
        what = f"--{given[0]}" if given else f"PATH {args.paths[0]}"
        raise InputError(f"{what} is about encoding; with --from nothing is encoded")
    report, reader = common.Report(args.json), dataset.read(args.from_)
    place = ids.place_of(args, reader.spec, reader.header["codec"], reader.header["weights_hash"], factors_of(reader))
    pattern = pattern_of(args, reader, place)
    vary = vary_of(args, reader)
    header = write(args, reader, ids.change_of(args, place, pattern, vary), place)
    report.done = header["documents"]
    return report.finish("exported", {key: header[key] for key in ("tokens", "vocab_size", "dtype")})


def write(args: argparse.Namespace, reader: "Reader", change: "Change", place: ids.Place) -> dict[str, Any]:
    """Derives `args.output` from an export; returns its header."""
    from codeczoo.export import dataset
    from codeczoo.export.derive import derive
    from codeczoo.export.vocabulary import TOKENIZER

    header, Writer = change.header(reader), dataset.format_module(args.format).Writer
    if place.about is not None:
        header["vocabulary"] = place.about
    dtype = Writer.dtype_for(max(header["vocab_size"], place.size), args.dtype)
    with dataset.atomic_folder(Path(args.output), args.overwrite) as folder:
        documents = common.progress(change.of(reader), len(reader), "write")
        header = derive(documents, header, folder, args.format, dtype)
        place.save(folder)
        old = reader.folder / TOKENIZER
        if not place.extended and header.get("text") and old.is_dir():
            shutil.copytree(old, folder / TOKENIZER)
    return header


def pattern_of(args: argparse.Namespace, reader: "Reader", place: ids.Place) -> Any:
    """Another pattern than that of the export, where one is asked for: what nobody chose stays as it is."""
    from codeczoo.core.config import build
    from codeczoo.export.batches import Prefix

    codebooks = args.codebooks or codebooks_of(reader)
    if args.pattern is not None:
        stays = {} if "vocab_offset" in place.given else {"vocab_offset": reader.pattern.vocabulary.offset}
        chosen = replace(place, given=stays | place.given)
        return ids.pattern_of(args, reader.spec, chosen, Prefix(codebooks=codebooks))
    if args.delays is not None:
        raise InputError("--delays belongs to a --pattern")
    now = factors_of(reader)
    if [*place.factors] != now:
        have, wanted = ids.listed(now), ids.listed(place.factors)
        raise InputError(f"the export has factors {have}; for {wanted} say the --pattern too")
    if not place.given:
        return None
    stays, given = reader.header["pattern"], place.given
    if given.get("offsets") == "shared" and codebooks:
        given = given | {"codebooks": place.codebooks(codebooks)}
    tree = stays | {"pattern": stays["pattern"] | given} if now else stays | given
    return build(tree | {"spec": reader.spec})


def factors_of(reader: "Reader") -> list[int]:
    """Of the codes of an export; none: a code is one id."""
    from codeczoo.export.patterns import Factored

    return reader.pattern.factors if isinstance(reader.pattern, Factored) else []


def codebooks_of(reader: "Reader") -> int | None:
    """How many codebooks the documents of an export have at most, as far as its header says; None: all of the codec."""
    kept: int | None = reader.header.get("prefix", {}).get("codebooks")
    return kept


def vary_of(args: argparse.Namespace, reader: "Reader") -> "Vary | None":
    """The prefix that is kept of every document. Raises InputError."""
    from codeczoo.export.derive import Vary

    prefix = common.prefix_of(args, reader.spec).check(reader.spec)
    fixed = {kind: n for kind, n in vars(prefix).items() if n is not None}
    if len(fixed) + (args.vary is not None) > 1:
        raise InputError("with --from, one of --positions, --codebooks, --streams, --kbps and --vary at a time")
    for kind, n in fixed.items():
        return Vary(kind, n, n)  # type: ignore[arg-type]
    return ids.vary_of(args, reader.spec)
