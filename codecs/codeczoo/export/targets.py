"""Tokens cut to what each file needs: the shortest prefix of a wished quality, the longest of so many bytes.

Quality is measured of the media as the codec sees them, as in `evaluate`, but of tiles blended. It need not grow with
the prefix, so a shorter one than the bisection found may do; the one that it found was always measured itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import isnan
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codeczoo.core.errors import InputError, nearest
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.batches import Prefix, quality_prefix, threaded, windows
from codeczoo.export.judges import PictureMeasures, VideoMeasures
from codeczoo.export.sources import Media, Sample, contents, guarded
from codeczoo.io.target import Target
from codeczoo.metrics import audio

HELD = 2**26  # numbers of all originals that are held at once


class Measure(NamedTuple):
    """One way to compare x with x_hat.

    Args:
        of: x, x_hat (n, C, *spatial) to (n,); NaN where there is no value.
        least: of the shorter side, pixels; 0 for audio.
        sign: 1 where more is better, -1 where less is.
    """

    of: Callable[[Tensor, Tensor], Tensor]
    least: int = 0
    sign: int = 1


def measures_of(spec: TokenSpec) -> dict[str, Measure]:
    """What can be wished of media of this kind, by name."""
    if spec.sample_rate is not None:
        worse = ("mel", "superb_mel", "stft")  # distances
        of = {name: partial(measure, rate=spec.sample_rate) for name, measure in audio.MEASURES.items()}
        return {name: Measure(measure, 0, -1 if name in worse else 1) for name, measure in of.items()}
    functions = (PictureMeasures if spec.media == "image" else VideoMeasures).FUNCTIONS
    return {name: Measure(*found) for name, found in functions.items() if name != "flicker"}  # it cannot be cut in time


def search(most: Sequence[int], holds: Callable[[list[tuple[int, int]]], list[bool]]) -> list[int]:
    """For each i the shortest n of 1..most[i] that holds, all by bisection at once; most[i] + 1 where none does.

    What is found did hold when it was asked for, and most[i] + 1 comes only where most[i] did not, even where `holds`
    is not monotone in n.

    Args:
        most: longest n of each.
        holds: answers pairs (i, n), at most one of each i.
    """
    low, high = [0] * len(most), [n + 1 for n in most]
    while asked := [(i, (low[i] + high[i]) // 2) for i in range(len(most)) if high[i] - low[i] > 1]:
        for (i, n), answer in zip(asked, holds(asked), strict=True):
            (high if answer else low)[i] = n
    return high


class Cutter(ABC):
    """Cuts the tokens of encoded files.

    Args:
        media: how they were encoded.

    Raises:
        InputError: a codec without prefixes.

    Attributes:
        kind: of prefix, "positions", "codebooks" or "streams".
    """

    def __init__(self, media: Media) -> None:
        self.media = media
        kind = quality_prefix(media.runner.codec.spec)
        if kind is None:
            raise InputError("this codec decodes whole tokens only, there is no prefix to choose")
        self.kind = kind

    @abstractmethod
    def cut(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Samples that `media.encode` gave, with fewer tokens and `target`; bad ones, old and new, have their error."""

    def length(self, tokens: Tokens) -> int:
        """How many positions, codebooks or streams there are."""
        if self.kind == "streams":
            return len(tokens.streams)
        axis = 1 if self.kind == "codebooks" else 2
        return max(codes.shape[axis] for codes in tokens.streams)

    def missed(self, sample: Sample) -> str:
        """How a sample that `cut` gave misses its target, one line; empty when it does not."""
        target = sample.target
        if sample.tokens is None or target is None or target.met:
            return ""
        found = "no value" if target.value is None else f"{target.value:.5g}"
        return f"target {target.wanted} missed: {found} with all {self.length(sample.tokens)} {self.kind}"

    def shortened(self, sample: Sample, n: int) -> Sample:
        """The first n positions, codebooks or streams."""
        assert sample.tokens is not None
        return replace(sample, tokens=Prefix(**{self.kind: n}).of(sample.tokens))


