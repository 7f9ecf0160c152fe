"""Latents of a frozen autoencoder on disk, so that a training behind it does not compute them again and again.

A folder of two files: latents.npy, float16 (views, pictures, c, h, w), the modes as the autoencoder gives them,
unscaled; index.json, which autoencoder they are of and which pictures. View v of picture i is draw v * pictures + i of
the training augmentation, so that the picture itself can be had again too.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from codeczoo.core.errors import InputError
from codeczoo.data.media import Listing, Pictures
from codeczoo.data.module import leave_signals_to_parent
from codeczoo.data.samples import FileSet, Sample, to_float
from codeczoo.data.sampling import Draw
from codeczoo.data.transforms import training_recipe
from codeczoo.image.kl_vae import KLVAE
from codeczoo.io.files import atomic

INDEX, LATENTS = "index.json", "latents.npy"
SEED = 0  # of the augmentation


@dataclass(frozen=True)
class LatentIndex:
    """What a folder of latents is of.

    Args:
        vae: hash of the autoencoder's weights.
        root: folder of the pictures.
        keys: the pictures' names relative to it; None for those that could not be read, whose latents mean nothing.
        image_size: H = W that they were cut to, pixels.
        views: how often each was drawn.
        mean, std: of all numbers in the latents.
    """

    vae: str
    root: str
    keys: list[str | None]
    image_size: int
    views: int
    mean: float = 0.0
    std: float = 1.0

    @staticmethod
    def read(folder: Path) -> "LatentIndex":
        """The index in a folder. Raises InputError."""
        path = folder / INDEX
        try:
            return LatentIndex(**json.loads(path.read_text()))
        except OSError as error:
            why = error.strerror or error
            raise InputError(f"{path}: {why}; `codeczoo latents` writes such a folder") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: no index of latents ({error})") from None


class Encoded(NamedTuple):
    """Latents (b, c, h, w) of the draws with these numbers, those that could not be read left out."""

    numbers: list[int]
    latents: Tensor


class _InOrder:
    """Batches of the draws 0 to views * pictures - 1."""

    def __init__(self, pictures: int, views: int, batch_size: int) -> None:
        self.pictures, self.total, self.batch_size = pictures, pictures * views, batch_size

    def __iter__(self) -> Iterator[list[Draw]]:
        for first in range(0, self.total, self.batch_size):
            numbers = range(first, min(first + self.batch_size, self.total))
            yield [Draw(number, number % self.pictures) for number in numbers]


class _Numbered(FileSet):
    """Gives the number of the draw along."""

    def __getitem__(self, draw: Draw) -> Sample | None:
        sample = self.load(draw)
        return None if sample is None else sample | {"number": draw.number}


def encode(vae: KLVAE, files: Listing, index: LatentIndex, batch_size: int, workers: int) -> Iterator[Encoded]:
    """Every view of every picture through the autoencoder, on its device."""
    pictures = _Numbered(files, Pictures(training_recipe(index.image_size)), SEED)
    loader: DataLoader[list[Sample | None]] = DataLoader(
        pictures,  # type: ignore[arg-type]
        batch_sampler=_InOrder(len(files.keys), index.views, batch_size),
        collate_fn=list,
        num_workers=workers,
        worker_init_fn=leave_signals_to_parent,
    )
    device = next(vae.parameters()).device
    for batch in loader:
        good = [sample for sample in batch if sample is not None]
        if good:
            x = to_float(torch.stack([sample["x"] for sample in good]).to(device))
            with torch.inference_mode():
                yield Encoded([sample["number"] for sample in good], vae.posterior(x)[0].cpu())


def write(folder: Path, index: LatentIndex, shape: tuple[int, int, int], encoded: Iterable[Encoded]) -> LatentIndex:
    """Writes a folder; its index appears last. Returns the index with what was found.

    Args:
        folder: to make.
        index: what is about to be encoded.
        shape: (c, h, w) of one picture's latents.
        encoded: from `encode`.

    Raises:
        InputError: it cannot be written, or no picture can be read.
    """
    pictures = len(index.keys)
    there, sums = np.zeros(pictures, np.int64), np.zeros(2)
    (folder / INDEX).unlink(missing_ok=True)
    with atomic(folder / LATENTS) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.float16, (index.views, pictures, *shape))
        for numbers, latents in encoded:
            views, rows = np.divmod(numbers, pictures)
            array[views, rows] = latents.numpy()
            there[rows] += 1
            sums += latents.double().sum().item(), latents.double().square().sum().item()
        if not there.any():
            raise InputError(f"none of the {pictures} pictures in {index.root} can be read")
        array.flush()
    mean, square = sums / (there.sum() * np.prod(shape))
    keys = [key if count == index.views else None for key, count in zip(index.keys, there, strict=True)]
    found = replace(index, keys=keys, mean=float(mean), std=float(square - mean**2) ** 0.5)
    with atomic(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(asdict(found)))
    return found
