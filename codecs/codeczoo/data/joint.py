"""Batches of clips and batches of pictures in one training."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from lightning.pytorch import LightningDataModule

from codeczoo.core.errors import ConfigError
from codeczoo.data.module import DataModule, Loader, finished
from codeczoo.data.samples import Batch


class JointModule(LightningDataModule):
    """Batches of clips, and every now and then one of pictures, as clips of one frame.

    A batch is of one kind, on all ranks the same. Of the first n batches n * share, rounded down, are of pictures, so
    they come as evenly as they can. Each module keeps its own order, batch size, workers and place: a resumed run goes
    on with exactly the next batch where both of them do. Validation is on clips.
    Source: Cosmos Tokenizer, OmniTokenizer (alternating batches of pictures and clips).

    Args:
        clips: of video.
        pictures: of images.
        share: of the batches that are of pictures, above 0 and below 1.

    Raises:
        ConfigError: a share out of range.
    """

    def __init__(self, clips: DataModule, pictures: DataModule, share: float = 0.2) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ConfigError(f"data: share must be above 0 and below 1, got {share}")
        self.clips, self.pictures, self.share = clips, pictures, share
        self.workers = clips.workers + pictures.workers
        clips.counter = lambda: self.batches - self.of_pictures(self.batches)
        pictures.counter = lambda: self.of_pictures(self.batches)
        self._start = 0  # batches before the current training loader
        self._finished_before = 0  # batches that the trainer had finished by then
        self._resumed_at: int | None = None

    def of_pictures(self, batches: int) -> int:
        """How many of the first `batches` are of pictures."""
        return int(batches * self.share)

    @property
    def batches(self) -> int:
        """Batches that the trainer has finished since the first start."""
        return self._start + finished(self.trainer) - self._finished_before

    # ---- loaders ----

    def setup(self, stage: str | None = None) -> None:
        """Sets up both modules."""
        self.clips.setup(stage)
        self.pictures.setup(stage)

    def train_dataloader(self) -> "Mixture":
        """Endless batches from where the last loader, or the loaded state, stopped."""
        self._begin_at(self.batches if self._resumed_at is None else self._resumed_at)
        self._resumed_at = None
        return Mixture(self.clips.train_dataloader(), self.pictures.train_dataloader(), self.of_pictures, self._start)

    def val_dataloader(self) -> Loader | list[Any]:
        """Those of the clips."""
        return self.clips.val_dataloader()

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Plain values: batches so far, and the states of both modules."""
        states = {"clips": self.clips.state_dict(), "pictures": self.pictures.state_dict()}
        return {"batches": self.batches, **states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next training loader goes on after the batches of this state."""
        self._resumed_at = state_dict["batches"]
        self._begin_at(state_dict["batches"])
        self.clips.load_state_dict(state_dict["clips"])
        self.pictures.load_state_dict(state_dict["pictures"])

    def _begin_at(self, batches: int) -> None:
        self._start, self._finished_before = batches, finished(self.trainer)

    @property
    def skipped(self) -> int:
        """Samples that could not be used so far, of both."""
        return self.clips.skipped + self.pictures.skipped


class Mixture:
    """Batches out of two endless loaders.

    Args:
        clips: of video.
        pictures: of images.
        of_pictures: how many of the first n batches are of pictures.
        start: number of the first batch.
    """

    def __init__(self, clips: Loader, pictures: Loader, of_pictures: Callable[[int], int], start: int) -> None:
        self.clips, self.pictures, self.of_pictures, self.start = clips, pictures, of_pictures, start

    def __iter__(self) -> Iterator[Batch]:
        clips, pictures = iter(self.clips), iter(self.pictures)
        for number in count(self.start):
            if self.of_pictures(number + 1) == self.of_pictures(number):
                yield next(clips)
            else:
                batch = next(pictures)
                yield batch | {"x": batch["x"][:, :, None]}  # (B, 3, 1, H, W)
