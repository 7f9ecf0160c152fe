"""Convolutions over time: any padding, any stride, whole or piece by piece; transposed ones too.

Source: the padding of EnCodec's SConv1d (github.com/facebookresearch/encodec), the weight norm of arXiv 1602.07868.
Differs: batches may be padded, and each signal is then padded at its own end; streams give exactly what whole signals
give, with "reflect" padding too, whose first outputs wait for the samples that they mirror. Biases start at 0: torch's
start drowned quiet signals, so that small codecs took thousands of steps to let any of them through.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.nn import fast1d, fold1d
from codeczoo.nn.stream import Layer, Length, before, hide

PadMode = Literal["constant", "reflect", "replicate"]


@dataclass(frozen=True)
class Padding:
    """What a convolution adds to its signals.

    Args:
        left, right: steps at either end.
        mode: "constant" (zeros), "reflect" or "replicate".
        whole: add as much more on the right as makes the last window whole; else steps at the end may go unused.
    """

    left: int = 0
    right: int = 0
    mode: PadMode = "constant"
    whole: bool = False

    @staticmethod
    def same(
        kernel: int, stride: int = 1, dilation: int = 1, causal: bool = False, mode: PadMode = "constant"
    ) -> "Padding":
        """EnCodec's: ceil(T / stride) outputs; a causal convolution sees nothing later than the end of its stride."""
        total = (kernel - 1) * dilation + 1 - stride
        right = 0 if causal else total // 2
        return Padding(total - right, right, mode, whole=True)


