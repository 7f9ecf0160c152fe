"""Layers over time that run over a whole signal, over padded batches of unequal signals, or piece by piece.

A stream has a state for every layer, made by `begin` and changed by `step`; the module itself stays untouched, so any
number of streams may take turns on it. Pieces of any length, also empty ones, give what `forward` gives of the whole.
Signals are (B, C, T), those of video (B, C, T, H, W): time is always axis 2.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from codeczoo.core.errors import InputError
from codeczoo.nn import fast1d

Length = TypeVar("Length", int, Tensor)


class Layer(nn.Module):
    """Base: (B, C, T) to (B, C', T'). As it stands, for layers that treat every step of time by itself.

    Attributes:
        stateless: why it cannot run piece by piece, for messages; empty where it can.
        pointwise: whether it is known that every step that comes out depends on the same step that goes in alone.
    """

    stateless: str = ""
    pointwise: bool = False

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T) to (B, C', T').

        Args:
            x: the signals.
            lengths: int64 (B,), steps of each signal; what lies behind them changes nothing before `length(lengths)`.
                None: all of them.
        """
        raise NotImplementedError

    def onto(self, total: Tensor, x: Tensor, lengths: Tensor | None = None, keep: bool = False) -> Tensor:
        """total + forward(x, lengths). Some layers add at once, in the memory of total unless it is to be kept."""
        return total + self(x, lengths)

    def length(self, n: Length) -> Length:
        """Steps that come out of n steps."""
        return n

    def needs(self, n: int) -> int:
        """Steps that must have been given to `step` before the first n of its steps come, the end not in sight."""
        return n

    def begin(self) -> Any:
        """The state of a new stream."""
        return None

    def step(self, x: Tensor, state: Any, last: bool = False) -> Tensor:
        """The next piece x (B, C, t) to what can be told by now, (B, C', t'); `last` says that nothing follows."""
        return self(x)

    def check_streamable(self) -> None:
        """Raises InputError where a part cannot run piece by piece."""
        if self._hindrance:
            raise InputError(f"{type(self).__name__} cannot run piece by piece: {self._hindrance}")

    @property
    def streams(self) -> bool:
        """Whether all parts can run piece by piece."""
        return not self._hindrance

    @property
    def _hindrance(self) -> str:
        return next((part.stateless for part in self.modules() if isinstance(part, Layer) and part.stateless), "")


class Identity(Layer):
    """Changes nothing."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return x


class ELU(Layer):
    """exp(x) - 1 below 0."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return nn.functional.elu(x)


class SiLU(Layer):
    """x * sigmoid(x)."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return nn.functional.silu(x)


class Tanh(Layer):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return x.tanh()


class Chain(nn.Sequential, Layer):
    """Layers one after the other.

    Args:
        layers: in order; where they have names, parameters are called by them.

    Attributes:
        checkpointing: recompute each layer in backward: less memory, about a third more time.
    """

    checkpointing: bool = False

    def __init__(self, layers: Iterable[Layer] | Mapping[str, Layer]) -> None:
        named = layers if isinstance(layers, Mapping) else {str(i): layer for i, layer in enumerate(layers)}
        super().__init__(OrderedDict(named))

    @property
    def layers(self) -> Sequence[Layer]:
        """In order."""
        return list(self)  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self._through(self.layers, x, lengths)[0]

    def onto(self, total: Tensor, x: Tensor, lengths: Tensor | None = None, keep: bool = False) -> Tensor:
        """See Layer."""
        *front, tail = self.layers
        x, lengths = self._through(front, x, lengths)
        return _added(total, tail, x, lengths, keep)

    def _through(self, layers: Sequence[Layer], x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What comes out of these layers, and its lengths."""
        for layer in layers:
            if self.checkpointing and torch.is_grad_enabled() and not isinstance(layer, Chain):
                x = checkpoint(layer, x, lengths, use_reentrant=False)
            else:
                x = layer(x, lengths)
            lengths = None if lengths is None else layer.length(lengths)
        return x, lengths

    def length(self, n: Length) -> Length:
        """See Layer."""
        for layer in self.layers:
            n = layer.length(n)
        return n

    def needs(self, n: int) -> int:
        """See Layer."""
        for layer in reversed(self.layers):
            n = layer.needs(n)
        return n

    def begin(self) -> list[Any]:
        """See Layer."""
        return [layer.begin() for layer in self.layers]

    def step(self, x: Tensor, state: list[Any], last: bool = False) -> Tensor:
        """See Layer."""
        return steps(self.layers, x, state, last)


def steps(layers: Sequence[Layer], x: Tensor, states: Sequence[Any], last: bool) -> Tensor:
    """The next piece x (B, C, t) through layers one after the other, each with its state."""
    for layer, own in zip(layers, states, strict=True):
        x = layer.step(x, own, last)
    return x


