"""Learns a context model (io/context.py) from tokens: a small network for each digit of each codebook."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.io.context import BITS, EMBED_BITS, LARGEST, ContextModel, Plane, Tap, View
from codeczoo.io.neighbours import AROUND, PAST

WHOLE_CODES = 2**14  # entries of a codebook that is still coded without digits
NEAR = 2  # earlier planes of a stream that are looked at around a position; more of them only at it
MOST = 8  # earlier planes, and planes of a coarser stream, that a plane looks at
ROWS = 512  # positions of a step, for each plane
TESTED = 20_000  # positions that are validated with, at most, for each plane
LARGEST_ACTIVATION = LARGEST / 2**BITS

Rows = NDArray[np.int64]


@dataclass
class Seen:
    """What a plane was asked and what was right.

    Args:
        values: of its taps, (n, taps).
        digits: (n,).
    """

    values: list[Rows] = field(default_factory=list)
    digits: list[Rows] = field(default_factory=list)

    def joined(self) -> tuple[Tensor, Tensor]:
        """All of it."""
        return torch.from_numpy(np.concatenate(self.values)).long(), torch.from_numpy(np.concatenate(self.digits))


def factors_of(vocab_size: int) -> tuple[int, ...]:
    """How the codes of a codebook are cut where nothing is said: not at all, or into digits of like size."""
    parts = 1
    while (radix := _root(vocab_size, parts)) > (WHOLE_CODES if parts == 1 else 256):
        parts += 1
    return (vocab_size,) if parts == 1 else (*[radix] * (parts - 1), -(-vocab_size // radix ** (parts - 1)))


def _root(value: int, degree: int) -> int:
    """The smallest whole number whose power is at least `value`."""
    root = round(value ** (1 / degree))
    return root + 1 if root**degree < value else root


def planes_of(spec: TokenSpec, factors: Sequence[int] | None) -> list[Plane]:
    """The planes of a codec's tokens and what each looks at.

    Args:
        spec: of the codec.
        factors: values of the digits of the codes of codebooks that have as many entries as their product, the first
            changes fastest; None: `factors_of`.

    Raises:
        InputError: no codebook has as many entries.
    """
    if factors and all(prod(factors) != v for stream in spec.streams for v in stream.vocab_sizes):
        raise InputError(f"digits of {list(factors)} make {prod(factors)} codes, which no codebook has")
    total = sum(n > 1 for stream in spec.streams for v in stream.vocab_sizes for n in _digits(v, factors))
    planes: list[Plane] = []
    for s, stream in enumerate(spec.streams):
        axes, fixed = len(stream.axes), len(stream.axes) == 1 and stream.shape[0] is not None
        own: list[int] = []
        for k, vocab_size in enumerate(stream.vocab_sizes):
            digits = _digits(vocab_size, factors)
            for i, radix in enumerate(digits):
                if radix == 1:
                    continue
                number = len(planes)
                taps = [Tap(number, offset) for offset in PAST[axes]]
                taps += [Tap(one, (0,) * axes) for one in own[-MOST:]]
                taps += [Tap(one, offset) for one in own[-NEAR:] for offset in AROUND[axes]]
                taps += [Tap(one, ()) for one in _coarser(planes, spec, s)]
                taps += [Tap(total + s, ())] if fixed else []
                planes.append(Plane(s, k, prod(digits[:i]), radix, tuple(taps)))
                own.append(number)
    return planes


def _digits(vocab_size: int, factors: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(factors) if factors and prod(factors) == vocab_size else factors_of(vocab_size)


def _coarser(planes: Sequence[Plane], spec: TokenSpec, stream: int) -> list[int]:
    """Planes of the stream before that a stream looks at: one on a grid of as many axes."""
    before = stream - 1
    if before < 0 or len(spec.streams[before].axes) != len(spec.streams[stream].axes):
        return []
    return [i for i, one in enumerate(planes) if one.stream == before][-MOST:]


class Net(nn.Module):
    """The model in floats: logarithms to base 2 of what each value of a plane counts.

    Args:
        planes: of the codec.
        positions: as ContextModel has them.
        counts: how often each value of each plane occurs, (radix,) each.
        dim: of embeddings.
        width: of hidden layers.
    """

    def __init__(
        self, planes: Sequence[Plane], positions: Sequence[int], counts: Sequence[Tensor], dim: int, width: int
    ) -> None:
        super().__init__()
        self.planes = planes
        sources = {tap.source for plane in planes for tap in plane.taps}
        sizes = {i: planes[i].radix if i < len(planes) else positions[i - len(planes)] for i in sources}
        self.embed = nn.ParameterDict({str(i): nn.Parameter(torch.randn(n + 1, dim)) for i, n in sizes.items()})
        self.parts = nn.ModuleList()
        for plane, count in zip(planes, counts, strict=True):
            start = {
                "mix": torch.randn(len(plane.taps), dim, width) / (len(plane.taps) * dim) ** 0.5,
                "first_bias": torch.zeros(width),
                "second": torch.randn(width, width) / width**0.5,
                "second_bias": torch.zeros(width),
                "out": torch.zeros(width, plane.radix),
                "out_bias": _often(count).log2(),
            }
            self.parts.append(nn.ParameterDict(start))

    def forward(self, number: int, values: Tensor) -> Tensor:
        """Logits (n, radix) given the values of the plane's taps (n, taps)."""
        part, taps = self._part(number), self.planes[number].taps
        seen = torch.cat([F.embedding(values[:, i], self.embed[str(tap.source)]) for i, tap in enumerate(taps)], 1)
        first = (seen @ part["mix"].flatten(0, 1) + part["first_bias"]).clamp(0, LARGEST_ACTIVATION)
        hidden = (first @ part["second"] + part["second_bias"]).clamp(0, LARGEST_ACTIVATION)
        return hidden @ part["out"] + part["out_bias"]

    def _part(self, number: int) -> nn.ParameterDict:
        part = self.parts[number]
        assert isinstance(part, nn.ParameterDict)
        return part

    def whole(self) -> dict[str, Tensor]:
        """The weights as ContextModel takes them."""
        state = {f"embed.{name}": _whole(value, EMBED_BITS) for name, value in self.embed.items()}
        for number in range(len(self.planes)):
            for name, value in self._part(number).items():
                bits = 2 * BITS if name in ("second_bias", "out_bias") else BITS
                state[f"{number}.{name}"] = _whole(value, bits, torch.int32 if name.endswith("bias") else torch.int16)
        return state