class ToQuality(Cutter):
    """The shortest prefix that reaches a quality; all tokens where none does.

    Args:
        media: see Cutter.
        name: of a measure.
        wanted: its value, to be reached from the worse side.

    Raises:
        InputError: a measure that this media has not.
    """

    def __init__(self, media: Media, name: str, wanted: float) -> None:
        super().__init__(media)
        measures = measures_of(media.runner.codec.spec)
        if name not in measures:
            raise InputError(f"--target: no measure '{name}' for {media.UNIT}; {nearest(name, measures)}")
        self.name, self.wanted, self.measure = name, wanted, measures[name]

    def cut(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """See Cutter. Originals are read while the codec is at work, decoded in batches of many files."""
        batch = self.media.runner.batch

        def full(window: list[Sample]) -> bool:
            held = sum(sample.x.numel() for sample in window if sample.x is not None)
            return len(window) >= 4 * batch or held >= HELD

        for window in windows(threaded(samples, self._with_original, batch), full):
            good = [sample for sample in window if sample.tokens is not None and not sample.error]
            done = iter(self._chosen([sample for sample in good if sample.x is not None]))
            for sample in window:
                if sample.x is not None:
                    yield replace(next(done), x=None)
                else:
                    yield self._long(sample)

    def _with_original(self, sample: Sample) -> Sample:
        def run(_: Any) -> Sample:
            found = self.media.original(sample)
            if found.x is not None and min(found.x.shape[2:]) < self.measure.least:
                size = "x".join(map(str, found.x.shape[-2:]))
                raise InputError(f"{self.name} takes at least {self.measure.least} pixels a side, it has {size}")
            return found

        return sample if sample.error else guarded(run)(sample.found)

    def _long(self, sample: Sample) -> Sample:
        return sample if sample.error else guarded(lambda _: self._chosen([sample])[0])(sample.found)

    def _chosen(self, samples: Sequence[Sample]) -> list[Sample]:
        """All of them cut, bisected at once."""
        values: list[dict[int, float]] = [{} for _ in samples]

        def holds(asked: list[tuple[int, int]]) -> list[bool]:
            found = self._values([self.shortened(samples[i], n) for i, n in asked])
            for (i, n), value in zip(asked, found, strict=True):
                values[i][n] = value
            return [self.measure.sign * (value - self.wanted) >= 0 for value in found]

        most = [self.length(sample.tokens) for sample in samples if sample.tokens is not None]
        chosen = search(most, holds)
        return [
            self._told(self.shortened(sample, min(n, full)), found[min(n, full)], n <= full)
            for sample, n, full, found in zip(samples, chosen, most, values, strict=True)
        ]

    def _told(self, sample: Sample, value: float, met: bool) -> Sample:
        target = Target(f"{self.name}:{self.wanted:g}", None if isnan(value) else value, met)
        return replace(sample, target=target)

    def _values(self, samples: Sequence[Sample]) -> list[float]:
        """What is measured of what their tokens decode to; NaN where there is no value."""
        held = [s for s in samples if s.x is not None]
        pieces = [s.tokens[i] for s in held if s.tokens is not None for i in range(s.tokens.batch)]
        decoded = iter(self.media.runner.decode(pieces))
        values = []
        for sample in samples:
            if sample.x is None:
                values.append(self._mean(self.media.pairs(sample)))
            else:
                x_hat = torch.stack([next(decoded) for _ in sample.x])
                values.append(self._mean([tuple(self.media.joined(sample, side) for side in (sample.x, x_hat))]))
        return values

    @torch.inference_mode()
    def _mean(self, pairs: Iterable[tuple[Tensor, ...]]) -> float:
        """Over all pieces that have a value, by their duration."""
        total = weight = 0.0
        for x, x_hat in pairs:
            found = self.measure.of(x, x_hat)
            found = found[~found.isnan()]
            total += float(found.sum()) * x.shape[2]
            weight += len(found) * x.shape[2]
        return total / weight if weight else float("nan")


class ToBytes(Cutter):
    """The longest prefix whose token file, all of it, has at most so many bytes; an error where none has.

    Args:
        media: see Cutter.
        most: bytes.
    """

    def __init__(self, media: Media, most: int) -> None:
        super().__init__(media)
        self.most = most

    def cut(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """See Cutter."""

        def run(sample: Sample) -> Sample:
            return sample if sample.tokens is None else guarded(lambda _: self._chosen(sample))(sample.found)

        return threaded(samples, run, 2 * self.media.runner.batch)

    def _chosen(self, sample: Sample) -> Sample:
        assert sample.tokens is not None
        told = replace(sample, target=Target(self.most))

        def too_large(asked: list[tuple[int, int]]) -> list[bool]:
            return [self._bytes(self.shortened(told, n)) > self.most for _, n in asked]

        full = self.length(sample.tokens)
        n = search([full], too_large)[0] - 1
        if n == 0:
            least = self._bytes(self.shortened(told, 1))
            sound = sum(map(len, sample.attachments.values()))
            of = f", {sound} of them its sound" if sound else ""
            raise InputError(f"--max-bytes {self.most}: with 1 of {full} {self.kind} it takes {least} bytes{of}")
        return self.shortened(told, n)

    def _bytes(self, sample: Sample) -> int:
        return len(contents(self.media.runner, sample))
