"""Losses of pictures, for clips."""

from torch import Tensor

from codeczoo.losses.base import MediaTerm
from codeczoo.nn.frames import as_frames, draw_frames, take_frames


class Frames(MediaTerm):
    """A term of pictures on frames of clips, the same ones of x and x_hat.

    A network that looks at every frame of a clip takes many times the memory of the codec; a few frames of each, drawn
    anew in every batch, have the same mean.
    Source: OmniTokenizer and magvit2-pytorch (one frame), VidTok (all).

    Args:
        term: of pictures (B, 3, H, W).
        frames: of each clip; None: all.
    """

    def __init__(self, term: MediaTerm, frames: int | None = None) -> None:
        super().__init__()
        self.term, self.frames = term, frames

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, 3, T, H, W) to the term's scalar."""
        if self.frames is None:
            return self.term.compare(as_frames(x), as_frames(x_hat))
        which = draw_frames(x, self.frames)
        return self.term.compare(take_frames(x, which), take_frames(x_hat, which))
