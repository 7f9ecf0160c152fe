"""The codes of one codebook as bytes: packed at exact width or range coded, whichever is smaller. See docs/format.md.

Source: the range coder and its fixed-point models are those of `constriction` (Bamler, 2022).

Every model is a table of integer weights that sum to 2^24, made by integer arithmetic alone, so decoding is bit-exact
on any machine. `constriction` wants floats and turns them into weights `floor(p * (2^24 - V) / sum(p)) + 1`; we give it
integers that sum to 2^24 - V already, which floats hold exactly: the factor is exactly 1 and nothing is ever rounded.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import constriction
import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError

Codes = NDArray[np.int64]

MAX_VOCAB = 2**62  # of packed codes, which must fit int64
MAX_MODEL = 2**18  # entries of a codebook that is still range coded: above it the tables cost more than they gain
MAX_COUNT = 2**30  # codes in one range-coded block: counts times 2^24 must fit int64
TOTAL = 2**24
COUNTS_LIMIT = 2**12  # largest entry of a stored histogram
PRIORS = (1, 4)  # powers of two by which adaptive counts outweigh the one count that every entry starts with
MAX_PRIOR = 8
FINEST = 2**20  # what the most frequent entry counts as in a prior
FIRST_RUN = 64  # codes before an adaptive model changes for the first time


def compress(codes: Codes, vocab_size: int, prior: Codes | None = None) -> bytes:
    """The smallest block for codes: a byte for the coding used, then its bytes.

    Args:
        codes: (N,), each in 0..vocab_size - 1.
        vocab_size: V.
        prior: `frequencies` of the entries, (V,), which whoever reads must know too.
    """
    if not (2 <= vocab_size <= MAX_MODEL and 0 < len(codes) < MAX_COUNT):
        return bytes([0]) + pack(codes, vocab_size)
    blocks = [bytes([tag]) + coding.encode(codes, vocab_size) for tag, coding in enumerate(CODINGS)]
    if prior is not None:
        blocks.append(bytes([BY_PRIOR]) + _range_encode([(codes, _model(prior))]))
    return min(blocks, key=len)


def expand(block: bytes, vocab_size: int, count: int, prior: Codes | None = None) -> Codes:
    """The codes (count,) of a block. Raises FormatError when it cannot be one of `compress`, or wants the prior."""
    if not block or block[0] > BY_PRIOR:
        raise FormatError(f"unknown coding {block[0] if block else 'of no bytes'}; allowed: 0..{BY_CONTEXT}")
    if block[0] and not (2 <= vocab_size <= MAX_MODEL and 0 < count < MAX_COUNT):
        raise FormatError(f"{count} codes of {vocab_size} entries cannot be range coded")
    if block[0] < BY_PRIOR:
        codes = CODINGS[block[0]].decode(block[1:], vocab_size, count)
    elif prior is None or len(prior) != vocab_size:
        raise FormatError(f"coded by the codec's own frequencies of {vocab_size} entries: read it with its priors")
    else:
        codes = RangeDecoder(block[1:]).codes(_model(prior), count)
    if codes.size and codes.max() >= vocab_size:
        raise FormatError(f"code {codes.max()} is outside 0..{vocab_size - 1}")
    return codes


def frequencies(counts: NDArray[np.float32]) -> Codes:
    """Usage of the entries (V,) in any unit as whole numbers, the same on any machine; none is 0."""
    exact = np.nan_to_num(counts.astype(np.float64), posinf=0).clip(min=0)
    return (exact * (FINEST / max(exact.max(initial=0), 1e-300))).astype(np.int64) + 1


def pack(codes: Codes, vocab_size: int) -> bytes:
    """Each code as ceil(log2 V) bits, most significant first; the last byte is filled with zeros."""
    width = (vocab_size - 1).bit_length()
    shifts = np.arange(width - 1, -1, -1)
    parts = (codes[i : i + 2**16, None] >> shifts & 1 for i in range(0, len(codes), 2**16))  # (n, width)
    return b"".join(np.packbits(part.astype(np.uint8)).tobytes() for part in parts)


def unpack(data: bytes, vocab_size: int, count: int) -> Codes:
    """Inverse of `pack`. Raises FormatError when `data` has not exactly the bytes of `count` codes."""
    width = (vocab_size - 1).bit_length()
    if len(data) != -(-count * width // 8):
        raise FormatError(f"{count} codes of {width} bits in {len(data)} bytes")
    codes = np.zeros(count, np.int64)
    packed = np.frombuffer(data, np.uint8)
    for i in range(0, count if width else 0, 2**16):
        n = min(2**16, count - i)
        bits = np.unpackbits(packed[i * width // 8 :], count=n * width).reshape(n, width)
        for column in bits.T:
            codes[i : i + n] = codes[i : i + n] << 1 | column
    return codes


def encode_uniform(codes: Codes, vocab_size: int) -> bytes:
    """Range coded with equal weights: below one bit per code less than packing, for sizes that are no power of two."""
    return _range_encode([(codes, constriction.stream.model.Uniform(vocab_size))])


def decode_uniform(data: bytes, vocab_size: int, count: int) -> Codes:
    """Inverse of `encode_uniform`."""
    return RangeDecoder(data).codes(constriction.stream.model.Uniform(vocab_size), count)


def encode_static(codes: Codes, vocab_size: int) -> bytes:
    """Range coded with one histogram, which stands in front."""
    counts = np.bincount(codes, minlength=vocab_size)
    # Rounded up, so that no entry in use loses its weight.
    counts = -(-counts // (1 + int(counts.max()) // COUNTS_LIMIT))
    histogram = zlib.compress(counts.astype("<u2").tobytes(), 9)
    return len(histogram).to_bytes(4, "little") + histogram + _range_encode([(codes, _model(counts))])


def decode_static(data: bytes, vocab_size: int, count: int) -> Codes:
    """Inverse of `encode_static`. Raises FormatError for a broken histogram."""
    end = 4 + int.from_bytes(data[:4], "little")
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(data[4:end], 2 * vocab_size + 1)
    except zlib.error as error:
        raise FormatError(f"histogram: {error}") from None
    counts = np.frombuffer(raw, "<u2").astype(np.int64) if len(raw) == 2 * vocab_size else np.zeros(1, np.int64)
    if not inflate.eof or not counts.any():
        raise FormatError(f"histogram of {vocab_size} entries is broken")
    return RangeDecoder(data[end:]).codes(_model(counts), count)


def encode_adaptive(codes: Codes, vocab_size: int) -> bytes:
    """Range coded with the histogram of the codes before; one byte in front says how much these outweigh the start."""
    return min((bytes([prior]) + _encode_adaptive(codes, vocab_size, prior) for prior in PRIORS), key=len)


def _encode_adaptive(codes: Codes, vocab_size: int, prior: int) -> bytes:
    counts, runs = np.ones(vocab_size, np.int64), []
    for start, stop in _runs(len(codes)):
        runs.append((codes[start:stop], _model(counts)))
        counts += np.bincount(codes[start:stop], minlength=vocab_size) << prior
    return _range_encode(runs)


def decode_adaptive(data: bytes, vocab_size: int, count: int) -> Codes:
    """Inverse of `encode_adaptive`. Raises FormatError for an unknown prior."""
    if not data or data[0] > MAX_PRIOR:
        raise FormatError(f"adaptive coding without a prior in 0..{MAX_PRIOR}")
    codes, counts, decoder = np.empty(count, np.int64), np.ones(vocab_size, np.int64), RangeDecoder(data[1:])
    for start, stop in _runs(count):
        codes[start:stop] = decoder.codes(_model(counts), stop - start)
        counts += np.bincount(codes[start:stop], minlength=vocab_size) << data[0]
    return codes


def _runs(count: int) -> Iterator[tuple[int, int]]:
    """Stretches of an adaptive stream with one model each. They grow by a quarter, so there are few of them."""
    start = 0
    while start < count:
        stop = min(count, start + max(FIRST_RUN, start // 4))
        yield start, stop
        start = stop


def _model(counts: Codes) -> Any:
    return constriction.stream.model.Categorical(shares(counts), perfect=False)


def shares(counts: Codes) -> NDArray[np.float64]:
    """Counts (..., V), not all 0, to floor(counts * (2^24 - V) / sum); the first largest count gets what is left over.

    Weights are these and 1 more each, which `constriction` adds.
    """
    room = TOTAL - counts.shape[-1]
    free = counts.astype(np.int64) * room // counts.sum(-1, keepdims=True, dtype=np.int64)
    best = counts.argmax(-1)[..., None]
    left = room - free.sum(-1, keepdims=True)
    np.put_along_axis(free, best, np.take_along_axis(free, best, -1) + left, -1)
    return free.astype(np.float64)


def _range_encode(runs: list[tuple[Codes, Any]]) -> bytes:
    encoder = RangeEncoder()
    for codes, model in runs:
        encoder.codes(codes, model)
    return encoder.data()


class RangeEncoder:
    """Codes to 32-bit words."""

    def __init__(self) -> None:
        self.encoder = constriction.stream.queue.RangeEncoder()

    def codes(self, codes: Codes, model: Any) -> None:
        """Codes (n,) of one model."""
        self.encoder.encode(codes.astype(np.int32), model)

    def each(self, codes: Codes, counts: Codes) -> None:
        """Codes (n,), each by counts of its own, (n, V)."""
        self.encoder.encode(codes.astype(np.int32), EACH, shares(counts))

    def data(self) -> bytes:
        """The words."""
        return bytes(self.encoder.get_compressed().astype("<u4").tobytes())


class RangeDecoder:
    """Codes out of 32-bit words. Raises FormatError for words that no encoder wrote."""

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise FormatError(f"range-coded data of {len(data)} bytes is not whole words")
        self.decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def codes(self, model: Any, count: int) -> Codes:
        """The next `count` codes, of one model."""
        return self._decoded(model, count)

    def each(self, counts: Codes) -> Codes:
        """The next codes (n,), each by counts of its own, (n, V)."""
        return self._decoded(EACH, shares(counts))

    def _decoded(self, model: Any, how: Any) -> Codes:
        try:
            return np.asarray(self.decoder.decode(model, how)).astype(np.int64)
        except AssertionError as error:
            raise FormatError(f"range-coded data is broken: {error}") from None


class Coding(NamedTuple):
    """One way to write codes: (codes, vocab_size) to bytes, and (bytes, vocab_size, count) back."""

    encode: Callable[[Codes, int], bytes]
    decode: Callable[[bytes, int, int], Codes]


# The place in this table is the tag byte in files: append only.
CODINGS = (
    Coding(pack, unpack),
    Coding(encode_uniform, decode_uniform),
    Coding(encode_static, decode_static),
    Coding(encode_adaptive, decode_adaptive),
)
BY_PRIOR = len(CODINGS)  # the tag of codes that were coded by frequencies that are not in the block
BY_CONTEXT = BY_PRIOR + 1  # that of codes coded given others, see io/context.py
EACH = constriction.stream.model.Categorical(perfect=False)  # its weights come with each code
