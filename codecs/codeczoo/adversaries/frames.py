"""Discriminators of pictures, for clips."""

from torch import Tensor, nn

from codeczoo.core.errors import InputError
from codeczoo.nn.frames import as_frames, draw_frames, take_frames


class FrameDiscriminator(nn.Module):
    """A discriminator of pictures that judges frames of clips, each as a sample of its own.

    Source: VidTok (all frames), OmniTokenizer (one).

    Args:
        discriminator: pictures (B, C, H, W) to logits (B, ...).
        frames: of each clip, drawn anew in every call; None: all.
    """

    def __init__(self, discriminator: nn.Module, frames: int | None = None) -> None:
        super().__init__()
        self.discriminator, self.frames = discriminator, frames

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) in [0, 1] to logits (B * frames, ...). Raises InputError for another shape."""
        if x.ndim != 5:
            raise InputError(f"FrameDiscriminator takes (B, C, T, H, W), got {tuple(x.shape)}")
        pictures = as_frames(x) if self.frames is None else take_frames(x, draw_frames(x, self.frames))
        return self.discriminator(pictures)
