"""Audio in tar shards, local or by URL."""

from codeczoo.data.audio_folder import samples_of
from codeczoo.data.clips import TrainingClips, ValidationClips
from codeczoo.data.shard_module import ShardModule
from codeczoo.data.transforms import Transform


class AudioWebDataset(ShardModule):
    """Audio in WebDataset tar shards, one random segment of each file in each pass; see ShardModule.

    Args:
        urls: shards: paths or URLs (http through curl, pipe:COMMAND, ...) with {000..123} for many; a string or a list.
        sample_rate: of the codec, Hz.
        channels: of the codec; mono is the mean of all, stereo from mono is a copy.
        segment: seconds of a training sample; shorter files are filled up with zeros.
        batch_size: per process.
        val_urls: shards for validation, read in order; None for none.
        val_seconds: at most so many of each validation file, from its begin; None takes all.
        random_channel: mono from one channel, drawn for each segment, instead of the mean.
        silence: dB below full scale; segments that are weaker are drawn again. None keeps them.
        shuffle: undecoded files held per worker, among which the next is drawn.
        workers: processes that read ahead; ranks x workers must not exceed the number of shards.
        seed: of order, segments and augmentation.
        train_transform: of segments, from `data.audio_transforms`; None: none. Beyond [-1, 1] all are turned down.
        val_transform: of validation clips.
    """

    def __init__(
        self,
        urls: str | list[str],
        sample_rate: int = 24_000,
        channels: int = 1,
        segment: float = 1.0,
        batch_size: int = 32,
        val_urls: str | list[str] | None = None,
        val_seconds: float | None = None,
        random_channel: bool = False,
        silence: float | None = -60.0,
        shuffle: int = 1000,
        workers: int = 4,
        seed: int = 0,
        train_transform: Transform | None = None,
        val_transform: Transform | None = None,
    ) -> None:
        samples = round(segment * sample_rate)
        train = TrainingClips(sample_rate, channels, samples, train_transform, random_channel, silence, workers)
        val = ValidationClips(sample_rate, channels, samples_of(val_seconds, sample_rate), val_transform)
        super().__init__(urls, train, val, batch_size, val_urls, None, shuffle, seed, workers)