class Conv1d(Layer):
    """A convolution with a plain weight.

    Args:
        inputs, outputs: channels.
        kernel, stride, dilation, groups: as of torch's.
        padding: see Padding; None: none.
        bias: whether it adds one.
    """

    bias: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1,
        padding: Padding | None = None, bias: bool = True,
    ) -> None:
        super().__init__()
        self.outputs, self.kernel, self.stride = outputs, kernel, stride
        self.dilation, self.groups, self.padding = dilation, groups, padding or Padding()
        self.reach = (kernel - 1) * dilation + 1  # steps from the first to the last tap
        self.pointwise = kernel == stride == 1 and not self.padding.left and not self.padding.right
        self.make_weight(nn.init.kaiming_uniform_(torch.empty(outputs, inputs // groups, kernel), a=5**0.5))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._packed = fast1d.Packed()

    def make_weight(self, start: Tensor) -> None:
        """Sets up the parameters of the weight (C', C / groups, kernel)."""
        self.weight = nn.Parameter(start)

    def taps(self) -> Tensor:
        """The weight that is convolved with, (C', C / groups, kernel)."""
        return self.weight

    def length(self, n: Length) -> Length:
        """See Layer."""
        spare = n + self.padding.left + self.padding.right - self.reach
        rounded = -(-spare // self.stride) if self.padding.whole else spare // self.stride
        return rounded + 1

    def needs(self, n: int) -> int:
        """See Layer."""
        return max(self._wait, (n - 1) * self.stride + self.reach - self.padding.left) if n else 0

    @property
    def _wait(self) -> int:
        """Steps without which the padding on the left is not known."""
        if self.padding.mode == "constant":
            return 0
        if self.padding.mode == "replicate":
            return 1
        return max(self.padding.left, self.padding.right + self.stride - 1) + 1

    def _right(self, n: int) -> int:
        """Steps to add behind n steps. Negative where the last ones go unused."""
        return (self.length(n) - 1) * self.stride + self.reach - self.padding.left - n

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        if lengths is not None:
            return self.convolve(self._pad_each(x, lengths))
        left, right, mode = self.padding.left, self._right(x.shape[2]), self.padding.mode
        if mode == "constant" and right >= 0 and self.fast(x):  # without a copy of x
            return self._packed.conv1d(x, self.taps(), self.bias, self.stride, self.dilation, (left, right))
        if right >= 0 and self._uncopied(x):
            return self._between(_edge(x, left, mode), x, _edge(x[:, :, -right - 1 :].flip(2), right, mode).flip(2))
        return self.convolve(pad(x, left, right, mode))

    def onto(self, total: Tensor, x: Tensor, lengths: Tensor | None = None, keep: bool = False) -> Tensor:
        """See Layer."""
        if self.pointwise and self.fast(x):
            return self._packed.conv1d(x, self.taps(), self.bias, plus=total.clone() if keep else total)
        return super().onto(total, x, lengths, keep)

    def convolve(self, x: Tensor) -> Tensor:
        """x (B, C, T) to (B, C', T'), without padding."""
        if self.fast(x):
            return self._packed.conv1d(x, self.taps(), self.bias, self.stride, self.dilation)
        if fold1d.applies(x, self.kernel, self.stride, self.dilation, self.groups):
            return fold1d.conv1d(x, self.taps(), self.bias, self.stride)
        return F.conv1d(x, self.taps(), self.bias, self.stride, 0, self.dilation, self.groups)

    def fast(self, x: Tensor) -> bool:
        """Whether kept weights are convolved with: see fast1d."""
        return self.groups == 1 and fast1d.applies(x)

    def _uncopied(self, x: Tensor) -> bool:
        """Whether `_between` is worth it, and x so long that no window sees both its ends."""
        ends = 2 * (self.reach + self.stride) + max(self.padding.left, self.padding.right)
        return x.numel() >= fast1d.LARGE and x.shape[2] > ends and self.fast(x)

    def _between(self, left: Tensor, x: Tensor, right: Tensor) -> Tensor:
        """left, x and right (B, C, *) joined to (B, C', T'), without padding, and without a copy of x.

        First with zeros in place of left and right, then the windows that see them again.
        """
        h, a, n = left.shape[2], right.shape[2], x.shape[2]
        y = self._packed.conv1d(x, self.taps(), self.bias, self.stride, self.dilation, (h, a))
        begin, end = -(-h // self.stride), max(0, (h + n - self.reach) // self.stride + 1)  # windows that see x alone
        if begin:
            seen = max(0, (begin - 1) * self.stride + self.reach - h)
            y[:, :, :begin] = self.convolve(fast1d.join([left, x[:, :, :seen]]))
        if end < y.shape[2]:
            first = end * self.stride - h  # behind x where strides are longer than kernels
            y[:, :, end:] = self.convolve(fast1d.join([x[:, :, first:], right[:, :, max(0, first - n) :]]))
        return y

    def _pad_each(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Every signal padded at its own end: (B, C, T) to (B, C, left + T + enough)."""
        left, mode = self.padding.left, self.padding.mode
        ends = self.length(lengths)
        right = (ends - 1) * self.stride + self.reach - left - lengths  # (B,)
        steps = left + int((lengths + right).max())
        source = torch.arange(steps, device=x.device) - left  # (P,)
        n = lengths[:, None]
        if mode == "constant":
            inside = (source >= 0) & (source < n)
            source = source.expand(len(n), -1)
        elif mode == "replicate":
            inside = torch.ones(len(n), steps, dtype=torch.bool, device=x.device)
            source = torch.minimum(source.clamp(min=0), n - 1)
        else:
            mirror = torch.maximum(n - 1, right[:, None].clamp(min=left))  # short signals get zeros before mirroring
            source = mirror - (mirror - source.abs()).abs()
            inside = source < n
        index = source.clamp(0, x.shape[2] - 1)[:, None].expand(-1, x.shape[1], -1)
        return torch.where(inside[:, None], x.gather(2, index), 0.0)

    def begin(self) -> "Window":
        """See Layer."""
        return Window()

    def step(self, x: Tensor, state: "Window", last: bool = False) -> Tensor:
        """See Layer."""
        past = state.held
        if not last and state.started and past is not None and state.used <= past.shape[2] and self._uncopied(x):
            return self._continue(x, state, past)
        held = x if state.held is None else fast1d.join([state.held, x])
        state.steps += x.shape[2]
        if not state.started:
            if last and state.steps:
                return self(held)
            if state.steps < max(self._wait, 1):
                state.held = held
                return x.new_zeros(x.shape[0], self.outputs, 0)
            held, state.started = pad(held, self.padding.left, 0, self.padding.mode), True
        if last:
            held = pad(held, 0, self._right(state.steps), self.padding.mode)
        windows = max(0, (held.shape[2] - state.used - self.reach) // self.stride + 1)
        fresh = held[:, :, state.used :]
        y = self.convolve(fresh) if windows else x.new_zeros(x.shape[0], self.outputs, 0)
        spare = self._use(windows, held.shape[2], state)
        state.held = held[:, :, spare:].clone()  # a view would keep all of the piece
        return y

    def _continue(self, x: Tensor, state: "Window", held: Tensor) -> Tensor:
        """A large piece, neither the first nor the last, without a copy of it.

        Its first window begins at one of the steps that are held, or just behind them.
        """
        state.steps += x.shape[2]
        y = self._between(held[:, :, state.used :], x, x[:, :, :0])
        spare = self._use(y.shape[2], held.shape[2] + x.shape[2], state) - held.shape[2]
        state.held = x[:, :, spare:].clone() if spare >= 0 else fast1d.join([held[:, :, spare:], x])
        return y

    def _use(self, windows: int, steps: int, state: "Window") -> int:
        """Of so many steps that are there, how many are needed no more once so many windows are out."""
        state.used += windows * self.stride
        spare = max(0, min(state.used, steps) - self._mirrored)
        state.used -= spare
        return spare

    @property
    def _mirrored(self) -> int:
        """Steps that padding on the right may look back to."""
        return {"constant": 0, "replicate": 1, "reflect": self.padding.right + self.stride}[self.padding.mode]


@dataclass
class Window:
    """State of a convolution in a stream.

    Args:
        held: the steps that are still needed, (B, C, t), padding on the left included.
        used: how many of them, and of those to come, no output needs any more; padding on the right may.
        steps: given so far.
        started: whether the padding on the left is there.
    """

    held: Tensor | None = None
    used: int = 0
    steps: int = 0
    started: bool = False


class ConvTranspose1d(Layer):
    """A transposed convolution with a plain weight, its output cut at both ends.

    Args:
        inputs, outputs: channels.
        kernel, stride, groups: as of torch's; kernel >= stride.
        left, right: steps cut from the (T - 1) * stride + kernel outputs; right <= kernel - stride.
        bias: whether it adds one.
    """

    bias: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, left: int = 0, right: int = 0, groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.outputs, self.kernel, self.stride, self.groups = outputs, kernel, stride, groups
        self.left, self.right = left, right
        self.make_weight(nn.init.kaiming_uniform_(torch.empty(inputs, outputs // groups, kernel), a=5**0.5))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._packed = fast1d.Packed()

    def make_weight(self, start: Tensor) -> None:
        """Sets up the parameters of the weight (C, C' / groups, kernel)."""
        self.weight = nn.Parameter(start)

    def taps(self) -> Tensor:
        """The weight that is convolved with, (C, C' / groups, kernel)."""
        return self.weight

    def length(self, n: Length) -> Length:
        """See Layer."""
        return (n - 1) * self.stride + self.kernel - self.left - self.right

    def needs(self, n: int) -> int:
        """See Layer."""
        return -(-(n + self.left) // self.stride) if n else 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        full = self.spread(hide(x, lengths), lengths)
        return full[:, :, self.left : full.shape[2] - self.right]

    def spread(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """x (B, C, T) to (B, C', (T - 1) * stride + kernel), not cut yet."""
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        if self.groups == 1 and fast1d.applies(x):
            return self._packed.conv_transpose1d(x, self.taps(), self.bias, self.stride)
        if fold1d.applies(x, self.kernel, self.stride, groups=self.groups):
            return fold1d.conv_transpose1d(x, self.taps(), self.bias, self.stride)
        return F.conv_transpose1d(x, self.taps(), self.bias, self.stride, 0, 0, self.groups)

    def begin(self) -> "Overlap":
        """See Layer."""
        return Overlap(cut=self.left)

    def step(self, x: Tensor, state: "Overlap", last: bool = False) -> Tensor:
        """See Layer."""
        done = x.shape[2] * self.stride
        if done:
            y = self._convolve(x)
            if state.tail is not None:
                y[:, :, : state.tail.shape[2]] += state.tail
            state.tail = y[:, :, done:].clone() if self.bias is None else y[:, :, done:] - self.bias[:, None]
        elif state.tail is None:
            return x.new_zeros(x.shape[0], self.outputs, 0)
        else:
            y = state.tail if self.bias is None else state.tail + self.bias[:, None]
        y = y[:, :, : y.shape[2] - self.right] if last else y[:, :, :done]
        cut = min(state.cut, y.shape[2])
        state.cut -= cut
        return y[:, :, cut:]


@dataclass
class Overlap:
    """State of a transposed convolution in a stream.

    Args:
        cut: steps still to be cut from its beginning.
        tail: (B, C', kernel - stride), what later steps add to; without the bias.
    """

    cut: int
    tail: Tensor | None = None


class _WeightNorm(nn.Module):
    """Weight g * v / |v|, with the norm over all axes but the first. Where no gradient is wanted it is kept."""

    def make_weight(self, start: Tensor) -> None:
        """Begins with g = |v|."""
        self.weight_g = nn.Parameter(start.flatten(1).norm(dim=1).view(-1, 1, 1))
        self.weight_v = nn.Parameter(start)
        self._kept = fast1d.Kept()

    def taps(self) -> Tensor:
        """The weight that is convolved with."""
        g, v = self.weight_g, self.weight_v
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return torch._weight_norm(v, g, 0)
        return self._kept.get(lambda: torch._weight_norm(v, g, 0), "norm", g, v)


class WeightNormConv1d(_WeightNorm, Conv1d):
    """Conv1d whose weight is normalised; names of the parameters as in torch's older weight_norm."""


class WeightNormConvTranspose1d(_WeightNorm, ConvTranspose1d):
    """ConvTranspose1d whose weight is normalised, for each input channel."""


class OverTime(nn.GroupNorm):
    """GroupNorm over groups of channels and all of time; of unequal signals each over its own.

    Args:
        channels: C.
        groups: of channels.
        eps: added to the variances.
    """

    def __init__(self, channels: int, groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__(groups, channels, eps)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T) to the same shape."""
        if lengths is None:
            return super().forward(x)
        inside = before(lengths, x.shape[2])[:, None, None]  # (B, 1, 1, T)
        grouped = x.unflatten(1, (self.num_groups, -1))  # (B, G, C / G, T)
        count = (lengths * grouped.shape[2]).view(-1, 1, 1, 1)
        mean = torch.where(inside, grouped, 0.0).sum((2, 3), keepdim=True) / count
        spread = torch.where(inside, grouped - mean, 0.0).square().sum((2, 3), keepdim=True) / count
        y = ((grouped - mean) * (spread + self.eps).rsqrt()).flatten(1, 2)  # (B, C, T)
        return y * self.weight[:, None] + self.bias[:, None]


class NormedConv1d(Conv1d):
    """Conv1d with OverTime behind it, which sees all of time."""

    stateless = "its normalisation is over all of time"

    def make_weight(self, start: Tensor) -> None:
        """See Conv1d."""
        super().make_weight(start)
        self.norm = OverTime(self.outputs)
        self.pointwise = False

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self.norm(super().forward(x, lengths), None if lengths is None else self.length(lengths))


class NormedConvTranspose1d(ConvTranspose1d):
    """ConvTranspose1d with OverTime behind it, before anything is cut."""

    stateless = NormedConv1d.stateless

    def make_weight(self, start: Tensor) -> None:
        """See ConvTranspose1d."""
        super().make_weight(start)
        self.norm = OverTime(self.outputs)

    def spread(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """See ConvTranspose1d."""
        whole = None if lengths is None else (lengths - 1) * self.stride + self.kernel
        return self.norm(super().spread(x, lengths), whole)


def pad(x: Tensor, left: int, right: int, mode: PadMode) -> Tensor:
    """x (B, C, T) with steps added at both ends; a negative `right` cuts.

    Signals that are too short to be mirrored are mirrored as if zeros followed, which are then cut off again.
    """
    if right < 0:
        return pad(x, left, 0, mode)[:, :, :right]
    if not left and not right:
        return x
    short = max(left, right) + 1 - x.shape[2]
    if fast1d.is_rows(x) and (mode == "constant" or short <= 0):
        return fast1d.join([_edge(x, left, mode), x, _edge(x[:, :, -right - 1 :].flip(2), right, mode).flip(2)])
    if mode != "reflect" or short <= 0:
        return F.pad(x, (left, right), mode)
    return F.pad(F.pad(x, (0, short)), (left, right), mode)[:, :, :-short]


def _edge(x: Tensor, n: int, mode: PadMode) -> Tensor:
    """The n steps that come before x (B, C, T)."""
    if mode == "reflect":
        return x[:, :, 1 : n + 1].flip(2)
    return x[:, :, :1].expand(-1, -1, n) if mode == "replicate" else x.new_zeros(*x.shape[:2], n)
