"""A learned model of codes given those around them, as the probabilities of the range coder. See docs/format.md.

Source: networks of whole numbers for range coding (Balle, Johnston & Minnen, "Integer networks for data compression
with latent-variable models", ICLR 2019).
Differs: sums of tables instead of convolutions; products are those of whole numbers in float64, which are exact in any
order of summation while sums stay below 2^53, so any machine makes the same table of weights, and decodes.

A *plane* is one digit of the codes of one codebook: codes of large codebooks are coded digit by digit. Planes are coded
one after the other, coarse to fine, each with all of the earlier ones in view and what is coded of itself.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeczoo.core.errors import FormatError, WeightsError
from codeczoo.core.places import PACKAGE
from codeczoo.io import entropy, weights
from codeczoo.io.neighbours import ABSENT, Mask, Positions

Codes = NDArray[np.int64]
Whole = NDArray[np.int64]

EMBED_BITS, BITS, LOG_BITS = 8, 10, 8  # fractional ones: of embeddings; of all other weights; of logarithms to base 2
LARGEST = 2**15 - 1  # of a stored weight, and of an activation
AT_ONCE = 2**20  # weights of codes that are made at once
HEADER = "context"


class Tap(NamedTuple):
    """What a plane looks at.

    Args:
        source: number of a plane; or, behind the last plane, of a stream: the position itself.
        offset: how far away, on the plane's own grid; () for the plane of another stream, on that one's.
    """

    source: int
    offset: tuple[int, ...]


class Plane(NamedTuple):
    """One digit of one codebook.

    Args:
        stream: number of its stream.
        codebook: of that stream.
        place: what a step of the digit adds to the code.
        radix: values of the digit.
        taps: what is known when it is coded.
    """

    stream: int
    codebook: int
    place: int
    radix: int
    taps: tuple[Tap, ...]

    def digits(self, codes: Codes) -> Codes:
        """The digit of each code."""
        return codes // self.place % self.radix


class ContextModel:
    """Codes blocks of a .cz file, each codebook given the coarser ones.

    Args:
        header: plain values: "weights_hash" of the codec, "codec", "planes", "positions".
        state: tensors of whole numbers, by name; none of a model that only looks (`View.seen`).

    Raises:
        WeightsError: they do not fit each other.
    """

    def __init__(self, header: dict[str, Any], state: dict[str, Tensor]) -> None:
        try:
            self.codec, self.weights_hash = str(header["codec"]), str(header["weights_hash"])
            self.planes = [_plane(values) for values in header["planes"]]
            self.positions = tuple(map(int, header["positions"]))  # of each stream: 0, or how many a row there is for
            self._state = {key: value.numpy().astype(np.float64) for key, value in state.items()}
            for number in range(len(self.planes) if state else 0):
                self._check(number)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise WeightsError(f"context model: {error!r}") from None
        self.digest = digest(header, state)
        self._last: tuple[int, list[Whole]] = -1, []

    def _check(self, number: int) -> None:
        plane, state = self.planes[number], self._state
        mix, second, out = (state[f"{number}.{name}"] for name in ("mix", "second", "out"))
        taps, dim, width = mix.shape
        shapes = {
            "first_bias": (width,), "second_bias": (width,), "second": (width, width), "out": (width, plane.radix),
            "out_bias": (plane.radix,),
        }
        good = taps == len(plane.taps) and all(state[f"{number}.{k}"].shape == shape for k, shape in shapes.items())
        for tap in plane.taps:
            known = tap.source <= number or tap.source >= len(self.planes)
            good &= known and state[f"embed.{tap.source}"].shape == (self.rows(tap.source), dim)
        if not good or max(abs(mix).max(initial=0), abs(second).max(), abs(out).max()) > LARGEST:
            raise ValueError(f"plane {number} does not fit together")

    def rows(self, source: int) -> int:
        """Entries of the embedding of a source: its values, and one for what is absent."""
        if source < len(self.planes):
            return self.planes[source].radix + 1
        return self.positions[source - len(self.planes)] + 1

    def planes_of(self, stream: int, codebook: int) -> list[int]:
        """Numbers of the planes of a codebook."""
        return [i for i, one in enumerate(self.planes) if (one.stream, one.codebook) == (stream, codebook)]

    def weights(self, number: int, values: Codes) -> Whole:
        """Whole weights (n, radix) of the values that a plane may have, given those of its taps (taps, n)."""
        state, tables = self._state, self._tables(number)
        first = np.broadcast_to(state[f"{number}.first_bias"].astype(np.int64), (values.shape[1], tables[0].shape[1]))
        first = first + sum(table[index] for table, index in zip(tables, values, strict=True))
        hidden = _layer(first.clip(0, LARGEST), state[f"{number}.second"], state[f"{number}.second_bias"]) >> BITS
        logs = _layer(hidden.clip(0, LARGEST), state[f"{number}.out"], state[f"{number}.out_bias"])
        logs >>= 2 * BITS - LOG_BITS
        below = (logs.max(1, keepdims=True) - logs).clip(max=63 << LOG_BITS)
        return POWERS[below & (1 << LOG_BITS) - 1] >> (below >> LOG_BITS)

    def _tables(self, number: int) -> list[Whole]:
        """For each tap what each of its values adds to the hidden layer, (rows, width). Keeps those of one plane."""
        kept, tables = self._last
        if kept != number:
            taps = zip(self._state[f"{number}.mix"], self.planes[number].taps, strict=True)
            tables = [(self._state[f"embed.{tap.source}"] @ one).astype(np.int64) >> EMBED_BITS for one, tap in taps]
            self._last = number, tables
        return tables


class View:
    """Codes of some tokens that are known already, codebook by codebook, coarse to fine.

    Args:
        model: of the codec of the tokens.
    """

    def __init__(self, model: ContextModel) -> None:
        self.model = model
        self.grids: dict[int, Positions] = {}
        self.values: dict[int, Codes] = {}  # of each plane, flat, and what stands for absence at the end

    def add(self, stream: int, codebook: int, valid: Mask, codes: Codes) -> None:
        """Makes a codebook known: codes (B, S1, S2, ...), of which `valid` (B, S1) hold."""
        if stream not in self.grids:
            self.grids[stream] = Positions(valid, codes.shape[1:])
        for number in self.model.planes_of(stream, codebook):
            plane = self.model.planes[number]
            known = np.where(self.grids[stream].valid, plane.digits(codes), plane.radix)
            self.values[number] = np.append(known.reshape(-1), plane.radix)

    def encode(self, stream: int, codebook: int, valid: Mask, codes: Codes) -> bytes:
        """Range-coded words of a codebook, as for `add`; it is known from then on."""
        self.add(stream, codebook, valid, codes)
        encoder, grid = entropy.RangeEncoder(), self.grids[stream]
        for number in self.model.planes_of(stream, codebook):
            digits, seen = self.values[number][grid.flat], self.seen(number)
            for start, stop in _spans(len(grid), self.model.planes[number].radix):
                encoder.each(digits[start:stop], self.model.weights(number, seen.of(start, stop)))
        return encoder.data()

    def decode(self, stream: int, codebook: int, valid: Mask, shape: Sequence[int], data: bytes) -> Codes:
        """The codes of a codebook (N,), as they stand in blocks. Raises FormatError."""
        codes = np.zeros((len(valid), *shape), np.int64)
        self.add(stream, codebook, valid, codes)
        decoder, grid, flat = entropy.RangeDecoder(data), self.grids[stream], codes.reshape(-1)
        for number in self.model.planes_of(stream, codebook):
            digits, plane, seen = self.values[number], self.model.planes[number], self.seen(number)
            for start, stop in grid.steps():
                found = decoder.each(self.model.weights(number, seen.of(start, stop)))
                digits[grid.flat[start:stop]] = found
                flat[grid.flat[start:stop]] += found * plane.place
        stored = np.empty(len(grid), np.int64)
        stored[grid.order] = flat[grid.flat]
        return stored

    def seen(self, number: int) -> "Seen":
        """What a plane sees, now and as more becomes known."""
        plane, planes, found = self.model.planes[number], self.model.planes, []
        grid = self.grids[plane.stream]
        for tap in plane.taps:
            if tap.source >= len(planes):
                most = self.model.positions[tap.source - len(planes)]
                found.append((np.arange(most + 1), grid.at[1].clip(max=most)))
            elif tap.source not in self.values:  # tokens may have fewer codebooks in a coarser stream
                found.append((np.array([planes[tap.source].radix]), np.full(len(grid), ABSENT)))
            elif planes[tap.source].stream == plane.stream:
                found.append((self.values[tap.source], grid.moved(tap.offset, tap.source == number)))
            else:
                found.append((self.values[tap.source], grid.on(self.grids[planes[tap.source].stream])))
        return Seen(found)


class Seen(NamedTuple):
    """For each tap of a plane the values that it sees, and which of them each position (N,) in coding order."""

    taps: list[tuple[Codes, Codes]]

    def of(self, start: int, stop: int) -> Codes:
        """The values that neighbouring positions see, (taps, n)."""
        return np.stack([known[index[start:stop]] for known, index in self.taps])

    def at(self, which: Codes) -> Codes:
        """The values that some positions (n,) see, (taps, n)."""
        return np.stack([known[index[which]] for known, index in self.taps])


def save(path: Path, header: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Writes a model; the file appears whole or not at all."""
    weights.write_checkpoint(path, state, {HEADER: header})


