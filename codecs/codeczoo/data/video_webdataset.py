"""Video in tar shards, local or by URL."""

from collections.abc import Sequence

from codeczoo.data.shard_module import ShardModule
from codeczoo.data.transforms import Transform, training_recipe, validation_recipe
from codeczoo.data.video_clips import Rate, TrainingVideo, ValidationVideo


class VideoWebDataset(ShardModule):
    """Video files in WebDataset tar shards, one random clip of each in each pass; see ShardModule.

    All clips of a batch have one length, the same on all ranks.

    Args:
        urls: shards: paths or URLs (http through curl, pipe:COMMAND, ...) with {000..123} for many; a string or a list.
        frames: lengths of clips, one of which is drawn for each batch.
        rates: frames per second, one of which is drawn for each clip, each a number or a range [low, high]; at most the
            file's own. None: its own.
        image_size: H = W of the default transforms, pixels.
        batch_size: per process.
        val_urls: shards for validation, read in order; None for none.
        val_frames: of each validation file, from its begin; shorter ones stay shorter.
        val_rate: frames per second there; None: the file's own.
        text: where the captions are: "txt" or e.g. "json.caption"; None reads none.
        shuffle: undecoded files held per worker, among which the next is drawn.
        workers: processes that read ahead; ranks x workers must not exceed the number of shards.
        seed: of order, clips and augmentation.
        train_transform: None is the published recipe: shorter side to image_size, random crop, flip.
        val_transform: None is the published recipe: shorter side to image_size, centre crop.
    """

    def __init__(
        self,
        urls: str | list[str],
        frames: Sequence[int] = (17,),
        rates: Sequence[Rate] | None = None,
        image_size: int = 128,
        batch_size: int = 8,
        val_urls: str | list[str] | None = None,
        val_frames: int = 17,
        val_rate: float | None = None,
        text: str | None = None,
        shuffle: int = 100,
        workers: int = 4,
        seed: int = 0,
        train_transform: Transform | None = None,
        val_transform: Transform | None = None,
    ) -> None:
        train = TrainingVideo(frames, rates, train_transform or training_recipe(image_size))
        val = ValidationVideo(val_frames, val_rate, val_transform or validation_recipe(image_size))
        super().__init__(urls, train, val, batch_size, val_urls, text, shuffle, seed, workers)
