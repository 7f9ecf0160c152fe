"""--target and --max-bytes: as many tokens of each file as it needs, and what is told of it."""

import argparse
import json
from dataclasses import fields
from math import isfinite
from typing import TYPE_CHECKING, Any

from codeczoo.cli import common
from codeczoo.core.errors import InputError

if TYPE_CHECKING:
    from codeczoo.export.batches import Prefix
    from codeczoo.export.sources import Media, Sample
    from codeczoo.export.targets import Cutter


def add_target(parser: argparse.ArgumentParser, max_bytes: bool) -> None:
    """--target, --max-bytes where there are files whose bytes count, and how codecs sample that do."""
    about = "as few tokens of each file as do, of the prefix above; exit code 1 where a file misses it with all of them"
    group = parser.add_argument_group("target", about).add_mutually_exclusive_group()
    what = "the fewest that reach it: psnr:28, ssim:0.9, si_sdr:5, mel:0.8 .., measured as the codec sees the media"
    group.add_argument("--target", type=quality, metavar="METRIC:VALUE", help=what)
    if max_bytes:
        what = "the most whose .cz file, header and sound included, has at most N bytes"
        group.add_argument("--max-bytes", type=common.positive, metavar="N", help=what)
    common.add_sampling(parser)


def quality(text: str) -> tuple[str, float]:
    """METRIC:VALUE, for argparse. Which metrics there are depends on the codec."""
    name, _, number = text.partition(":")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not name or not isfinite(value):
        raise argparse.ArgumentTypeError(f"must be METRIC:VALUE, e.g. psnr:28, got '{text}'")
    return name.replace("-", "_"), value


def cutter_of(args: argparse.Namespace, media: "Media", prefix: "Prefix") -> "Cutter | None":
    """What chooses the number of tokens; None: nothing does. Raises InputError for what the codec cannot do."""
    from codeczoo.core.types import Sampling
    from codeczoo.export.targets import ToBytes, ToQuality

    codec, most = media.runner.codec, getattr(args, "max_bytes", None)
    if args.target is not None:
        common.set_sampling(args, codec)
        if prefix.positions is not None and codec.spec.media == "video":
            raise InputError("--positions with --target: fewer positions of video are fewer frames, not less quality")
        return ToQuality(media, *args.target)
    if any(getattr(args, field.name) is not None for field in fields(Sampling)):
        raise InputError("options of sampling are for --target, which decodes; it is not given")
    return None if most is None else ToBytes(media, most)


class Chosen:
    """What became of each file: JSON lines as they come, or a table at the end.

    Args:
        cutter: what chooses.
        report: of the command; a missed target is told at once, and counts.
    """

    def __init__(self, cutter: "Cutter", report: common.Report) -> None:
        self.cutter, self.report = cutter, report
        self.rows: list[dict[str, Any]] = []

    def add(self, sample: "Sample", written: int) -> None:
        """A file that was cut, and the bytes of its token file."""
        assert sample.tokens is not None and sample.target is not None
        kind, target, n = self.cutter.kind, sample.target, self.cutter.length(sample.tokens)
        row: dict[str, Any] = {"path": str(sample.found.path), kind: n, "bytes": written}
        if isinstance(target.wanted, str):
            row |= {target.wanted.partition(":")[0]: target.to_dict().get("value"), "met": target.met}
        if why := self.cutter.missed(sample):
            self.report.miss(sample.found.path, why)
        if self.report.as_json:
            common.say(json.dumps(row))
        else:
            self.rows.append(row | ({"met": "yes" if row["met"] else "no"} if "met" in row else {}))

    def finish(self) -> None:
        """The table, where one was wished."""
        if self.rows:
            common.table(list(self.rows[0]), self.rows)
