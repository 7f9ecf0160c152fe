"""The validation of video."""

import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Prefix, TokenSpec
from codeczoo.engine.validation import Validation
from codeczoo.metrics.image import psnr, ssim
from codeczoo.metrics.video import over_frames

GAP = 4  # pixels between the clips of a contact sheet


class VideoValidation(Validation):
    """PSNR and SSIM, means over frames, at every number of streams that decodes; a contact sheet.

    Args:
        spec: of the codec.
        clips: in the contact sheet.
        frames: of each clip there, evenly spread over it.

    Raises:
        ConfigError: a codec of other media, or a number below 1.
    """

    measures = ("psnr", "ssim")
    prefix: Prefix = "streams"

    def __init__(self, spec: TokenSpec, clips: int = 4, frames: int = 5) -> None:
        if spec.media != "video":
            right = {"image": "pictures", "audio": "audio"}[spec.media]
            raise ConfigError(f"VideoValidation is for video; this codec takes {spec.media}: validation={right}")
        if min(clips, frames) < 1:
            raise ConfigError(f"validation: clips and frames must be at least 1, got {clips} and {frames}")
        n = len(spec.streams)
        super().__init__(spec, [(i + 1) / n for i in range(n)], clips)
        self.frames = frames

    def compare(self, x: Tensor, x_hat: Tensor, lengths: Tensor | None) -> list[Tensor]:
        """See Validation."""
        return [over_frames(measure, x, x_hat, lengths) for measure in (psnr, ssim)]

    def show(self, samples: list[Tensor]) -> Tensor:
        """Clips side by side, time to the right, originals above and then each prefix; see Validation."""
        columns = [self._column(sample) for sample in samples]  # (3, rows * H, frames * W) each
        height = min(column.shape[1] for column in columns)
        gap = torch.ones(3, height, GAP)
        parts = [part for column in columns for part in (column[:, :height], gap)]
        return torch.cat(parts[:-1], 2).clamp(0, 1)

    def _column(self, sample: Tensor) -> Tensor:
        length = sample.shape[2]
        places = torch.linspace(0, length - 1, min(self.frames, length)).round().long()
        shown = sample[:, :, places]  # (rows, 3, frames, H, W)
        return shown.permute(1, 0, 3, 2, 4).flatten(3, 4).flatten(1, 2)  # (3, rows * H, frames * W)
