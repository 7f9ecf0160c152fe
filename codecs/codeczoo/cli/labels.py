"""Files with what manifests say of them: the inputs of `codeczoo eval` and `report`, and the labels of their probes."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from codeczoo.cli import common
from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    from codeczoo.export.judging import Networks
    from codeczoo.export.probing import Probing
    from codeczoo.export.sources import Media
    from codeczoo.io.files import Found


class Said(NamedTuple):
    """Files, each once, in the order of the arguments, and what manifests say of some of them, by path."""

    files: "list[Found]"
    about: Mapping[Path, Mapping[str, Any]]

    def labels(self, column: str) -> dict[Path, str]:
        """What the manifests have in a column. Raises InputError where they have nothing."""
        found = {path: str(about[column]) for path, about in self.about.items() if about.get(column) not in (None, "")}
        if not found:
            has = sorted({name for about in self.about.values() for name in about})
            what = f"the manifests have {', '.join(has)}" if has else "no manifest (.jsonl, .csv, .tsv) was given"
            raise InputError(f"--probe {column}: no file has it; {what}")
        return found


def add_probe(parser: argparse.ArgumentParser) -> None:
    """--probe, --probe-train."""
    group = parser.add_argument_group("probe", "can labels still be read off what was decoded, and off the codes?")
    what = "column of manifests among the inputs that has the labels, e.g. label, kind, speaker"
    group.add_argument("--probe", metavar="COLUMN", help=what)
    what = "manifest of other files with labels, that the probes learn from"
    group.add_argument("--probe-train", action="append", default=[], metavar="PATH", help=what)


def told(probed: Mapping[str, Any]) -> str:
    """`Probing.result` in a line."""
    return (
        f"probe of {probed['classes']} classes, learnt from {probed['train']}, asked about {probed['test']}: "
        f"{probed['originals']:.1%} of the originals right, {probed['chance']:.1%} by the most frequent class alone"
    )


def listed(paths: Sequence[str], suffixes: Sequence[str], unit: str = "") -> Said:
    """The files that paths mean, those of manifests (.jsonl, .csv, .tsv) with what is said of them.

    Args:
        paths: files, folders, patterns, manifests.
        suffixes: of the files in folders.
        unit: what the codec takes, for messages.

    Raises:
        InputError: there is nothing, or no such file.
    """
    from codeczoo.export.inputs import manifests
    from codeczoo.export.inputs.entry import Absent
    from codeczoo.io.files import find

    found: dict[str, Found] = {}
    about: dict[Path, Mapping[str, Any]] = {}
    for given in paths:
        if Path(given).suffix.lower() not in manifests.SUFFIXES:
            try:
                files = find([given], suffixes)
            except InputError as error:
                raise InputError(f"{error} (this codec takes {unit})" if unit else str(error)) from None
            for one in files:
                found.setdefault(os.path.realpath(one.path), one)
            continue
        for entry in manifests.listed(Path(given), None):
            if isinstance(entry, Absent):
                raise InputError(f"{given}: {entry.why}")
            one = found.setdefault(entry.key, entry.found())
            about[one.path] = entry.about or {}
    return Said(list(found.values()), about)


def probe_of(
    args: argparse.Namespace, media: "Media", inputs: Said, networks: "Networks", report: common.Report
) -> "Probing | None":
    """A probe that has learnt from the files of --probe-train that are of this media; None without --probe.

    None too where fewer than two classes can be learnt, or nothing of them can be asked, of this media. Bad files are
    reported. Raises InputError for options that miss one another, and where nothing says the label.
    """
    if (args.probe is None) != (not args.probe_train):
        raise InputError("--probe names the column of the labels, --probe-train a manifest to learn from: give both")
    if args.probe is None:
        return None
    from codeczoo.export.probing import Probing

    train = listed(args.probe_train, media.SUFFIXES)
    files, asked = ([one for one in side.files if _is(one, media)] for side in (train, inputs))
    both = {os.path.realpath(one.path) for one in files} & {os.path.realpath(one.path) for one in asked}
    if both:
        raise InputError(f"--probe-train: {min(both)} is among the inputs too; what is learnt by heart proves nothing")
    known, wanted = train.labels(args.probe), inputs.labels(args.probe)
    classes = {known[one.path] for one in files if one.path in known}
    if len(classes) < 2 or not classes & {wanted[one.path] for one in asked if one.path in wanted}:
        return None
    probe = Probing(media.runner, wanted | known, networks)
    labelled = [one for one in files if one.path in known]
    for sample in common.progress(probe.learn(media.clips(labelled)), len(labelled), "probe"):
        if sample.error:
            report.fail(sample.found.path, sample.error)
    return probe


def nothing_to_probe(column: str) -> InputError:
    """What is wrong where a probe was wished and there is none."""
    return InputError(f"--probe {column}: fewer than two classes to learn from, or nothing of them among the inputs")


def _is(found: "Found", media: "Media") -> bool:
    return found.path.suffix.lower() in media.SUFFIXES
