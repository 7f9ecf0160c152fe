"""Built-in moving pictures: a data module that needs no files."""

from functools import partial

from codeczoo.data.films import generated_film
from codeczoo.data.generated import FIRST_VAL, GeneratedSet
from codeczoo.data.module import DataModule


class GeneratedVideo(DataModule):
    """Procedural films, `codeczoo.data.films.generated_film`, drawn when they are needed.

    Args:
        image_size: H = W, pixels.
        frames: T of a clip.
        rate: frames per second.
        batch_size: per process.
        n_train: different training films, at most 10^9.
        n_val: validation films; they are the same ones for every n_train.
        seed: of films and order.
        workers: processes that draw ahead.
    """

    def __init__(
        self,
        image_size: int = 64,
        frames: int = 17,
        rate: float = 12.0,
        batch_size: int = 8,
        n_train: int = 50_000,
        n_val: int = 32,
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        super().__init__(batch_size, seed, workers)
        self.image_size, self.frames, self.rate = image_size, frames, rate
        self.n_train, self.n_val = n_train, n_val

    def setup(self, stage: str | None = None) -> None:
        """Nothing is made ahead."""
        make = partial(generated_film, self.seed, size=self.image_size, frames=self.frames, rate=self.rate)
        self.train_set = GeneratedSet(make, self.seed, 0, self.n_train)
        self.val_set = GeneratedSet(make, self.seed, FIRST_VAL, self.n_val) if self.n_val else None
