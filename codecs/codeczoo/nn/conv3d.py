"""Convolutions of video: of every frame by itself, over time at every place, of both. Those over time are causal.

Signals are (B, C, T, H, W) in torch's channels_last_3d memory format: frames are then a batch (B T, C, H, W) of
pictures and all of it one picture (B, C, T, H W), so that neither of the first two kinds copies anything first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.nn.conv2d import conv2d
from codeczoo.nn.stream import Layer, Length

TimePad = Literal["replicate", "constant"]


def laid_out(x: Tensor) -> Tensor:
    """x (B, C, T, H, W) with its channels next to each other in memory; copied only where they are not."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def to_frames(x: Tensor) -> Tensor:
    """x (B, C, T, H, W) to pictures (B T, C, H, W)."""
    return laid_out(x).transpose(1, 2).flatten(0, 1)


def from_frames(frames: Tensor, batch: int, steps: int) -> Tensor:
    """Pictures (B T, C, H, W) to (B, C, T, H, W)."""
    return frames.unflatten(0, (batch, steps)).transpose(1, 2)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Signals (B, C, t, H, W) one after the other, laid out as they are."""
    return torch.cat([part.movedim(1, -1) for part in parts], 1).movedim(-1, 1)


def own(x: Tensor) -> Tensor:
    """A copy for a state, laid out as if it had come alone: a view would keep all of the piece that it is of."""
    return x.clone(memory_format=torch.channels_last_3d)


def _start(shape: Sequence[int]) -> nn.Parameter:
    return nn.Parameter(nn.init.kaiming_uniform_(torch.empty(*shape), a=5**0.5))


class FrameConv(Layer):
    """A convolution of every frame by itself, zeros around it.

    Args:
        inputs, outputs: channels.
        kernel, stride: rows, and columns alike.
        padding: zeros (in front, behind) of rows and columns; None: as many as keep the size at stride 1.
        bias: whether it adds one.
    """

    bias: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: tuple[int, int] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding or ((kernel - 1) // 2, kernel // 2)
        self.weight = _start([outputs, inputs, kernel, kernel])
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T, H, W) to (B, C', T, H', W')."""
        frames, (before, behind) = to_frames(x), self.padding
        if before != behind:
            frames, before = F.pad(frames, (before, behind, before, behind)), 0
        y = conv2d(frames, self.weight, self.bias, (self.stride,) * 2, (before,) * 2)
        return from_frames(y, len(x), x.shape[2])


