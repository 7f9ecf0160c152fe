"""What data modules of folders share: the list of files, and which of them are for validation."""

from pathlib import Path
from typing import Any

from codeczoo.core.errors import ConfigError
from codeczoo.data.media import Listing, Media, listing
from codeczoo.data.module import DataModule
from codeczoo.data.samples import FileSet, FilledFileSet


class FolderModule(DataModule):
    """Files below a folder, or those of a manifest (.jsonl or .csv with "path" and perhaps "duration").

    Args:
        root: folder or manifest of the training files.
        train_media: how they become x.
        val_media: how validation files do.
        batch_size: per process.
        val_root: folder or manifest of the validation files.
        val_fraction: share of root that is kept for validation instead, in [0, 1); seed and names decide which files.
        seed: of order, augmentation and split.
        workers: processes that read ahead.

    Raises:
        ConfigError: both val_root and val_fraction, or a fraction that leaves nothing to train on.
        InputError: (on setup) a folder that does not exist or holds no such files.
    """

    def __init__(
        self, root: str, train_media: Media, val_media: Media, batch_size: int, val_root: str | None,
        val_fraction: float, seed: int, workers: int,
    ) -> None:
        super().__init__(batch_size, seed, workers)
        if not 0 <= val_fraction < 1 or (val_root is not None and val_fraction):
            raise ConfigError(f"data: give val_root or a val_fraction in [0, 1), got {val_root!r} and {val_fraction}")
        self.root, self.val_root, self.val_fraction = Path(root), val_root, val_fraction
        self.train_media, self.val_media = train_media, val_media

    def setup(self, stage: str | None = None) -> None:
        """Lists the files. Does nothing the second time."""
        if self.train_set is not None:
            return
        train, val = self.files(self.root, self.train_media), None
        count = len(train.keys)
        if self.val_root is not None:
            val = self.files(Path(self.val_root), self.val_media)
        elif self.val_fraction:
            train, val = train.split(self.val_fraction, self.seed)
        if not train.keys:
            what = self.train_media.plural
            raise ConfigError(f"data: val_fraction {self.val_fraction} leaves none of {count} {what} to train on")
        self.train_set = self.training_files(train)
        self.val_set = None if val is None else self.validation_files(val)

    def files(self, root: Path, media: Media) -> Listing:
        """What there is in a folder or manifest for `media`."""
        return listing(root, media.suffixes)

    def training_files(self, files: Listing) -> Any:
        """The dataset of the training files."""
        return FilledFileSet(files, self.train_media, self.seed)

    def validation_files(self, files: Listing) -> Any:
        """The dataset of the validation files."""
        return FileSet(files, self.val_media, self.seed)
