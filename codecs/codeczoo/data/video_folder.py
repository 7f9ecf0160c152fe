"""Video files and folders of frames in a folder of any depth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codeczoo.core.errors import CodeczooError, ConfigError
from codeczoo.data.folder import FolderModule
from codeczoo.data.media import Listing, Media, manifest
from codeczoo.data.samples import FilledFileSet
from codeczoo.data.segments import SegmentSet, durations
from codeczoo.data.transforms import Transform, training_recipe, validation_recipe
from codeczoo.data.video_clips import Rate, TrainingVideo, ValidationVideo
from codeczoo.io import image
from codeczoo.io.files import find
from codeczoo.io.video import info


class VideoFolder(FolderModule):
    """All video below a folder: what `codeczoo.io.video` reads, and folders of pictures, each of which is a clip.

    Training takes random clips, which are sought, not decoded up to; frames are chosen by their time stamps. All clips
    of a batch, on all ranks, have one length. Corrupt and truncated files are skipped, counted in `skipped` and named
    in a warning; another file takes their place.

    Args:
        root: folder of the training files, or a manifest (see FolderModule) of files and folders of frames.
        frames: lengths of clips, one of which is drawn for each batch.
        rates: frames per second, one of which is drawn for each clip, each a number or a range [low, high]; at most the
            file's own. None: its own.
        image_size: H = W of the default transforms, pixels.
        batch_size: per process.
        val_root: folder or manifest of the validation files.
        val_fraction: share of root that is kept for validation instead, in [0, 1); seed and names decide which files.
        val_frames: of each validation file, from its begin; shorter ones stay shorter.
        val_rate: frames per second there; None: the file's own.
        segment: each pass draws a file as often as so many seconds fit into it; None: once.
        workers: processes that decode and transform ahead.
        seed: of order, clips, augmentation and split.
        train_transform: None is the published recipe: shorter side to image_size, random crop, flip.
        val_transform: None is the published recipe: shorter side to image_size, centre crop.

    Raises:
        ConfigError: both val_root and val_fraction, or lengths, rates or a segment out of range.
        InputError: (on setup) a folder that does not exist or holds no video.
    """

    def __init__(
        self,
        root: str,
        frames: Sequence[int] = (17,),
        rates: Sequence[Rate] | None = None,
        image_size: int = 128,
        batch_size: int = 8,
        val_root: str | None = None,
        val_fraction: float = 0.0,
        val_frames: int = 17,
        val_rate: float | None = None,
        segment: float | None = None,
        workers: int = 4,
        seed: int = 0,
        train_transform: Transform | None = None,
        val_transform: Transform | None = None,
    ) -> None:
        train = TrainingVideo(frames, rates, train_transform or training_recipe(image_size))
        val = ValidationVideo(val_frames, val_rate, val_transform or validation_recipe(image_size))
        super().__init__(root, train, val, batch_size, val_root, val_fraction, seed, workers)
        if segment is not None and segment <= 0:
            raise ConfigError(f"data: segment must be above 0 seconds or null, got {segment}")
        self.segment = segment

    def files(self, root: Path, media: Media) -> Listing:
        """See FolderModule."""
        return manifest(root) if root.is_file() else clips_below(root, media.suffixes)

    def training_files(self, files: Listing) -> Any:
        """See FolderModule."""
        if self.segment is None:
            return FilledFileSet(files, self.train_media, self.seed)
        return SegmentSet(files, durations(files, _seconds), self.train_media, self.seed, self.segment)


def clips_below(root: Path, suffixes: Sequence[str]) -> Listing:
    """Files with `suffixes` below a folder, and folders that hold pictures and no such files, sorted.

    Raises InputError when there is neither.
    """
    found = [match.path for match in find([root], (*suffixes, *image.SUFFIXES))]
    files = {path for path in found if path.suffix.lower() in suffixes}
    folders = {path.parent for path in found} - {path.parent for path in files}
    keys = sorted(path.relative_to(root) for path in files | folders)
    return Listing(root, [key.as_posix() for key in keys], [None] * len(keys))


def _seconds(path: Path) -> float:
    try:
        return info(path).duration or 0.0
    except CodeczooError:
        return 0.0
