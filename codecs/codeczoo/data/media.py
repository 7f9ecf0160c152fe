"""What a data module does with one file, and the files it has, whatever the media."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils.data import get_worker_info

from codeczoo.core.errors import InputError
from codeczoo.data.transforms import Transform
from codeczoo.io import image
from codeczoo.io.files import find

MANIFESTS = (".jsonl", ".csv")


class Media(ABC):
    """File, or its bytes, to the x of a sample.

    Attributes:
        plural: what several are called in messages.
        suffixes: of such files, lower case with the dot.
    """

    plural: str
    suffixes: tuple[str, ...]

    @abstractmethod
    def __call__(self, source: Path | bytes, random: Generator) -> Tensor:
        """Randomness only from `random`. Raises Redraw, and CodeczooError for a file that cannot be used."""

    def of_batch(self, random: Generator) -> "Media":
        """What makes the samples of one batch: with what they have in common, drawn from `random`."""
        return self


class Redraw(InputError):
    """What was drawn of a file cannot be used; another draw may be."""


class Damaged(Redraw):
    """A part of a file cannot be read; another part may be."""


class Pictures(Media):
    """Pictures under a transform, uint8 (3, H, W)."""

    plural = "pictures"
    suffixes: tuple[str, ...] = image.SUFFIXES

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, source: Path | bytes, random: Generator) -> Tensor:
        return self.transform(image.read(source), random)


class Listing(NamedTuple):
    """Files, by name relative to a folder, and their seconds where a manifest says them (else None)."""

    root: Path
    keys: list[str]
    durations: list[float | None]

    def split(self, fraction: float, seed: int) -> tuple["Listing", "Listing"]:
        """The rest, and at least one held out: those whose hashed names are lowest, nearly the same ones later on."""
        lots = [sha256(f"{seed}/{key}".encode(errors="surrogateescape")).digest() for key in self.keys]
        count = max(1, round(len(lots) * fraction))
        out = set(sorted(range(len(lots)), key=lots.__getitem__)[:count])
        return self.part([i for i in range(len(lots)) if i not in out]), self.part(sorted(out))

    def part(self, indices: Sequence[int]) -> "Listing":
        """These files, in this order."""
        return Listing(self.root, [self.keys[i] for i in indices], [self.durations[i] for i in indices])


def listing(root: Path, suffixes: Sequence[str]) -> Listing:
    """All files with `suffixes` below a folder, sorted, or those of a manifest, in its order.

    A manifest is .jsonl or .csv with a "path", relative to the manifest, and perhaps a "duration" in seconds.
    Raises InputError when there is none.
    """
    if root.is_file():
        return manifest(root)
    keys = sorted(found.path.relative_to(root) for found in find([root], suffixes))
    return Listing(root, [key.as_posix() for key in keys], [None] * len(keys))


def manifest(path: Path) -> Listing:
    """The files of a manifest; see `listing`."""
    if path.suffix.lower() not in MANIFESTS:
        raise InputError(f"{path} is neither a folder nor a manifest ({', '.join(MANIFESTS)})")
    keys, durations = [], []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file) if path.suffix.lower() == ".csv" else filter(str.strip, file)
        for number, row in enumerate(rows, 1):
            try:
                entry: Any = json.loads(row) if isinstance(row, str) else row
                keys.append(str(entry["path"]))
                durations.append(float(entry["duration"]) if entry.get("duration") else None)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{path}: entry {number} has no path, or a wrong duration ({error})") from None
    if not keys:
        raise InputError(f"{path} lists nothing")
    return Listing(path.parent, keys, durations)


class Tally:
    """A count that the loading process and its workers keep together; `workers` is how many will add to it."""

    def __init__(self, workers: int) -> None:
        self.counts = torch.zeros(max(1, workers), dtype=torch.int64).share_memory_()  # one slot a worker

    def add(self) -> int:
        """One more. Returns this worker's own count."""
        slot, _ = this_worker()
        self.counts[slot] += 1
        return int(self.counts[slot])

    @property
    def total(self) -> int:
        """Of all workers."""
        return int(self.counts.sum())


def this_worker() -> tuple[int, int]:
    """(this worker, number of workers); (0, 1) in the training process."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