def _whole(value: Tensor, bits: int, dtype: torch.dtype = torch.int16) -> Tensor:
    most = LARGEST if dtype == torch.int16 else 2**31 - 1
    return (value.detach().double() * 2**bits).round().clamp(-most, most).to(dtype)


@dataclass(frozen=True)
class Fitted:
    """A learned model and what it is worth on the tokens that it was validated with.

    Args:
        header, state: of the ContextModel.
        codes: how many codes of each codebook, coarse to fine, were looked at.
        uniform, unigram, context: bits of a code of each codebook: all entries alike, by their frequency in the
            training tokens, by the model in whole numbers.
        steps: of training.
    """

    header: dict[str, Any]
    state: dict[str, Tensor]
    codes: list[int]
    uniform: list[float]
    unigram: list[float]
    context: list[float]
    steps: int


def fit(
    train: Sequence[Tokens],
    val: Sequence[Tokens],
    *,
    codec: str,
    weights_hash: str,
    spec: TokenSpec,
    factors: Sequence[int] | None = None,
    minutes: float = 5.0,
    steps: int | None = None,
    dim: int = 16,
    width: int = 48,
    lr: float = 3e-3,
    most: int = 300_000,
    seed: int = 0,
    shown: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Fitted:
    """Learns a model.

    Args:
        train: tokens to learn from, at full length.
        val: others, that choose the weights.
        codec: its name.
        weights_hash: of the codec.
        spec: of the codec.
        factors: see `planes_of`.
        minutes: of training, at most.
        steps: of training, at most; None: as many as the minutes allow.
        dim: of embeddings.
        width: of hidden layers.
        lr: learning rate, which falls to 0.
        most: positions to learn from, for each plane.
        seed: of all that is drawn.
        shown: goes through the hundredths of the time, e.g. with a bar.

    Raises:
        InputError: nothing to learn from, grids of more than three axes, or factors that do not fit.
    """
    if any(len(stream.axes) not in PAST for stream in spec.streams):
        raise InputError("context models are for grids of one to three axes")
    planes = planes_of(spec, factors)
    positions = [int(s.shape[0] or 0) if len(s.axes) == 1 else 0 for s in spec.streams]
    header = {
        "codec": codec, "weights_hash": weights_hash, "positions": positions,
        "planes": [[p.stream, p.codebook, p.place, p.radix, [[t.source, [*t.offset]] for t in p.taps]] for p in planes],
    }
    random = np.random.default_rng(seed)
    looked, held = _look(header, planes, train, most, random), _look(header, planes, val, TESTED, random)
    if not all(one.digits for one in (*looked, *held)):
        raise InputError("there are codebooks without codes: give tokens at full length, to learn from and to validate")
    data, tests = [one.joined() for one in looked], [one.joined() for one in held]
    counts = [torch.bincount(d, minlength=plane.radix).float() for plane, (_, d) in zip(planes, data, strict=True)]
    torch.manual_seed(seed)
    net = Net(planes, positions, counts, dim, width)
    done, state = _train(net, data, tests, minutes, steps, lr, shown)
    return _measured(header, state, planes, counts, tests, spec, done)


def _look(
    header: dict[str, Any], planes: Sequence[Plane], tokens: Sequence[Tokens], most: int, random: np.random.Generator
) -> list[Seen]:
    """What each plane sees in some tokens, at about `most` positions drawn evenly from all of them."""
    found, model = [Seen() for _ in planes], ContextModel(header, {})
    each = -(-most // max(1, len(tokens)))
    for one in tokens:
        view = View(model)
        for s, codes in enumerate(one.streams):
            valid = np.arange(codes.shape[2]) < one.stream_lengths(s).numpy()[:, None]
            for k in range(codes.shape[1]):
                view.add(s, k, valid, codes[:, k].numpy())
                for number in model.planes_of(s, k):
                    grid = view.grids[s]
                    kept = np.sort(random.permutation(len(grid))[:each])
                    found[number].values.append(view.seen(number).at(kept).T.astype(np.int32))
                    found[number].digits.append(view.values[number][grid.flat[kept]])
    return found


def _train(
    net: Net, data: Sequence[tuple[Tensor, Tensor]], tests: Sequence[tuple[Tensor, Tensor]],
    minutes: float, most: int | None, lr: float, shown: Callable[[Sequence[int]], Iterable[int]],
) -> tuple[int, dict[str, Tensor]]:
    """Trains until the time or the steps are up. Gives the steps, and the whole weights that validated best."""
    def over() -> float:
        return max((time.monotonic() - begun) / (60 * minutes), step / most if most else 0.0)

    optimizer = torch.optim.AdamW(net.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.01)
    begun, step, best, state = time.monotonic(), 0, float("inf"), net.whole()
    generator = torch.Generator().manual_seed(0)
    for hundredth in shown(range(1, 101)):
        while (share := over()) < hundredth / 100 or not step:
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / 50) * max(0.0, 1 - share)
            optimizer.zero_grad()
            for number, (values, digits) in enumerate(data):
                rows = torch.randint(len(digits), (ROWS,), generator=generator)
                _bits(net(number, values[rows]), digits[rows]).mean().backward()
            optimizer.step()
            step += 1
        if hundredth % 10 == 0 and (bits := _validated(net, tests)) < best:
            best, state = bits, net.whole()
    return step, state


def _bits(logits: Tensor, digits: Tensor) -> Tensor:
    return F.cross_entropy(logits * np.log(2), digits, reduction="none") / np.log(2)


@torch.no_grad()
def _validated(net: Net, tests: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Bits of a position of all planes."""
    return sum(float(_bits(net(i, values), digits).mean()) for i, (values, digits) in enumerate(tests))


def _measured(
    header: dict[str, Any], state: dict[str, Tensor], planes: Sequence[Plane], counts: Sequence[Tensor],
    tests: Sequence[tuple[Tensor, Tensor]], spec: TokenSpec, steps: int,
) -> Fitted:
    model = ContextModel(header, state)
    codes, uniform, unigram, context = [], [], [], []
    for s, stream in enumerate(spec.streams):
        for k in range(len(stream.vocab_sizes)):
            own = model.planes_of(s, k)
            codes.append(len(tests[own[0]][1]) if own else 0)
            uniform.append(float(np.log2([planes[i].radix for i in own]).sum()))
            unigram.append(sum(-float(_often(counts[i])[tests[i][1]].log2().mean()) for i in own))
            context.append(sum(float(np.mean([*_cost(model, i, tests[i])])) for i in own))
    return Fitted(header, state, codes, uniform, unigram, context, steps)


def _often(counts: Tensor) -> Tensor:
    return (counts + 0.5) / (counts + 0.5).sum()


def _cost(model: ContextModel, number: int, test: tuple[Tensor, Tensor]) -> Iterator[float]:
    """Bits of each digit by the model of whole numbers."""
    for values, digits in zip(test[0].split(1000), test[1].split(1000), strict=True):
        weights = model.weights(number, values.T.numpy()) + 1
        own = np.take_along_axis(weights, digits[:, None].numpy(), 1)[:, 0]
        yield from np.log2(weights.sum(1) / own).tolist()