class Coder(Chain):
    """One half of a codec.

    Attributes:
        hop: samples a latent.
        dim: D, channels of the latents.
        channels: C, of the waveform.
        widest: channels of the largest signal, where it has as many steps as the waveform; 0: none that long.
    """

    hop: int
    dim: int
    channels: int
    widest: int = 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer. Long signals go through in pieces, as in `step`."""
        if lengths is None and len(self._pieces(x)) > 1 and self.streams:
            return self.step(x, self.begin(), last=True)
        return super().forward(x, lengths)

    def step(self, x: Tensor, state: list[Any], last: bool = False) -> Tensor:
        """See Layer. Where no gradient is wanted on a CPU, in pieces no larger than fast1d.MOST."""
        *pieces, end = self._pieces(x)
        parts = [super(Coder, self).step(piece, state) for piece in pieces]
        y = super().step(end, state, last)
        return fast1d.join([*parts, y]) if parts else y

    def _pieces(self, x: Tensor) -> Sequence[Tensor]:
        if not fast1d.applies(x):
            return [x]
        samples = len(x) * max(x.shape[2], self.length(x.shape[2]))
        n = max(1, -(-samples * self.widest // fast1d.MOST))
        return x.split(-(-x.shape[2] // n), 2)


class VideoCoder(Chain):
    """One half of a video codec: 1 + f n frames to 1 + n latents, or back.

    Attributes:
        stride: (f, h, w), frames, rows and columns a latent.
        dim: D, channels of the latents.
    """

    stride: tuple[int, int, int]
    dim: int


class Sum(Layer):
    """The sum of branches that see the same signal and keep its length.

    Args:
        branches: at least one.
    """

    def __init__(self, branches: Iterable[Layer]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    @property
    def layers(self) -> Sequence[Layer]:
        """The branches."""
        return list(self.branches)  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        first, *others = self.layers
        return reduce(lambda total, layer: _added(total, layer, x, lengths, self._keep), others, first(x, lengths))

    @property
    def _keep(self) -> bool:
        """Whether what the first branch gives is not its own."""
        return isinstance(self.layers[0], Identity)

    def needs(self, n: int) -> int:
        """See Layer."""
        return max(branch.needs(n) for branch in self.layers)

    def begin(self) -> list["Waiting"]:
        """See Layer: what one branch gave before another."""
        return [Waiting(branch.begin()) for branch in self.layers]

    def step(self, x: Tensor, state: list["Waiting"], last: bool = False) -> Tensor:
        """See Layer. What waits in the last branch has its last layer still before it, where that is pointwise."""
        *others, main = self.layers
        layers = main.layers if isinstance(main, Chain) else []
        tail = layers[-1] if layers and layers[-1].pointwise else None
        for branch, own in zip(others, state[:-1], strict=True):
            own.add(branch.step(x, own.state, last))
        inner = state[-1].state
        state[-1].add(main.step(x, inner, last) if tail is None else steps(layers[:-1], x, inner[:-1], last))
        ready = min(own.steps for own in state)
        *totals, rest = [own.take(ready) for own in state]
        total = reduce(torch.add, totals)
        if tail is None:
            return total + rest
        return _added(total, tail, rest, None, self._keep) if ready else total


def _added(total: Tensor, layer: Layer, x: Tensor, lengths: Tensor | None, keep: bool) -> Tensor:
    """`onto` where no gradient is wanted on a CPU and nobody listens to the call, as FSDP does."""
    if fast1d.applies(x) and not layer._forward_pre_hooks and not layer._forward_hooks:
        return layer.onto(total, x, lengths, keep)
    return total + layer(x, lengths)


class Waiting:
    """Steps of a signal that nobody has taken yet.

    Args:
        state: of the layer that gives them.
    """

    def __init__(self, state: Any = None) -> None:
        self.state = state
        self.held: Tensor | None = None

    @property
    def steps(self) -> int:
        """How many wait."""
        return 0 if self.held is None else self.held.shape[2]

    def add(self, x: Tensor) -> Tensor:
        """Appends x (B, C, t, *S); returns all that waits."""
        self.held = x if not self.steps else fast1d.join([self._all(), x])
        return self.held

    def take(self, n: int) -> Tensor:
        """The first n steps, (B, C, n, *S), which wait no longer."""
        held = self._all()
        self.held = held[:, :, n:].clone()  # a view would keep all of it
        return held[:, :, :n]

    def _all(self) -> Tensor:
        assert self.held is not None
        return self.held


def before(lengths: Tensor, steps: int) -> Tensor:
    """Which of `steps` steps lie before the end of each signal, bool (B, steps)."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def hide(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, C, T, *S) with 0 behind the end of each signal."""
    if lengths is None:
        return x
    inside = before(lengths, x.shape[2])
    return torch.where(inside.view(len(x), 1, -1, *[1] * (x.ndim - 3)), x, x.new_zeros(()))