class Causal(Layer):
    """Base: every step that comes out sees `kernel` steps, none of them later than it, at its own place or around it.

    Args:
        outputs: C', channels that come out.
        kernel, stride: in time; stride <= kernel.
        left: steps added in front; None: kernel - 1, so that the first step that comes out sees the first alone.
        pad: what they are, the first step ("replicate") or zeros ("constant").
    """

    def __init__(
        self, outputs: int, kernel: int, stride: int = 1, left: int | None = None, pad: TimePad = "replicate"
    ) -> None:
        super().__init__()
        self.outputs, self.reach, self.step_size = outputs, kernel, stride
        self.left, self.pad = kernel - 1 if left is None else left, pad

    def convolve(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) to (B, C', T', H, W), nothing added in front."""
        raise NotImplementedError

    def length(self, n: Length) -> Length:
        """See Layer."""
        return (n + self.left - self.reach) // self.step_size + 1

    def needs(self, n: int) -> int:
        """See Layer."""
        return max(1, (n - 1) * self.step_size + self.reach - self.left) if n else 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self.convolve(self._led(x))

    def _led(self, x: Tensor) -> Tensor:
        """x with what comes in front of it."""
        if not self.left:
            return x
        first = x[:, :, :1] if self.pad == "replicate" else torch.zeros_like(x[:, :, :1])
        return join([first.expand(-1, -1, self.left, -1, -1), x])

    def begin(self) -> "Held":
        """See Layer."""
        return Held()

    def step(self, x: Tensor, state: "Held", last: bool = False) -> Tensor:
        """See Layer."""
        if state.steps is not None:
            x = join([state.steps, x])
        elif x.shape[2]:
            x = self._led(x)
        windows = max(0, (x.shape[2] - self.reach) // self.step_size + 1)
        if x.shape[2]:
            state.steps = own(x[:, :, windows * self.step_size :])
        if windows:
            return self.convolve(x[:, :, : (windows - 1) * self.step_size + self.reach])
        return x.new_zeros(len(x), self.outputs, 0, *x.shape[3:])


@dataclass
class Held:
    """State of a causal layer in a stream.

    Args:
        steps: those that later ones still see, (B, C, t, H, W); None: nothing came yet.
    """

    steps: Tensor | None = None


class TimeConv(Causal):
    """A convolution over time at every place by itself.

    Args:
        inputs, outputs: channels.
        kernel, stride, left, pad: see Causal.
        bias: whether it adds one.
    """

    bias: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, left: int | None = None,
        pad: TimePad = "replicate", bias: bool = True,
    ) -> None:
        super().__init__(outputs, kernel, stride, left, pad)
        self.weight = _start([outputs, inputs, kernel])
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def convolve(self, x: Tensor) -> Tensor:
        """See Causal."""
        places = laid_out(x).flatten(3)  # (B, C, T, H W)
        taps = self.weight[..., None].contiguous(memory_format=torch.channels_last)  # five times as fast as without
        y = F.conv2d(places, taps, self.bias, (self.step_size, 1))
        return y.unflatten(3, x.shape[3:])


class Conv3d(Causal):
    """A convolution over frames and time, zeros around the frames.

    Args:
        inputs, outputs: channels.
        kernel: steps, rows and columns alike; odd.
        stride: in time.
        left, pad: see Causal.
        bias: whether it adds one.
    """

    bias: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, left: int | None = None,
        pad: TimePad = "replicate", bias: bool = True,
    ) -> None:
        super().__init__(outputs, kernel, stride, left, pad)
        self.weight = _start([outputs, inputs, kernel, kernel, kernel])
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def taps(self) -> tuple[Tensor, Tensor | None]:
        """The weight (C', C, kernel, kernel, kernel) and the bias that are convolved with."""
        return self.weight, self.bias

    def convolve(self, x: Tensor) -> Tensor:
        """See Causal."""
        weight, bias = self.taps()
        around = self.reach // 2
        return F.conv3d(laid_out(x), weight, bias, (self.step_size, 1, 1), (0, around, around))


class MixedConv3d(Conv3d):
    """Conv3d beside a mean of the steps that it sees, or its latest step, blended by a learned share.

    The mean of a strided one is that of all its steps; at stride 1 it is the latest step itself. As that is a
    convolution too, both run as one.

    Args:
        channels: in and out.
        stride: in time.
        left, pad: see Causal.
    """

    kernel = 3

    def __init__(self, channels: int, stride: int = 1, left: int | None = None, pad: TimePad = "replicate") -> None:
        super().__init__(channels, channels, self.kernel, stride, left, pad)
        self.mix = nn.Parameter(torch.tensor([2.0]))  # sigmoid(2) = 0.88 of the mean

    def taps(self) -> tuple[Tensor, Tensor | None]:
        """See Conv3d."""
        share = self.mix.sigmoid()
        steps = self.weight.new_full((self.kernel,), 1 / self.kernel)
        if self.step_size == 1:
            steps = self.weight.new_tensor([0.0] * (self.kernel - 1) + [1.0])
        same = torch.diag_embed(steps.expand(len(self.weight), -1).T).movedim(0, -1)  # (C, C, kernel)
        middle = self.kernel // 2
        weight = (1 - share) * self.weight
        mean = F.pad((share * same)[..., None, None], (middle, middle, middle, middle))  # as the weight
        assert self.bias is not None
        return weight + mean, (1 - share) * self.bias
