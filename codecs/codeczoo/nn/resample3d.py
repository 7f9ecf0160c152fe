"""Video made longer, larger or shorter without weights: repeated or blended steps, repeated pixels, steps cut off."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.nn.conv3d import Held, from_frames, join, laid_out, own, to_frames
from codeczoo.nn.stream import Layer, Length


@dataclass
class Left:
    """State: how many steps still have to be added or cut at the beginning."""

    steps: int


class TimeRepeat(Layer):
    """Every step twice, but for the first: n steps to 2 n - 1, or to 2 n.

    Args:
        first: how often the first step comes, 1 or 2.
    """

    def __init__(self, first: int = 1) -> None:
        super().__init__()
        self.cut = 2 - first

    def length(self, n: Length) -> Length:
        """See Layer."""
        return 2 * n - self.cut

    def needs(self, n: int) -> int:
        """See Layer."""
        return -(-(n + self.cut) // 2) if n else 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self._repeated(x, self.cut)

    def _repeated(self, x: Tensor, cut: int) -> Tensor:
        source = torch.arange(cut, 2 * x.shape[2], device=x.device) // 2
        return laid_out(x).movedim(1, -1).index_select(1, source).movedim(-1, 1)

    def begin(self) -> Left:
        """See Layer."""
        return Left(self.cut)

    def step(self, x: Tensor, state: Left, last: bool = False) -> Tensor:
        """See Layer."""
        cut = min(state.steps, x.shape[2])
        state.steps -= cut
        return self._repeated(x, cut)


class TimeBlend(Layer):
    """Linear interpolation to twice the steps, the first by itself: n steps to 2 n - 1.

    The first of the two that come of a step is blended with the step before it, the second with the one behind it.
    """

    def length(self, n: Length) -> Length:
        """See Layer."""
        return 2 * n - 1

    def needs(self, n: int) -> int:
        """See Layer."""
        return (n + 1) // 2 + 1 if n > 1 else n

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        first, rest = x[:, :, :1], x[:, :, 1:]
        if not rest.shape[2]:
            return first
        if lengths is not None:  # each signal ends with its own last step
            source = torch.arange(rest.shape[2], device=x.device).minimum((lengths - 2).clamp(min=0)[:, None])
            rest = rest.gather(2, source[:, None, :, None, None].expand_as(rest))
        return join([first, _between(join([rest[:, :, :1], rest, rest[:, :, -1:]]))[:, :, 1:-1]])

    def begin(self) -> Held:
        """See Layer: None before the first step, no step behind it, then the latest one."""
        return Held()

    def step(self, x: Tensor, state: Held, last: bool = False) -> Tensor:
        """See Layer."""
        first = x[:, :, :0]
        if state.steps is None:
            if not x.shape[2]:
                return x
            first, x = x[:, :, :1], x[:, :, 1:]
            state.steps = x[:, :, :0]
        starts = not state.steps.shape[2]
        held = join([x[:, :, :1] if starts else state.steps, x])
        state.steps = own(held[:, :, -1:])
        if not held.shape[2]:
            return first
        y = _between(join([held, held[:, :, -1:]]) if last else held)
        return join([first, y[:, :, int(starts) : y.shape[2] - int(last)]])


def _between(x: Tensor) -> Tensor:
    """Two steps between every step and the next: (B, C, t, H, W) to (B, C, 2 (t - 1), H, W)."""
    x = laid_out(x).movedim(1, -1)  # (B, t, H, W, C)
    a, b = x[:, :-1], x[:, 1:]
    return torch.stack([a.lerp(b, 0.25), b.lerp(a, 0.25)], 2).flatten(1, 2).movedim(-1, 1)


class Lead(Layer):
    """Copies of the first step in front.

    Args:
        steps: how many.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def length(self, n: Length) -> Length:
        """See Layer."""
        return n + self.steps

    def needs(self, n: int) -> int:
        """See Layer."""
        return max(1, n - self.steps) if n else 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return join([x[:, :, :1].expand(-1, -1, self.steps, -1, -1), x])

    def begin(self) -> Left:
        """See Layer."""
        return Left(self.steps)

    def step(self, x: Tensor, state: Left, last: bool = False) -> Tensor:
        """See Layer."""
        if not x.shape[2] or not state.steps:
            return x
        state.steps = 0
        return self(x)


class Cut(Layer):
    """Without the first steps.

    Args:
        steps: how many.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def length(self, n: Length) -> Length:
        """See Layer."""
        return n - self.steps

    def needs(self, n: int) -> int:
        """See Layer."""
        return n + self.steps if n else 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return x[:, :, self.steps :]

    def begin(self) -> Left:
        """See Layer."""
        return Left(self.steps)

    def step(self, x: Tensor, state: Left, last: bool = False) -> Tensor:
        """See Layer."""
        cut = min(state.steps, x.shape[2])
        state.steps -= cut
        return x[:, :, cut:]


class Enlarge(Layer):
    """Every pixel becomes 2 x 2."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T, H, W) to (B, C, T, 2 H, 2 W)."""
        if not x.numel():
            return x.new_zeros(*x.shape[:3], 2 * x.shape[3], 2 * x.shape[4])
        return from_frames(F.interpolate(to_frames(x), scale_factor=2.0, mode="nearest"), len(x), x.shape[2])


class Spread(Layer):
    """Four channels become the pixels of a square: (B, 4 C, T, H, W) to (B, C, T, 2 H, 2 W)."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return from_frames(F.pixel_shuffle(to_frames(x), 2), len(x), x.shape[2])
