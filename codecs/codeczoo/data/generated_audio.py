"""Built-in sounds: a data module that needs no files."""

from functools import partial

from codeczoo.data.generated import FIRST_VAL, GeneratedSet
from codeczoo.data.module import DataModule
from codeczoo.data.sounds import generated_sound


class GeneratedAudio(DataModule):
    """Procedural sounds, `codeczoo.data.sounds.generated_sound`, made when they are needed.

    Args:
        sample_rate: Hz.
        channels: C.
        segment: seconds of a sample.
        batch_size: per process.
        n_train: different training sounds, at most 10^9.
        n_val: validation sounds; they are the same ones for every n_train.
        seed: of sounds and order.
        workers: processes that make them ahead.
    """

    def __init__(
        self,
        sample_rate: int = 24_000,
        channels: int = 1,
        segment: float = 1.0,
        batch_size: int = 32,
        n_train: int = 50_000,
        n_val: int = 32,
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        super().__init__(batch_size, seed, workers)
        self.sample_rate, self.channels, self.segment = sample_rate, channels, segment
        self.n_train, self.n_val = n_train, n_val

    def setup(self, stage: str | None = None) -> None:
        """Nothing is made ahead."""
        samples = round(self.segment * self.sample_rate)
        make = partial(
            generated_sound, self.seed, sample_rate=self.sample_rate, samples=samples, channels=self.channels
        )
        self.train_set = GeneratedSet(make, self.seed, 0, self.n_train)
        self.val_set = GeneratedSet(make, self.seed, FIRST_VAL, self.n_val) if self.n_val else None
