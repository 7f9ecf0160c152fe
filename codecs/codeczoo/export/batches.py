"""A codec at work in batches, while threads read and write files; memory does not grow with their number."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import accumulate
from math import log2
from operator import itemgetter
from typing import Literal, TypeVar

import torch
from torch import Tensor

from codeczoo.core.base import Codec
from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.io.context import ContextModel

A = TypeVar("A")
B = TypeVar("B")
TOGETHER = 60.0  # seconds of audio in a batch, padding and channels counted
PIXELS = 2**20  # of video in a batch
NICE = 10  # of threads that read and write; 0 is that of the codec's
WINDOW = 4  # batches that are read together, of media of many sizes; as much is read while they are at work


def longest(spec: TokenSpec) -> dict[str, int | None]:
    """Most positions, codebooks and streams of a sample; None where it follows the size of the media."""
    return {
        "positions": spec.streams[0].shape[0],
        "codebooks": max(len(s.vocab_sizes) for s in spec.streams),
        "streams": len(spec.streams),
    }


def quality_prefix(spec: TokenSpec) -> str | None:
    """The kind of prefix that is quality for bits: the codec's first one of a fixed number; None where it has none."""
    most = longest(spec)
    return next((kind for kind in spec.prefixes if most[kind] is not None), None)


@dataclass(frozen=True)
class Prefix:
    """How much of the tokens to keep; None: all of them. The names are those of the options."""

    positions: int | None = None
    codebooks: int | None = None
    streams: int | None = None

    def check(self, spec: TokenSpec) -> "Prefix":
        """Returns self. Raises InputError for a prefix that a codec with this spec never decodes."""
        most = longest(spec)
        for field in fields(self):
            n, limit = getattr(self, field.name), most[field.name]
            if n is None:
                continue
            if field.name not in spec.prefixes:
                can = f"prefixes of {', '.join(spec.prefixes)} only" if spec.prefixes else "whole tokens only"
                raise InputError(f"--{field.name}: this codec decodes {can}")
            if n < 1 or (limit is not None and n > limit):
                raise InputError(f"--{field.name} must be 1..{limit or 'any'}, got {n}")
        return self

    def of(self, tokens: Tokens) -> Tokens:
        """The prefix of tokens that are there already. Clips of fewer positions are kept whole."""
        positions = self.positions
        if positions is not None and tokens.spec.streams[0].shape[0] is None:
            positions = min(positions, tokens.streams[0].shape[2])
        return tokens.prefix(positions=positions, codebooks=self.codebooks, streams=self.streams)


def kbps_of(spec: TokenSpec) -> list[float]:
    """Kilobits a second of the first 1, 2 .. K codebooks of a codec with one stream, for uniformly used codes."""
    stream = spec.streams[0]
    return [stream.rate * bits / 1000 for bits in accumulate(map(log2, stream.vocab_sizes))]


def at_kbps(spec: TokenSpec, kbps: float) -> int:
    """The most codebooks that take at most `kbps` kilobits a second, or 2 % more: rates are named roughly.

    Raises InputError where not even the first fits, or where the codec has no rate.
    """
    if spec.unit != "second" or len(spec.streams) != 1:
        raise InputError(f"--kbps: this codec has no bits a second but bits per {spec.unit}")
    rates = kbps_of(spec)
    if "codebooks" not in spec.prefixes:
        rates = rates[-1:]
    fitting = [rate for rate in rates if rate <= 1.02 * kbps]
    if not fitting:
        raise InputError(f"--kbps {kbps:g}: the rates of this codec are {', '.join(f'{r:.4g}' for r in rates)}")
    return len(spec.streams[0].vocab_sizes) - len(rates) + len(fitting)


