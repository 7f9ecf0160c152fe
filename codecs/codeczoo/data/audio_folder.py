"""Audio files in a folder of any depth."""

from hashlib import sha256
from typing import Any

import numpy as np

from codeczoo.core.errors import CodeczooError, ConfigError
from codeczoo.data.clips import TrainingClips, ValidationClips
from codeczoo.data.folder import FolderModule
from codeczoo.data.media import Listing
from codeczoo.data.samples import FilledFileSet
from codeczoo.data.segments import SegmentSet, durations
from codeczoo.data.transforms import Transform
from codeczoo.io.audio import info


class AudioFolder(FolderModule):
    """All audio below a folder, of any rate and number of channels: what `codeczoo.io.audio` reads.

    Training takes random segments, which are sought, not decoded up to. Corrupt and truncated files are skipped,
    counted in `skipped` and named in a warning; another file takes their place, as it does for silent ones, whose
    segments are counted in `silent`. Validation clips come longest first, so that a batch holds clips of like length.

    Args:
        root: folder of the training files, or a manifest (see FolderModule), whose durations save a look at each file.
        sample_rate: of the codec, Hz.
        channels: of the codec; mono is the mean of all, stereo from mono is a copy.
        segment: seconds of a training sample; shorter files are filled up with zeros.
        batch_size: per process.
        val_root: folder or manifest of the validation files.
        val_fraction: share of root that is kept for validation instead, in [0, 1); seed and names decide which files.
        val_seconds: at most so many of each validation file, from its begin; None takes all.
        by_duration: each pass draws a file as often as segments fit into it; else once.
        random_channel: mono from one channel, drawn for each segment, instead of the mean.
        silence: dB below full scale; segments that are weaker are drawn again. None keeps them.
        workers: processes that read, resample and transform ahead.
        seed: of order, segments, augmentation and split.
        train_transform: of segments, from `data.audio_transforms`; None: none. Beyond [-1, 1] all are turned down.
        val_transform: of validation clips.

    Raises:
        ConfigError: both val_root and val_fraction, or a segment below one sample.
        InputError: (on setup) a folder that does not exist or holds no audio.
    """

    def __init__(
        self,
        root: str,
        sample_rate: int = 24_000,
        channels: int = 1,
        segment: float = 1.0,
        batch_size: int = 32,
        val_root: str | None = None,
        val_fraction: float = 0.0,
        val_seconds: float | None = None,
        by_duration: bool = True,
        random_channel: bool = False,
        silence: float | None = -60.0,
        workers: int = 4,
        seed: int = 0,
        train_transform: Transform | None = None,
        val_transform: Transform | None = None,
    ) -> None:
        train = TrainingClips(
            sample_rate, channels, round(segment * sample_rate), train_transform, random_channel, silence, workers
        )
        val = ValidationClips(sample_rate, channels, samples_of(val_seconds, sample_rate), val_transform)
        super().__init__(root, train, val, batch_size, val_root, val_fraction, seed, workers)
        self.segment, self.val_seconds, self.by_duration = segment, val_seconds, by_duration
        self.clips = train

    def training_files(self, files: Listing) -> Any:
        """See FolderModule."""
        if not self.by_duration:
            return FilledFileSet(files, self.train_media, self.seed)
        return SegmentSet(files, durations(files, _seconds), self.train_media, self.seed, self.segment)

    def validation_files(self, files: Listing) -> Any:
        """See FolderModule; those of one length are mixed, so that a picture of the first ones shows different ones."""
        seconds = np.minimum(durations(files, _seconds), self.val_seconds or np.inf).round(1)
        lots = [sha256(key.encode(errors="surrogateescape")).digest() for key in files.keys]
        return super().validation_files(files.part(sorted(range(len(lots)), key=lambda i: (-seconds[i], lots[i]))))

    @property
    def silent(self) -> int:
        """Training segments that were drawn again so far."""
        return self.clips.silent.total


def _seconds(path: Any) -> float:
    try:
        return info(path).duration or 0.0
    except CodeczooError:
        return 0.0


def samples_of(seconds: float | None, sample_rate: int) -> int | None:
    """Samples in so many seconds, at least one; None stays. Raises ConfigError."""
    if seconds is None:
        return None
    if round(seconds * sample_rate) < 1:
        raise ConfigError(f"data: val_seconds must be at least one sample, got {seconds}")
    return round(seconds * sample_rate)
