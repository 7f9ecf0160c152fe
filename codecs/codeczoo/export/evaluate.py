"""How good a codec is at every rate: media through it, measures averaged, baselines beside it at equal bytes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import torch
from torch import Tensor

from codeczoo import zoo
from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.batches import Prefix, Runner, longest, quality_prefix, windows
from codeczoo.export.judges import JUDGES
from codeczoo.export.judging import Facts, Judge, Measures, Networks, Observer
from codeczoo.export.sources import Sample, contents
from codeczoo.io import tokens as token_file
from codeczoo.metrics.codebook import CodebookUse

SHOWN = 6  # kept for the pictures


class Row:
    """A system at one rate: sums over pairs of originals and what was decoded.

    Args:
        system: name of the codec or baseline.
        rate: which prefix, e.g. "32 positions".
        judge: of this media.
        keep: what is kept of x_hat (C, *spatial) to be shown; None: the judge's preview.

    Attributes:
        shown: what is kept of the first pairs' x_hat, and what was measured of these pairs.
    """

    def __init__(
        self, system: str, rate: str, judge: Judge, keep: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.system, self.rate, self.keep = system, rate, keep or judge.preview
        self.measures: Measures = judge.measures()
        self.shown: list[tuple[Tensor, Facts]] = []
        self._sums: dict[str, tuple[float, int, int]] = {}  # weighted sum, weights of pairs with a value, all pairs
        self._count = 0

    @torch.inference_mode()
    def add(self, x: Tensor, x_hat: Tensor, facts: Facts) -> None:
        """Measures one pair, (C, *spatial) each; `facts` are averaged too, rates over seconds and pixels.

        Raises InputError for values that are no numbers.
        """
        if not x_hat.isfinite().all():
            raise InputError(f"{self.system}, {self.rate}: what it decodes holds values that are no numbers")
        facts = facts | self.measures.of(x, x_hat)
        for name, value in facts.items():
            weight = 0 if isnan(value) else x[0].numel() if name.split()[0].endswith(("kbps", "bpp")) else 1
            total, weights, pairs = self._sums.get(name, (0.0, 0, 0))
            self._sums[name] = total + (weight and weight * value), weights + weight, pairs + 1
        self._count += 1
        if len(self.shown) < SHOWN:
            self.shown.append((self.keep(x_hat), facts))

    def result(self) -> dict[str, Any]:
        """Means over the pairs that have a value. A measure that some pair was too small for is left out."""
        sums = {name: s for name, s in self._sums.items() if s[1] and s[2] == self._count}
        means = {name: total / weights for name, (total, weights, _) in sums.items()}
        return {"system": self.system, "rate": self.rate, "count": self._count, **means, **self.measures.of_all()}


class Evaluation:
    """One codec at several rates, and the baselines at the bytes of each rate.

    Args:
        runner: the codec.
        rates: prefixes, see `rates_of`.
        against: names of baselines.
        networks: measures that need weights.
        keep: see Row.

    Raises:
        InputError: a baseline that is not for this media.

    Attributes:
        originals: what is kept of the first samples.
        sizes: of these, (H, W), (T,) or (T, H, W).
        observers: that see every sample too, by name, e.g. "probe"; to be set before `add`.
        observed: what each of them says of all rates, from `result` on.
    """

    def __init__(
        self,
        runner: Runner,
        rates: Sequence[Prefix],
        against: Sequence[str],
        networks: Networks,
        keep: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.observers: dict[str, Observer] = {}
        self.observed: dict[str, dict[str, Any]] = {}
        self.runner, self.rates, self.against = runner, rates, against
        self.keep, spec = keep, runner.codec.spec
        self.judge: Judge = JUDGES[spec.media](spec, networks, runner.device)
        for name in against:
            self.judge.check_baseline(name)
        self.originals: list[Tensor] = []
        self.sizes: list[tuple[int, ...]] = []
        self.uses = [CodebookUse(spec) for _ in rates]
        self.rows = [
            [Row(name, label(rate), self.judge, keep) for name in (zoo.title(runner.name), *against)] for rate in rates
        ]

    def add(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Measures every good sample, of one piece each, and hands all of them on."""
        for window in windows(samples, lambda window: len(window) >= self.runner.batch):
            good = [s for s in window if s.x is not None and s.tokens is not None]
            for observer in self.observers.values():
                for sample in good:
                    observer.see(sample)
            for i, (rate, use) in enumerate(zip(self.rates, self.uses, strict=True)):
                kept = [rate.of(s.tokens) for s in good if s.tokens is not None]
                for sample, tokens, x_hat in zip(good, kept, self.runner.decode(kept), strict=True):
                    use.update(tokens)
                    self._measure(i, sample, tokens, x_hat)
            for sample in good[: SHOWN - len(self.originals)]:
                assert sample.x is not None
                self.originals.append((self.keep or self.judge.preview)(sample.x[0]))
                self.sizes.append(tuple(sample.x.shape[2:]))
            yield from window

    def _measure(self, i: int, sample: Sample, tokens: Tokens, x_hat: Tensor) -> None:
        """Measures what was decoded at rate i, and what it is compared with."""
        assert sample.x is not None
        x, data = sample.x[0], contents(self.runner, replace(sample, tokens=tokens))
        payload, total = token_file.read_header(data).payload_bytes, len(data)
        decoded = [(x_hat, self.judge.sizes(x, tokens, payload, total))]
        decoded += [self.judge.baseline(name, x, payload, total) for name in self.against]
        for j, (row, (own, sizes)) in enumerate(zip(self.rows[i], decoded, strict=True)):
            row.add(x, own, sizes)
            for observer in self.observers.values():
                observer.see_decoded(i, j, sample, own)

    def result(self) -> list[dict[str, Any]]:
        """One mapping per row, rate by rate, the codec first."""
        results = []
        for rows, use in zip(self.rows, self.uses, strict=True):
            books = [u for u in use.result() if u.codes]
            about = {
                "codebook_use": sum(u.share for u in books) / max(len(books), 1),
                "perplexity": sum(u.perplexity for u in books) / max(len(books), 1),
            }
            results += [rows[0].result() | about, *(row.result() for row in rows[1:])]
        for name, observer in self.observers.items():
            self.observed[name], found = observer.result(self.rates)
            for (i, j), values in found.items():
                results[i * (len(self.against) + 1) + j] |= values
        return results


def label(rate: Prefix) -> str:
    """E.g. "32 positions", "all"."""
    parts = [f"{n} {name}" for name, n in vars(rate).items() if n is not None]
    return ", ".join(parts) or "all"


def rates_of(spec: TokenSpec, kind: str | None = None, wanted: Sequence[int] = ()) -> list[Prefix]:
    """The rates to measure, fewest first.

    As wanted, else of the codec's first kind of prefix that has a fixed number: all of up to five, more are halved.

    Args:
        spec: of the codec.
        kind: "positions", "codebooks" or "streams"; None: no wish.
        wanted: prefix lengths of that kind.

    Raises:
        InputError: a prefix that the codec does not decode, or that is no rate.
    """
    if kind == "positions" and spec.media == "video":
        raise InputError("--positions: fewer positions of video are fewer frames, not a lower rate")
    if kind is not None:
        return [Prefix(**{kind: n}).check(spec) for n in sorted(set(wanted))]
    first = quality_prefix(spec)
    if first is None:
        return [Prefix()]
    full = longest(spec)[first] or 1
    steps = range(1, full + 1) if full <= 5 else sorted({max(1, full >> i) for i in range(5)})
    return [Prefix(**{first: n}) for n in steps]
