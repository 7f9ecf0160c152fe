"""Samples and batches, and the files of a folder as a dataset."""

import os
from collections.abc import Sequence
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from codeczoo.core.errors import CodeczooError, InputError
from codeczoo.data.media import Damaged, Listing, Media, Redraw
from codeczoo.data.sampling import AUGMENT, BATCH, Draw, generator

# x: a picture (3, H, W) or a clip (3, T, H, W), uint8 or float in [0, 1], or audio (C, T), float in [-1, 1]; key: str;
# perhaps text: str, latents: float32 (c, h, w)
Sample = dict[str, Any]
# x: float32, (B, ...); key: list[str]; perhaps text: list[str], latents; lengths: int64 (B,) where T differs
Batch = dict[str, Any]
MOST_IN_A_ROW = 256  # unusable samples, before it is the data set that is wrong
log = getLogger(__name__)


def collate(samples: Sequence[Sample | None]) -> Batch:
    """One batch; None stands for a sample that could not be used. Where T differs, x is filled up with zeros.

    Raises InputError when all are None.
    """
    good = [sample for sample in samples if sample is not None]
    if not good:
        raise InputError(f"none of the {len(samples)} samples of a batch can be used; see the warnings")
    batch: Batch = {key: [sample[key] for sample in good] for key in good[0]}
    batch |= {key: torch.stack(value) for key, value in batch.items() if isinstance(value[0], Tensor) and key != "x"}
    lengths = [x.shape[1] for x in batch["x"]]  # T, but for pictures
    if good[0]["x"].ndim != 3 and len(set(lengths)) > 1:
        padded = pad_sequence([x.transpose(0, 1) for x in batch["x"]], batch_first=True)  # (B, T, C, *S)
        batch["x"] = to_float(padded.transpose(1, 2).contiguous())  # (B, C, T, *S)
        batch["lengths"] = torch.tensor(lengths)
    else:
        batch["x"] = to_float(torch.stack([x.contiguous() for x in batch["x"]]))  # (B, 3, H, W) or (B, C, T, *S)
    return batch


def to_float(x: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; floats stay."""
    return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x


class FileSet(Dataset[Sample | None]):
    """Samples out of files, None where one cannot be used.

    Args:
        files: whose names are the keys.
        media: how a file becomes x.
        seed: of the augmentation.
    """

    def __init__(self, files: Listing, media: Media, seed: int) -> None:
        self.root, self.media, self.seed = files.root, media, seed
        # One array, not a million objects: forked workers would copy those page by page.
        self.keys = np.array([os.fsencode(key) for key in files.keys])
        # Written by all workers. What is unusable is so in every draw, or a resumed run would go on with other samples.
        self.unusable = torch.zeros(len(self.keys), dtype=torch.uint8).share_memory_()
        self.damaged = torch.zeros_like(self.unusable).share_memory_()  # and may be usable in another draw
        self._reported = 0

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, draw: Draw) -> Sample | None:
        return self.load(draw)

    def load(self, draw: Draw) -> Sample | None:
        """The file as this draw sees it."""
        if self.unusable[draw.sample]:
            return None
        try:
            return self.open(draw)
        except Damaged:
            self.damaged[draw.sample] = 1
            return None
        except Redraw:
            return None
        except CodeczooError:
            self.unusable[draw.sample] = 1
            return None

    def open(self, draw: Draw) -> Sample:
        """As `load`; raises CodeczooError for a file that is corrupt or that the transform refuses."""
        key = os.fsdecode(self.keys[draw.sample])
        media = self.media.of_batch(generator(self.seed, BATCH, draw.batch))
        return {"x": media(self.root / key, generator(self.seed, AUGMENT, draw.number)), "key": key}

    @property
    def skipped(self) -> int:
        """Number of files that could not be used so far, some of them in part, by any worker of this process."""
        return len(self.skipped_keys())

    def skipped_keys(self) -> list[str]:
        """Their keys."""
        return [os.fsdecode(self.keys[i]) for i in (self.unusable | self.damaged).nonzero()[:, 0].tolist()]

    def report(self) -> None:
        """Logs the skipped files when there are more than at the last report."""
        count = self.skipped
        if count > self._reported:
            names = ", ".join(self.skipped_keys()[:3]) + (", ..." if count > 3 else "")
            what, where = self.media.plural, self.root
            log.warning("skipped %d of %d %s in %s, they cannot be used: %s", count, len(self.keys), what, where, names)
        self._reported = count


class FilledFileSet(FileSet):
    """As FileSet, but the next usable file takes the place of an unusable one, so that batches keep their size."""

    def __getitem__(self, draw: Draw) -> Sample:
        tries = min(len(self.keys), MOST_IN_A_ROW)
        for step in range(tries):
            sample = self.load(draw._replace(sample=(draw.sample + step) % len(self.keys)))
            if sample is not None:
                return sample
        try:
            return self.open(draw)
        except CodeczooError as error:
            raise InputError(f"{tries} files in a row in {self.root} cannot be used, the first: {error}") from None