@dataclass(frozen=True)
class Runner:
    """A codec at work.

    Args:
        codec: in eval mode, on its device.
        name: what the codec is called in headers.
        weights_hash: `zoo.weights_hash` of it.
        batch: most samples at once.
        precision: "bf16" runs the matrix products in bfloat16, which changes a few codes.
        context: model that .cz files are written and may be read with.
    """

    codec: Codec
    name: str
    weights_hash: str
    batch: int = 8
    precision: Literal["float32", "bf16"] = "float32"
    context: ContextModel | None = None

    @property
    def device(self) -> torch.device:
        """Where the codec's weights are."""
        return next(self.codec.parameters()).device

    def encode(self, xs: Sequence[Tensor], prefix: Prefix) -> list[Tokens]:
        """Samples (C, *spatial) each to tokens, a batch of one each, on the CPU."""

        def run(chosen: list[Tensor]) -> list[Tokens]:
            x = torch.stack(chosen).to(self.device)  # (B, C, *spatial)
            tokens = self.codec.encode(
                x, n_positions=prefix.positions, n_codebooks=prefix.codebooks, n_streams=prefix.streams
            ).to("cpu")
            return [tokens[i] for i in range(tokens.batch)]

        with torch.inference_mode(), self.autocast():
            return in_groups(xs, lambda x: tuple(x.shape), self.batch, run)

    def decode(self, samples: Sequence[Tokens]) -> list[Tensor]:
        """Tokens, a batch of one each, to samples (C, *spatial) float32, on the CPU.

        Those that differ in the first axis alone are padded to batches: pictures of other prefixes, other durations.
        """

        def run(chosen: list[Tokens]) -> list[Tensor]:
            n = self._together(chosen[-1])
            parts = [chosen[i : i + n] for i in range(0, len(chosen), n)]
            return [x_hat for part in parts for x_hat in self._decode_batch(part)]

        order = sorted(range(len(samples)), key=lambda i: samples[i].streams[0].shape[2])
        with torch.inference_mode(), self.autocast():
            decoded = in_groups([samples[i] for i in order], _shapes, self.batch, run)
        return [x_hat for _, x_hat in sorted(zip(order, decoded, strict=True), key=itemgetter(0))]

    def pieces(self, made: Iterable[Tensor]) -> Iterator[Tensor]:
        """What the codec makes piece by piece, each as `decode` would: float32, on the CPU."""
        coming = iter(made)
        while True:
            with torch.inference_mode(), self.autocast():
                piece = next(coming, None)
            if piece is None:
                return
            yield piece.float().cpu()

    def _decode_batch(self, chosen: Sequence[Tokens]) -> list[Tensor]:
        x_hat = self.codec.decode(Tokens.stack(chosen).to(self.device)).float().cpu()
        if self.codec.spec.media == "image":
            return list(x_hat)
        return [own[:, : _duration(tokens)] for own, tokens in zip(x_hat, chosen, strict=True)]

    def _together(self, tokens: Tokens) -> int:
        """How many samples are decoded at once that are no longer: TOGETHER seconds of audio, or pixels of video."""
        if tokens.spec.media == "image":
            return self.batch
        most = PIXELS if tokens.spec.media == "video" else TOGETHER * (tokens.spec.sample_rate or 1)
        return max(1, min(self.batch, int(most / int(tokens.size.prod()))))

    def autocast(self) -> torch.autocast:
        """The context that `precision` asks for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _shapes(tokens: Tokens) -> Hashable:
    """What is the same in a padded batch."""
    size = tokens.size[0].tolist() if tokens.spec.media == "image" else tokens.size[0, 1:].tolist()
    return (*((codes.shape[1], *codes.shape[3:]) for codes in tokens.streams), *size)


def _duration(tokens: Tokens) -> int:
    """Samples or frames that one sample of audio or video decodes to."""
    size, stride = int(tokens.size[0, 0]), tokens.spec.streams[0].stride
    return size if stride is None else min(size, 1 + (tokens.streams[0].shape[2] - 1) * stride[0])


def in_groups(
    items: Sequence[A], key: Callable[[A], Hashable], most: int, run: Callable[[list[A]], list[B]]
) -> list[B]:
    """`run` on items of equal key, at most `most` at once; results in the order of the items."""
    groups: dict[Hashable, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(key(item), []).append(i)
    results: dict[int, B] = {}
    for members in groups.values():
        for start in range(0, len(members), most):
            chosen = members[start : start + most]
            results.update(zip(chosen, run([items[i] for i in chosen]), strict=True))
    return [results[i] for i in range(len(items))]


def threaded(items: Iterable[A], run: Callable[[A], B], ahead: int) -> Generator[B, None, None]:
    """`run` of every item, in order, by threads that are at most `ahead` items in front. For reading and writing."""
    pending: deque[Future[B]] = deque()
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="files", initializer=_give_way)
    try:
        for item in items:
            pending.append(pool.submit(run, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _give_way() -> None:
    """This thread lets the codec's go first, where threads have a priority of their own."""
    if sys.platform == "linux":
        with suppress(OSError):  # forbidden: then it is as fast as the rest
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def ahead(items: Iterable[A]) -> Iterator[A]:
    """The items, each made by a thread while the one before is at work."""
    made = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(next, made, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, made, None)
            yield item


def paired(xs: Iterable[Tensor], x_hats: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Two media (B, C, T, ...) in pieces of their own, both in the pieces of the first.

    Raises InputError where the second is shorter.
    """
    coming = iter(x_hats)
    held: Tensor | None = None
    for x in xs:
        while held is None or held.shape[2] < x.shape[2]:
            piece = next(coming, None)
            if piece is None:
                raise InputError("it has more than was encoded of it")
            held = piece if held is None else torch.cat([held, piece], 2)
        yield x, held[:, :, : x.shape[2]]
        held = held[:, :, x.shape[2] :]


def windows(items: Iterable[A], full: Callable[[list[A]], bool]) -> Iterator[list[A]]:
    """Cuts `items` after each one that makes the window `full`."""
    window: list[A] = []
    for item in items:
        window.append(item)
        if full(window):
            yield window
            window = []
    if window:
        yield window
