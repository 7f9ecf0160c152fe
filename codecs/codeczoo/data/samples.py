"""Samples and batches, and the pictures of a folder as a dataset."""

import os
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from codeczoo.core.errors import CodeczooError, InputError
from codeczoo.data.sampling import AUGMENT, Draw, generator
from codeczoo.data.transforms import Transform
from codeczoo.io.image import read

Sample = dict[str, Any]  # x: (3, H, W) uint8 or float in [0, 1]; key: str; perhaps text: str
Batch = dict[str, Any]  # x: float32 (B, 3, H, W) in [0, 1]; key: list[str]; perhaps text: list[str]
MOST_IN_A_ROW = 256  # unusable samples, before it is the data set that is wrong
log = getLogger(__name__)


def collate(samples: Sequence[Sample | None]) -> Batch:
    """One batch; None stands for a sample that could not be used. Raises InputError when all are None."""
    good = [sample for sample in samples if sample is not None]
    if not good:
        raise InputError(f"none of the {len(samples)} pictures of a batch can be used; see the warnings")
    batch: Batch = {key: [sample[key] for sample in good] for key in good[0]}
    batch["x"] = to_float(torch.stack([x.contiguous() for x in batch["x"]]))  # (B, 3, H, W)
    return batch


def to_float(x: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; floats stay."""
    return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x


class FileSet(Dataset[Sample | None]):
    """Pictures in files, None where one cannot be used.

    Args:
        root: folder; keys are paths relative to it.
        paths: of the files, below root.
        transform: of every picture, to one common size.
        seed: of the augmentation.
    """

    def __init__(self, root: Path, paths: Sequence[Path], transform: Transform, seed: int) -> None:
        self.root, self.transform, self.seed = root, transform, seed
        # One array, not a million objects: forked workers would copy those page by page.
        self.keys = np.array([os.fsencode(path.relative_to(root)) for path in paths])
        self.unusable = torch.zeros(len(paths), dtype=torch.uint8).share_memory_()  # written by all workers
        self._reported = 0

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, draw: Draw) -> Sample | None:
        return self.load(*draw)

    def load(self, number: int, index: int) -> Sample | None:
        """File `index` as draw `number` sees it."""
        if self.unusable[index]:
            return None
        try:
            return self.open(number, index)
        except CodeczooError:
            self.unusable[index] = 1
            return None

    def open(self, number: int, index: int) -> Sample:
        """As `load`; raises FormatError for a corrupt file and InputError for one that the transform refuses."""
        key = os.fsdecode(self.keys[index])
        return {"x": self.transform(read(self.root / key), generator(self.seed, AUGMENT, number)), "key": key}

    @property
    def skipped(self) -> int:
        """Number of files that could not be used so far, by any worker of this process."""
        return int(self.unusable.sum(dtype=torch.int64))

    def skipped_keys(self) -> list[str]:
        """Their keys."""
        return [os.fsdecode(self.keys[i]) for i in self.unusable.nonzero()[:, 0].tolist()]

    def report(self) -> None:
        """Logs the skipped files when there are more than at the last report."""
        count = self.skipped
        if count > self._reported:
            names = ", ".join(self.skipped_keys()[:3]) + (", ..." if count > 3 else "")
            log.warning("skipped %d of %d pictures in %s, they cannot be used: %s", count, len(self), self.root, names)
        self._reported = count


class FilledFileSet(FileSet):
    """As FileSet, but the next usable file takes the place of an unusable one, so that batches keep their size."""

    def __getitem__(self, draw: Draw) -> Sample:
        number, index = draw
        tries = min(len(self), MOST_IN_A_ROW)
        for step in range(tries):
            sample = self.load(number, (index + step) % len(self))
            if sample is not None:
                return sample
        try:
            return self.open(number, index)
        except CodeczooError as error:
            raise InputError(f"{tries} files in a row in {self.root} cannot be used, the first: {error}") from None
