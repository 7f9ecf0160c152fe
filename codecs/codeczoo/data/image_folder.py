"""Pictures in a folder of any depth."""

from codeczoo.data.folder import FolderModule
from codeczoo.data.media import Pictures
from codeczoo.data.transforms import Transform, training_recipe, validation_recipe


class ImageFolder(FolderModule):
    """All pictures below a folder: jpg, png, webp, avif and what else `codeczoo.io.image` reads.

    Corrupt and truncated files are skipped, counted in `skipped` and named in a warning at the end of each validation
    and every thousand batches; in training the next usable file takes their place.

    Args:
        root: folder of the training pictures, or a manifest (see FolderModule).
        image_size: H = W of the default transforms, pixels.
        batch_size: per process.
        val_root: folder or manifest of the validation pictures.
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
        train = Pictures(train_transform or training_recipe(image_size))
        val = Pictures(val_transform or validation_recipe(image_size))
        super().__init__(root, train, val, batch_size, val_root, val_fraction, seed, workers)
