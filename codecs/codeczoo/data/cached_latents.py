"""Pictures with their latents out of a folder that `codeczoo latents` wrote."""

from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from codeczoo import zoo
from codeczoo.core.errors import ConfigError
from codeczoo.data.folder import FolderModule
from codeczoo.data.latents import LATENTS, SEED, LatentIndex
from codeczoo.data.media import Listing, Media, Pictures
from codeczoo.data.samples import FilledFileSet, Sample
from codeczoo.data.sampling import AUGMENT, Draw, generator, integer
from codeczoo.data.transforms import training_recipe, validation_recipe
from codeczoo.image.kl_vae import KLVAE

SPREAD = (0.5, 2.0)  # of scaled latents: outside, a flow learns badly
log = getLogger(__name__)


class CachedLatents(FolderModule):
    """Batches of pictures "x" and their scaled "latents", float32 (B, c, h, w), for codecs with a frozen KLVAE.

    The autoencoder of the codec must be the one that the latents are of, which its weights' hash tells.

    Args:
        cache: folder that `codeczoo latents` wrote.
        image_size: H = W of the codec, which must be that of the cache, pixels.
        batch_size: per process.
        root: folder of the training pictures where it is no longer that of the cache.
        val_root: folder or manifest of the validation pictures, which are encoded as everywhere.
        workers: processes that read ahead.
        seed: of order and views.

    Raises:
        InputError: no such folder, or (on setup) no pictures.
        ConfigError: another size, or (on setup) a codec with another autoencoder, or none.
    """

    def __init__(
        self, cache: str, image_size: int = 256, batch_size: int = 32, root: str | None = None,
        val_root: str | None = None, workers: int = 4, seed: int = 0,
    ) -> None:
        self.cache, self.index = Path(cache), LatentIndex.read(Path(cache))
        if self.index.image_size != image_size:
            raise ConfigError(f"data: the latents in {cache} are of {self.index.image_size} px, wanted {image_size}")
        train, val = Pictures(training_recipe(image_size)), Pictures(validation_recipe(image_size))
        super().__init__(root or self.index.root, train, val, batch_size, val_root, 0.0, seed, workers)

    def setup(self, stage: str | None = None) -> None:
        """Lists the pictures and makes sure of the autoencoder."""
        super().setup(stage)
        codec: Any = self.trainer.lightning_module.codec  # type: ignore[union-attr]
        self.train_set.adopt(find_vae(codec))

    def files(self, root: Path, media: Media) -> Listing:
        """See FolderModule; training pictures are those of the cache."""
        if media is not self.train_media:
            return super().files(root, media)
        keys = [key for key in self.index.keys if key is not None]
        return Listing(root, keys, [None] * len(keys))

    def training_files(self, files: Listing) -> "LatentSet":
        """See FolderModule."""
        return LatentSet(files, self.train_media, self.seed, self.cache, self.index)


def find_vae(codec: nn.Module) -> KLVAE:
    """The one autoencoder of a codec. Raises ConfigError."""
    found = [module for module in codec.modules() if isinstance(module, KLVAE)]
    if len(found) != 1:
        raise ConfigError(f"data=latents: {type(codec).__name__} has {len(found)} KL autoencoders; wanted one")
    return found[0]


class LatentSet(FilledFileSet):
    """Pictures of a cache, each in a view of its own choice.

    Args:
        files: those of the cache that could be read.
        media: how they become x.
        seed: of the views.
        cache: folder of the latents.
        index: of the cache.
    """

    def __init__(self, files: Listing, media: Media, seed: int, cache: Path, index: LatentIndex) -> None:
        super().__init__(files, media, SEED)
        self.views, self.view_seed, self.cache, self.index = index.views, seed, cache, index
        self.rows = np.flatnonzero([key is not None for key in index.keys])
        self.latents: np.ndarray[Any, Any] | None = None  # opened by each worker
        self.scale, self.shift = float("nan"), 0.0

    def adopt(self, vae: KLVAE) -> None:
        """Latents are scaled as by this autoencoder. Raises ConfigError when they are not its own."""
        digest = zoo.weights_hash(vae)
        if digest != self.index.vae:
            what = f"are of an autoencoder with weights {self.index.vae}, this codec's has {digest}"
            raise ConfigError(f"data: the latents in {self.cache} {what}; `codeczoo latents` makes them anew")
        self.scale, self.shift = vae.scale, vae.shift
        if not SPREAD[0] <= self.index.std * self.scale <= SPREAD[1]:
            told = f"codec.vae.scale={1 / self.index.std:.3g} brings it to 1"
            log.warning("latents in %s have a spread of %.3g; %s", self.cache, self.index.std * self.scale, told)

    def open(self, draw: Draw) -> Sample:
        """See FileSet."""
        if self.latents is None:
            self.latents = np.load(self.cache / LATENTS, mmap_mode="r")
        view = integer(self.views, generator(self.view_seed, AUGMENT, draw.number))
        row = int(self.rows[draw.sample])
        picture = super().open(Draw(view * len(self.index.keys) + row, draw.sample))
        latents = torch.from_numpy(self.latents[view, row].astype(np.float32))
        return picture | {"latents": (latents - self.shift) * self.scale}