def load(path: str | Path) -> ContextModel:
    """A model from its file. Raises InputError, WeightsError."""
    state, header = weights.read_checkpoint(Path(path))
    if HEADER not in header:
        raise WeightsError(f"{path}: no context model; `codeczoo context` makes them")
    try:
        return ContextModel(header[HEADER], state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def shipped(weights_hash: str) -> ContextModel | None:
    """The model that comes with the package for a codec's weights."""
    path = _by_weights().get(weights_hash)
    return None if path is None else _shipped(path)


def find(wanted: str, weights_hash: str, given: Sequence[ContextModel] = ()) -> ContextModel:
    """The model that a file names by its digest. Raises FormatError when it is neither given nor shipped."""
    for model in given:
        if model.digest == wanted:
            return model
    own = shipped(weights_hash)
    if own is not None and own.digest == wanted:
        return own
    raise FormatError(f"coded with context model {wanted}, which does not come with the package: give it (--context)")


def digest(header: dict[str, Any], state: dict[str, Tensor]) -> str:
    """8 hex digits of a model, see docs/format.md."""
    found = sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(state):
        found.update(name.encode() + state[name].to(torch.int64).numpy().astype("<i8").tobytes())
    return found.hexdigest()[:8]


def _files() -> list[Path]:
    return sorted((PACKAGE / "weights" / "context").glob("*.safetensors"))


@lru_cache
def _by_weights() -> dict[str, Path]:
    return {weights.read_header(path)[HEADER]["weights_hash"]: path for path in _files()}


@lru_cache
def _shipped(path: Path) -> ContextModel:
    return load(path)


def _plane(values: Sequence[Any]) -> Plane:
    stream, codebook, place, radix, taps = values
    found = tuple(Tap(int(source), tuple(map(int, offset))) for source, offset in taps)
    return Plane(int(stream), int(codebook), int(place), int(radix), found)


def _layer(x: Whole, matrix: NDArray[np.float64], bias: NDArray[np.float64]) -> Whole:
    """x @ matrix + bias: sums of products of up to 15 and 16 bits, exact in float64."""
    return (x.astype(np.float64) @ matrix + bias).astype(np.int64)


def _spans(count: int, radix: int) -> Iterator[tuple[int, int]]:
    long = max(1, AT_ONCE // radix)
    return ((start, min(count, start + long)) for start in range(0, count, long))


def _root(exponent: int) -> int:
    """floor(2^(exponent / 256)), by whole numbers alone."""
    value = 1 << exponent
    for _ in range(LOG_BITS):
        value = isqrt(value)
    return value


# 2^(24 - i/256): what a logarithm counts whose fraction below the largest is i.
POWERS = np.array([_root((24 << LOG_BITS) - i) for i in range(1 << LOG_BITS)], np.int64)
