"""All that a report tells of one codec: every rate beside baselines, excerpts to see and hear, speed, tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from math import isnan
from typing import Any

import torch
from torch import Tensor

from codeczoo import zoo
from codeczoo.export.batches import Prefix, Runner
from codeczoo.export.evaluate import Evaluation, rates_of
from codeczoo.export.judges import JUDGES, small
from codeczoo.export.judging import Networks
from codeczoo.export.media import media_of
from codeczoo.export.sizes import sizes
from codeczoo.export.sources import Sample
from codeczoo.export.speed import speed
from codeczoo.io.files import Found
from codeczoo.io.video_fit import VideoFit
from codeczoo.metrics.codebook import CodebookUse
from codeczoo.metrics.ngrams import TokenStatistics

SIDE = {"image": 384, "video": 256}  # pixels, of what is kept of pictures and clips
SECONDS = {"audio": 6.0, "video": 3.0}  # kept of sound and clips
RATE = Fraction(25)  # frames a second of clips that do not say theirs


class Study:
    """One codec on some files.

    Args:
        runner: the codec.
        against: names of baselines; those of other media are left out.
        networks: measures that need weights.
        rates: prefixes; None: those of `rates_of`.

    Attributes:
        evaluation: what was measured, and excerpts.
        models: reports of language models that were trained on its tokens.
        names: of the files whose excerpts are kept.
        rates: frames a second of these, of clips.
    """

    def __init__(
        self, runner: Runner, against: Sequence[str], networks: Networks, rates: Sequence[Prefix] | None = None
    ) -> None:
        self.runner, self.spec = runner, runner.codec.spec
        self.media = media_of(runner)
        own = [name for name in against if name in JUDGES[self.spec.media].BASELINES]
        self.evaluation = Evaluation(runner, rates or rates_of(self.spec), own, networks, self.excerpt)
        self.statistics, self.use = TokenStatistics(self.spec), CodebookUse(self.spec)
        self.names: list[str] = []
        self.rates: list[Fraction] = []
        self.speed: dict[str, float] = {}
        self.models: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """What the codec is called."""
        return zoo.title(self.runner.name)

    def run(self, files: Iterable[Found]) -> Iterator[Sample]:
        """Measures all files; gives what became of each, or of each piece of a long one."""
        for sample in self.evaluation.add(self._counted(self.media.clips(files))):
            if sample.x is not None and len(self.names) < len(self.evaluation.originals):
                self.names.append(sample.found.path.name)
                rate = sample.fit.rate if isinstance(sample.fit, VideoFit) else None
                self.rates.append(rate or RATE)
            yield sample

    def _counted(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            if sample.x is not None and sample.tokens is not None:
                if not self.speed:
                    self.speed = speed(self.runner, sample.x)
                self.statistics.update(sample.tokens)
                self.use.update(sample.tokens)
            yield sample

    def excerpt(self, x: Tensor) -> Tensor:
        """What is kept of x (C, *spatial): the middle of a picture, the beginning of sound, that of a clip, smaller."""
        if self.spec.media == "image":
            top, left = (max(0, (n - SIDE["image"]) // 2) for n in x.shape[1:])
            return x[:, top : top + SIDE["image"], left : left + SIDE["image"]].clone()
        if self.spec.media == "audio":
            return x[:, : round(SECONDS["audio"] * (self.spec.sample_rate or 1))].clone()
        frames = small(x[:, : round(SECONDS["video"] * float(RATE))], SIDE["video"])
        return (frames * 255).round().to(torch.uint8)

    def result(self) -> dict[str, Any]:
        """Everything in numbers, plain values."""
        codec, rows = self.runner.codec, self.evaluation.result()
        return {
            "name": self.name,
            "weights_hash": self.runner.weights_hash,
            "parameters": sum(p.numel() for p in codec.parameters()),
            "precision": self.runner.precision,
            "spec": self.spec.to_dict(),
            "rows": rows,
            "sizes": sizes(rows, self.spec.media),
            "codebooks": [asdict(use) for use in self.use.result() if use.codes],
            "ngrams": [asdict(one) | {"zipf": _number(one.zipf)} for one in self.statistics.result()],
            "speed": self.speed,
            **self.evaluation.observed,
            **({"lm": self.models} if self.models else {}),
        }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if isnan(value) else value


def groups(studies: Sequence[Study]) -> list[list[Study]]:
    """Studies whose codecs see media alike, so that their measures can be compared: of one size, or at one rate."""
    found: dict[Any, list[Study]] = {}
    for study in studies:
        spec = study.spec
        found.setdefault((spec.media, spec.input_size, spec.sample_rate, spec.channels), []).append(study)
    return list(found.values())
