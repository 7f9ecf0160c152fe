"""The validation of audio."""

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Prefix, TokenSpec
from codeczoo.engine.validation import Clip, Validation
from codeczoo.metrics.audio import mel_distance, si_sdr, stoi
from codeczoo.metrics.spectrum_picture import spectrum_picture


class AudioValidation(Validation):
    """Mel distance (less is better), SI-SDR and, where pystoi is installed, STOI; spectrograms and sounds.

    Args:
        spec: of the codec.
        shares: prefix lengths as shares of all codebooks; rising, last 1.
        clips: samples in the picture, and of how many originals and reconstructions are kept as files.
        seconds: of each that the picture shows.

    Raises:
        ConfigError: a codec without a sample rate.
    """

    prefix: Prefix = "codebooks"

    def __init__(
        self, spec: TokenSpec, shares: Sequence[float] = (1 / 8, 1 / 2, 1.0), clips: int = 4, seconds: float = 3.0
    ) -> None:
        if spec.sample_rate is None:
            raise ConfigError(f"AudioValidation is for audio; this codec takes {spec.media}: validation=pictures")
        self.with_stoi = find_spec("pystoi") is not None
        self.measures = ("mel", "si_sdr", "stoi") if self.with_stoi else ("mel", "si_sdr")
        super().__init__(spec, shares, clips)
        self.sample_rate, self.seconds = spec.sample_rate, seconds

    def compare(self, x: Tensor, x_hat: Tensor, lengths: Tensor | None) -> list[Tensor]:
        """See Validation."""
        found = [mel_distance(x, x_hat, self.sample_rate, lengths), si_sdr(x, x_hat, lengths)]
        return [*found, stoi(x, x_hat, self.sample_rate, lengths)] if self.with_stoi else found

    def show(self, samples: list[Tensor]) -> Tensor:
        """See Validation."""
        most = round(self.seconds * self.sample_rate)
        columns = [spectrum_picture(sample[..., :most], self.sample_rate) for sample in samples]  # (3, H, W) each
        gap = torch.ones(3, columns[0].shape[1], 2)
        return torch.cat([part for column in columns for part in (column, gap)][:-1], 2)

    def clips(self) -> list[Clip]:
        """Originals, and reconstructions from all codebooks."""
        return [
            Clip(str(number), sample[place].clamp(-1, 1), self.sample_rate, original=place == 0)
            for number, sample in enumerate(self.samples) for place in (0, -1)
        ]
