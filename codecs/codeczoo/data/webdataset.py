"""Pictures in tar shards, local or by URL."""

from codeczoo.data.media import Pictures
from codeczoo.data.shard_module import ShardModule
from codeczoo.data.transforms import Transform, training_recipe, validation_recipe


class WebDataset(ShardModule):
    """Pictures, perhaps with captions, in WebDataset tar shards; see ShardModule for order, resuming and errors.

    Args:
        urls: shards: paths or URLs (http through curl, pipe:COMMAND, ...) with {000..123} for many; a string or a list.
        image_size: H = W of the default transforms, pixels.
        batch_size: per process.
        val_urls: shards for validation, read in order; None for none.
        text: where the captions are: "txt" or e.g. "json.caption"; None reads none.
        shuffle: samples held per worker, among which the next is drawn.
        workers: processes that read ahead; ranks x workers must not exceed the number of shards.
        seed: of order and augmentation.
        train_transform: None is the published recipe: shorter side to image_size, random crop, flip.
        val_transform: None is the published recipe: shorter side to image_size, centre crop.
    """

    def __init__(
        self,
        urls: str | list[str],
        image_size: int = 256,
        batch_size: int = 32,
        val_urls: str | list[str] | None = None,
        text: str | None = None,
        shuffle: int = 1000,
        workers: int = 4,
        seed: int = 0,
        train_transform: Transform | None = None,
        val_transform: Transform | None = None,
    ) -> None:
        train = Pictures(train_transform or training_recipe(image_size))
        val = Pictures(val_transform or validation_recipe(image_size))
        super().__init__(urls, train, val, batch_size, val_urls, text, shuffle, seed, workers)
