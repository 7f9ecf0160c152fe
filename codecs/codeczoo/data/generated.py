"""Built-in pictures: a data module that needs no files."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.utils.data import Dataset

from codeczoo.data.module import DataModule
from codeczoo.data.pictures import generated_picture
from codeczoo.data.samples import Sample
from codeczoo.data.sampling import Draw

FIRST_VAL = 10**9  # validation samples are numbered from here, so that none is ever a training sample


class GeneratedPictures(DataModule):
    """Procedural pictures, `codeczoo.data.pictures.generated_picture`, drawn when they are needed.

    Args:
        image_size: H = W, pixels.
        batch_size: per process.
        n_train: different training pictures, at most 10^9.
        n_val: validation pictures; they are the same ones for every n_train.
        seed: of pictures and order.
        workers: processes that draw ahead.
    """

    def __init__(
        self,
        image_size: int = 64,
        batch_size: int = 32,
        n_train: int = 50_000,
        n_val: int = 64,
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        super().__init__(batch_size, seed, workers)
        self.image_size, self.n_train, self.n_val = image_size, n_train, n_val

    def setup(self, stage: str | None = None) -> None:
        """Nothing is made ahead."""
        make = partial(generated_picture, self.seed, size=self.image_size)
        self.train_set = GeneratedSet(make, self.seed, 0, self.n_train)
        self.val_set = GeneratedSet(make, self.seed, FIRST_VAL, self.n_val) if self.n_val else None


class GeneratedSet(Dataset[Sample]):
    """`count` generated samples from number `first` on; keys are their numbers. `make` takes the number."""

    def __init__(self, make: Callable[[int], Tensor], seed: int, first: int, count: int) -> None:
        self.make, self.seed, self.first, self.count = make, seed, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, draw: Draw) -> Sample:
        number = self.first + draw.sample
        return {"x": self.make(number), "key": f"generated-{self.seed}-{number}"}
