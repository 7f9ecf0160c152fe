"""Machine perception after MPQ: can labels still be read off decoded media, and off the codes themselves?"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codeczoo.core.base import Quantizer
from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.batches import Prefix, Runner
from codeczoo.export.judging import Networks
from codeczoo.export.sources import Sample
from codeczoo.metrics import descriptors
from codeczoo.metrics.probe import fit, standardised

ENTRIES = 4096  # of a codebook, in histograms: the most frequent ones in training; the others count as one
LONGEST = 8192  # numbers of all codebook vectors of a sample; where there are more, their mean and deviation


@dataclass
class Side:
    """Labelled samples, to learn from or to be tested with: labels, features of the originals, and tokens."""

    labels: list[str] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    tokens: list[Tokens] = field(default_factory=list)


class Probing:
    """Linear probes of one codec.

    Source: MPQ (arXiv 2401.07957): what machines make of coded media, beside what it costs.
    Differs: MPQ runs large pretrained networks for classification, segmentation, speech and more. Here one matrix
        learns the labels from originals of a training set, and is asked about originals and decoded media of another;
        it sees Inception features where there are weights, else colours, edges, mel bands. Codes have probes of their
        own, which learn from codes of the training set at the same rate.

    Args:
        runner: the codec.
        labels: of files, by path; files without one are not asked about.
        networks: see `describer`.
    """

    def __init__(self, runner: Runner, labels: Mapping[Path, str], networks: Networks) -> None:
        self.runner, self.labels = runner, labels
        self.describe = describer(runner.codec.spec, networks, runner.device)
        self.train, self.test = Side(), Side()
        self._decoded: dict[tuple[int, int], list[Tensor]] = {}

    def learn(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Takes the training set, and hands it on."""
        for sample in samples:
            self._take(self.train, sample)
            yield sample

    def see(self, sample: Sample) -> None:
        """Takes a sample to be tested with."""
        self._take(self.test, sample)

    def see_decoded(self, rate: int, row: int, sample: Sample, x_hat: Tensor) -> None:
        """Takes what became of a sample, (C, *spatial), in one row of one rate; samples in the order of `see`."""
        if sample.found.path in self.labels:
            self._decoded.setdefault((rate, row), []).append(self.describe(x_hat))

    def _take(self, side: Side, sample: Sample) -> None:
        label = self.labels.get(sample.found.path)
        if label is not None and sample.x is not None and sample.tokens is not None:
            side.labels.append(label)
            side.features.append(self.describe(sample.x[0]))
            side.tokens.append(sample.tokens)

    def result(self, rates: Sequence[Prefix]) -> tuple[dict[str, Any], dict[tuple[int, int], dict[str, float]]]:
        """What holds for all rates, and the accuracies of each row (rate, row), row 0 being the codec.

        Raises InputError where fewer than two classes can be learnt, or where nothing can be asked.
        """
        classes = sorted(set(self.train.labels))
        places = [i for i, label in enumerate(self.test.labels) if label in classes]
        if len(classes) < 2 or not places:
            raise InputError(
                f"the probe has {len(self.train.labels)} samples of {len(classes)} classes to learn from, and "
                f"{len(places)} of these classes to be tested with; it needs two classes, and one sample"
            )
        wanted = torch.tensor([classes.index(label) for label in self.train.labels])
        asked = torch.tensor([classes.index(self.test.labels[i]) for i in places])
        decoded = {key: torch.stack(found)[places] for key, found in self._decoded.items()}
        train, test, *others = standardised(
            torch.stack(self.train.features), torch.stack(self.test.features)[places], *decoded.values()
        )
        probe = fit(train, wanted, len(classes))
        rows = {key: {"probe": probe.accuracy(x, asked)} for key, x in zip(decoded, others, strict=True)}
        for i, rate in enumerate(rates):
            sides = ([rate.of(t) for t in self.train.tokens], [rate.of(self.test.tokens[j]) for j in places])
            for name, found in (("probe_codes", _histograms(*sides)), ("probe_vectors", self._vectors(*sides))):
                if found is not None:
                    rows.setdefault((i, 0), {})[name] = fit(found[0], wanted, len(classes)).accuracy(found[1], asked)
        most = Counter(self.train.labels).most_common(1)[0][0]
        facts = {
            "classes": len(classes),
            "train": len(wanted),
            "test": len(asked),
            "unknown": len(self.test.labels) - len(places),
            "chance": float((asked == classes.index(most)).double().mean()),
            "originals": probe.accuracy(test, asked),
        }
        return facts, rows

    def _vectors(self, train: Sequence[Tokens], test: Sequence[Tokens]) -> tuple[Tensor, ...] | None:
        """Features by what the codes stand for; None of codecs whose quantizer has several streams."""
        quantizer = getattr(self.runner.codec, "quantizer", None)
        if not isinstance(quantizer, Quantizer) or len(self.runner.codec.spec.streams) > 1:
            return None

        @torch.inference_mode()
        def of(tokens: Tokens) -> Tensor:
            z = quantizer.decode(tokens.codes.to(self.runner.device)).float().cpu()[0].flatten(1)  # (D, P)
            fixed = None not in tokens.spec.streams[0].shape and z.numel() <= LONGEST
            return z.flatten() if fixed else torch.cat([z.mean(1), z.std(1, correction=0)])

        return standardised(*(torch.stack([of(tokens) for tokens in side]) for side in (train, test)))


def _histograms(train: Sequence[Tokens], test: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Roots of how often each entry occurs in each sample, (N, entries of all codebooks) each."""
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for s, codes in enumerate(train[0].streams):
        for k in range(codes.shape[1]):
            own = [[tokens.streams[s][0, k].flatten() for tokens in side] for side in (train, test)]
            entries, counts = torch.cat(own[0]).unique(return_counts=True)
            kept = entries[counts.argsort(descending=True, stable=True)[:ENTRIES]].sort()[0]
            for part, side in zip(found, own, strict=True):
                rows = []
                for each in side:
                    place = torch.searchsorted(kept, each).clamp_max(len(kept) - 1)
                    place = torch.where(kept[place] == each, place, len(kept))
                    rows.append(torch.bincount(place, minlength=len(kept) + 1) / max(1, len(each)))
                part.append(torch.stack(rows).sqrt())
    return torch.cat(found[0], 1), torch.cat(found[1], 1)


def describer(spec: TokenSpec, networks: Networks, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Media (C, *spatial) to features: of Inception, for pictures, where there are weights; else `descriptors`."""
    if spec.media == "audio":
        return partial(descriptors.sound, rate=spec.sample_rate or 1)
    if spec.media == "video":
        return descriptors.clip
    inception = networks.inception
    if inception is None:
        return descriptors.picture

    def of(x: Tensor) -> Tensor:
        pixels = (x[None].float().clamp(0, 1) * 255).round().to(torch.uint8)
        found: Tensor = inception(pixels.to(device))[0].float().cpu()
        return found

    return of
