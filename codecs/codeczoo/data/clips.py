"""Audio files to clips of a codec's rate and channels: random segments for training, beginnings for validation."""

from pathlib import Path

from torch import Generator, Tensor
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.data.media import Media, Redraw, Tally
from codeczoo.data.sampling import integer
from codeczoo.data.transforms import Transform
from codeczoo.io.audio import SUFFIXES, info, read, resampled_length
from codeczoo.io.channels import to_channels

TRIES = 8  # segments of a file that are drawn before it is left for another one


class TrainingClips(Media):
    """A random segment of a file, float (C, samples); shorter files are filled up with zeros.

    Args:
        sample_rate: of the codec, Hz.
        channels: C of the codec.
        samples: of a segment.
        transform: of every segment, or None.
        random_channel: where the codec is mono and the file is not, one channel instead of the mean of all.
        silence: dB; segments whose root mean square is below are drawn again, and counted in `silent`. None keeps them.
        workers: that will read.
    """

    plural = "clips"
    suffixes: tuple[str, ...] = SUFFIXES

    def __init__(
        self, sample_rate: int, channels: int, samples: int, transform: Transform | None, random_channel: bool,
        silence: float | None, workers: int,
    ) -> None:
        if min(sample_rate, channels, samples) < 1:
            got = f"{samples}, {channels} and {sample_rate}"
            raise ConfigError(f"data: samples of a segment, channels and sample_rate must be at least 1, got {got}")
        self.sample_rate, self.channels, self.samples = sample_rate, channels, samples
        self.transform, self.random_channel, self.silence = transform, random_channel, silence
        self.silent = Tally(workers)

    def __call__(self, source: Path | bytes, random: Generator) -> Tensor:
        for _ in range(TRIES):
            x = self._cut(source, random)
            if self.silence is None or float(x.square().mean()) > 10 ** (self.silence / 10):
                return limited(self._fill(x) if self.transform is None else self.transform(self._fill(x), random))
            self.silent.add()
        raise Redraw(f"{TRIES} segments were silent, below {self.silence} dB")

    def _cut(self, source: Path | bytes, random: Generator) -> Tensor:
        about = info(source)
        total = int((about.duration or 0) * self.sample_rate)
        if about.frames is not None:
            total = resampled_length(about.frames, about.rate, self.sample_rate)
        start = integer(max(0, total - self.samples) + 1, random)
        try:
            x, _ = read(source, self.sample_rate, start, self.samples)
        except InputError:
            if about.frames is not None or not start:
                raise
            x, _ = read(source, self.sample_rate, 0, self.samples)  # it is shorter than its header says
        if self.random_channel and self.channels == 1:
            x = x[integer(len(x), random), None]
        return to_channels(x, self.channels)

    def _fill(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.samples - x.shape[1])) if x.shape[1] < self.samples else x


class ValidationClips(Media):
    """The beginning of a file, or all of it, float (C, T).

    Args:
        sample_rate: of the codec, Hz.
        channels: C of the codec.
        samples: at most so many; None takes all.
        transform: of every clip, or None.
    """

    plural = "clips"
    suffixes: tuple[str, ...] = SUFFIXES

    def __init__(self, sample_rate: int, channels: int, samples: int | None, transform: Transform | None) -> None:
        self.sample_rate, self.channels, self.samples, self.transform = sample_rate, channels, samples, transform

    def __call__(self, source: Path | bytes, random: Generator) -> Tensor:
        x = to_channels(read(source, self.sample_rate, 0, self.samples)[0], self.channels)
        return limited(x if self.transform is None else self.transform(x, random))


def limited(x: Tensor) -> Tensor:
    """Turned down to [-1, 1] where it is beyond."""
    peak = float(x.abs().max())
    return x / peak if peak > 1 else x
