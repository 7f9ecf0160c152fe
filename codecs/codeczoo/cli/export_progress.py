"""How far an export is: a bar on a terminal, else a line now and then."""

import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from codeczoo.cli.common import PATIENCE, Report

if TYPE_CHECKING:
    from codeczoo.export.plan import Plan
    from codeczoo.export.shard import Facts

EVERY, REFRESH = 60.0, 0.5  # seconds between lines, and between changes of the bar


class Counts:
    """What is done of a plan, and how fast.

    Args:
        plan: what is to be done.
    """

    def __init__(self, plan: "Plan") -> None:
        self.plan, self._start = plan, monotonic()
        self._shards: set[int] = set()  # that were begun here
        self._past: Facts | None = None  # of all of them but the last
        self._now: Facts | None = None
        self._before = self._others = self._made_elsewhere()

    def add(self, facts: "Facts") -> None:
        """What became of a shard so far."""
        from codeczoo.export.shard import merged

        if self._now is not None and self._now.shard != facts.shard:
            self._past = self._now if self._past is None else merged(self._past, self._now)
        if facts.shard not in self._shards:
            self._shards.add(facts.shard)
            self._others = self._made_elsewhere()
        self._now = facts

    def done(self) -> int:
        """Inputs."""
        return self._others + sum(f.documents + len(f.failed) for f in (self._past, self._now) if f is not None)

    def text(self) -> str:
        """A line: rates, time to go, share of the codebooks' entries that were used, failures."""
        from codeczoo.export.shard import merged

        if self._now is None:
            return ""
        here = self._now if self._past is None else merged(self._past, self._now)
        seconds = max(1e-9, monotonic() - self._start)
        rate = (self.done() - self._before) / seconds
        left = timedelta(seconds=round((self.plan.inputs - self.done()) / rate)) if rate else "?"
        used = sum(book.sum() for book in here.used) / sum(map(len, here.used))
        failed = f", {len(here.failed)} failed" if here.failed else ""
        speed = f"{rate:.3g} inputs/s, {here.tokens / seconds:.3g} ids/s"
        return f"{speed}, {left} to go, {used:.0%} of the codes used{failed}"

    def _made_elsewhere(self) -> int:
        """Inputs of parts that are there, and that were made before, or by other processes."""
        names = {path.name for path in self.plan.folder.iterdir()}
        numbered = enumerate(self.plan.shards)
        return sum(s.inputs for n, s in numbered if n not in self._shards and self.plan.part(n).name in names)


def watched(parts: "Iterable[Facts]", plan: "Plan", report: Report) -> None:
    """Waits until all parts are there; tells failures and missed targets as they come, and how far it is."""
    counts, shown = Counts(plan), Bar(plan.inputs) if sys.stderr.isatty() else Lines(plan.inputs)
    told: set[int] = set()
    shard, inputs = -1, []
    try:
        for facts in parts:
            counts.add(facts)
            lines = facts.failed | facts.missed
            new = sorted(lines.keys() - told)
            if new and facts.shard != shard:
                shard, inputs = facts.shard, plan.inputs_of(facts.shard)
            for number in new:
                tell = report.fail if number in facts.failed else report.miss
                tell(Path(inputs[number - plan.shards[shard].first].where), lines[number])
            told.update(new)
            shown.show(counts)
    finally:
        shown.close()


class Lines:
    """A line on stderr, EVERY so many seconds.

    Args:
        inputs: of the plan.
    """

    def __init__(self, inputs: int) -> None:
        self.inputs, self._next = inputs, monotonic() + EVERY

    def show(self, counts: Counts) -> None:
        """Writes one, if it is time."""
        if monotonic() > self._next:
            self._next = monotonic() + EVERY
            sys.stderr.write(f"codeczoo: {counts.done()} of {self.inputs} inputs, {counts.text()}\n")

    def close(self) -> None:
        """Nothing is left to do."""


class Bar:
    """A bar on stderr, once things take more than PATIENCE seconds.

    Args:
        inputs: of the plan.
    """

    def __init__(self, inputs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("export"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task, self._next = self._bar.add_task("export", total=inputs, text=""), monotonic() + PATIENCE

    def show(self, counts: Counts) -> None:
        """Draws it, if it is time."""
        if monotonic() > self._next:
            self._next = monotonic() + REFRESH
            self._bar.update(self._task, completed=counts.done(), text=counts.text())
            self._bar.start()

    def close(self) -> None:
        """Takes it away."""
        self._bar.stop()
