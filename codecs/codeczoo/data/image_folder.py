"""Pictures in a folder of any depth."""

from hashlib import sha256
from pathlib import Path

from codeczoo.core.errors import ConfigError
from codeczoo.data.module import PictureModule
from codeczoo.data.samples import FileSet, FilledFileSet
from codeczoo.data.transforms import Transform, training_recipe, validation_recipe
from codeczoo.io.files import find
from codeczoo.io.image import SUFFIXES


class ImageFolder(PictureModule):
    """All pictures below a folder: jpg, png, webp, avif and what else `codeczoo.io.image` reads.

    Corrupt and truncated files are skipped, counted in `skipped` and named in a warning at the end of each validation
    and every thousand batches; in training the next usable file takes their place.

    Args:
        root: folder of the training pictures.
        image_size: H = W of the default transforms, pixels.
        batch_size: per process.
        val_root: folder of the validation pictures.
        val_fraction: share of root that is kept for validation instead, in [0, 1); seed and names decide which files.
        workers: processes that read ahead.
        seed: of order, augmentation and split.
        train_transform: None is the published recipe: shorter side to image_size, random crop, flip.
        val_transform: None is the published recipe: shorter side to image_size, centre crop.

    Raises:
        ConfigError: both val_root and val_fraction, or a fraction that leaves nothing to train on.
        InputError: (on setup) a folder that does not exist or holds no pictures.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 256,
        batch_size: int = 32,
        val_root: str | None = None,
        val_fraction: float = 0.0,
        workers: int = 4,
        seed: int = 0,
        train_transform: Transform | None = None,
        val_transform: Transform | None = None,
    ) -> None:
        super().__init__(batch_size, seed, workers)
        if not 0 <= val_fraction < 1 or (val_root is not None and val_fraction):
            raise ConfigError(f"data: give val_root or a val_fraction in [0, 1), got {val_root!r} and {val_fraction}")
        self.root, self.val_root, self.val_fraction = Path(root), val_root, val_fraction
        self.train_transform = train_transform or training_recipe(image_size)
        self.val_transform = val_transform or validation_recipe(image_size)

    def setup(self, stage: str | None = None) -> None:
        """Lists the files. Does nothing the second time."""
        if self.train_set is not None:
            return
        train, val_root = pictures_below(self.root), self.root
        val = self._held_out(train)
        if val:
            train = sorted(set(train) - set(val))
        elif self.val_root is not None:
            val_root = Path(self.val_root)
            val = pictures_below(val_root)
        if not train:
            raise ConfigError(f"data: val_fraction {self.val_fraction} leaves none of {len(val)} pictures to train on")
        self.train_set = FilledFileSet(self.root, train, self.train_transform, self.seed)
        self.val_set = FileSet(val_root, val, self.val_transform, self.seed) if val else None

    def _held_out(self, paths: list[Path]) -> list[Path]:
        """The files whose hashed names are lowest: nearly the same ones when files are added."""
        count = max(1, round(len(paths) * self.val_fraction)) if self.val_fraction else 0
        return sorted(sorted(paths, key=self._lot)[:count])

    def _lot(self, path: Path) -> bytes:
        return sha256(f"{self.seed}/{path.relative_to(self.root).as_posix()}".encode(errors="surrogateescape")).digest()


def pictures_below(folder: Path) -> list[Path]:
    """All picture files below `folder`, sorted. Raises InputError when there is none."""
    return sorted(found.path for found in find([folder], SUFFIXES))
