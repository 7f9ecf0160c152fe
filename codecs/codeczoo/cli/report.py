"""`codeczoo report`: codecs on files, as one HTML page to look at and listen to, and as JSON."""

import argparse
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common, crops, defaults, labels, language
from codeczoo.cli.eval import AGAINST, add_networks, names, networks, numbers, observers
from codeczoo.core.errors import InputError
from codeczoo.core.places import shipped

if TYPE_CHECKING:
    from codeczoo.core.types import TokenSpec
    from codeczoo.export.batches import Prefix
    from codeczoo.export.study import Study
    from codeczoo.io.files import Found


def add_parser(subparsers: Any) -> None:
    """Declares the arguments."""
    parser = subparsers.add_parser(
        "report",
        description="Every codec at its rates on the files of its media, beside other codecs at equal bytes, as one "
        "page that opens offline: curves, examples, use and predictability of tokens, speed, memory. The numbers are "
        "those of codeczoo eval; they stand beside the page as JSON.",
    )
    common.add_inputs(parser, "pictures, recordings and videos, or manifests of them")
    what = "shipped name, weights file or folder; give it again for more (default: all shipped ones for the files)"
    parser.add_argument("--codec", action="append", metavar="NAME", help=what)
    parser.add_argument("-o", "--out", required=True, metavar="PAGE.html", help="the page; PAGE.json goes beside it")
    everything = ",".join(AGAINST)
    what = f"compared with, where it is for the media (default {everything}; 'none': nothing)"
    parser.add_argument("--against", type=against, default=list(AGAINST), metavar="A,B", help=what)
    what = "prefix lengths, of each codec's first kind of prefix (default: all of up to five, else halved)"
    parser.add_argument("--rates", type=numbers, metavar="N,N", help=what)
    what = "bytes of .cz files that are coded with the context models that come with the package"
    parser.add_argument("--context", choices=(common.SHIPPED,), help=what)
    what = "report.json of recipes/lm/train.py, of a model that was trained on the tokens of one of the codecs"
    parser.add_argument("--lm", action="append", default=[], metavar="[CODEC=]PATH", help=what)
    parser.add_argument("--title", default="codeczoo report", help="of the page")
    common.add_running(parser)
    add_networks(parser)
    labels.add_probe(parser)
    crops.add_crops(parser)
    parser.set_defaults(run=run)


def against(text: str) -> list[str]:
    """Baselines separated by commas, or none, for argparse."""
    return [] if text == "none" else names(text)


def run(args: argparse.Namespace) -> int:
    """Measures, and writes the page. Returns 1 when an input was bad."""
    from codeczoo.cli.page import page
    from codeczoo.export.study import Study, groups
    from codeczoo.io.files import atomic

    out = Path(args.out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"-o {out}: the page is a file that ends in .html")
    said, report = labels.listed(args.paths, defaults.suffixes()), common.Report(args.json)
    found = defaults.divided(said.files)
    runners = [common.open_codec(args, name) for name in args.codec or suited(found)]
    studies = [
        Study(runner, args.against, networks(args, runner.device), rates(args.rates, runner.codec.spec))
        for runner in runners
    ]
    check(studies, found)
    models = language.models(args.lm, {study.name: study.runner.weights_hash for study in studies})
    for study in studies:
        study.models = models.get(study.name, [])
        study.evaluation.observers = observers(args, study.media, said, study.evaluation.judge.networks, report)
    if args.probe and not any("probe" in study.evaluation.observers for study in studies):
        raise labels.nothing_to_probe(args.probe)
    for study in studies:
        measure(study, found[study.spec.media], report)
    if not any(study.names for study in studies):
        raise InputError("nothing measured: all inputs are bad")
    studies = [study for study in studies if study.names]
    grouped = groups(studies)
    facts = {
        "title": args.title,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(runners[0].device),
        "files": sum(map(len, found.values())),
        "failed": report.failed,
        "codecs": [study.result() for group in grouped for study in group],
    }
    for path, text in ((out, page(facts, grouped)), (out.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")):
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    report.done = len(studies)
    return report.finish("codecs", {"page": str(out), "bytes": out.stat().st_size})


def rates(wanted: Sequence[int] | None, spec: "TokenSpec") -> "list[Prefix] | None":
    """What --rates asks of a codec: those that it has; None: as it likes. Raises InputError where it has none."""
    from codeczoo.export.batches import longest, quality_prefix
    from codeczoo.export.evaluate import rates_of

    kind = quality_prefix(spec)
    if not wanted or kind is None:
        return None
    most = longest(spec)[kind] or 0
    if min(wanted) > most:
        raise InputError(f"--rates {','.join(map(str, wanted))}: a codec has no more than {most} {kind}")
    return rates_of(spec, kind, [n for n in wanted if n <= most])


def suited(found: "dict[str, list[Found]]") -> list[str]:
    """The shipped codecs that some of the files are for. Raises InputError where there are none."""
    from codeczoo.io.weights import read_header

    names = [name for name, path in shipped().items() if found[read_header(path)["spec"]["media"]]]
    if not names:
        raise InputError("no codec for these files is shipped here: name one with --codec")
    return names


def check(studies: "Sequence[Study]", found: "dict[str, list[Found]]") -> None:
    """Raises InputError for codecs of one name, or without files."""
    names = [study.name for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two codecs are called {name}: rename one of the files")
    for study in studies:
        if not found[study.spec.media]:
            raise InputError(f"{study.name} takes {study.media.UNIT}, and there are none among the inputs")


def measure(study: "Study", files: "Sequence[Found]", report: common.Report) -> None:
    """Runs a study, with a bar; a bad file is reported once."""
    bad = {failure["path"] for failure in report.failed}
    for sample in common.progress(study.run(files), len(files), study.name):
        if sample.error and str(sample.found.path) not in bad:
            bad.add(str(sample.found.path))
            report.fail(sample.found.path, sample.error)


def machine(device: Any) -> dict[str, Any]:
    """What it was measured on."""
    import torch

    import codeczoo

    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    versions = {"codeczoo": codeczoo.__version__, "torch": torch.__version__}
    return versions | {"on": chip, "threads": torch.get_num_threads()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
