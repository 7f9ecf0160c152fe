"""The token file, .cz: self-describing header, codes in as few bytes as they take, checksum. See docs/format.md."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import Tokens
from codeczoo.io import entropy, header
from codeczoo.io.context import ContextModel, View, find
from codeczoo.io.files import atomic, content
from codeczoo.io.header import Header
from codeczoo.io.target import Target

Priors = Sequence[Tensor | None]
SUFFIX = ".cz"
MAGIC = b"\xabcz\n"
VERSION = 2
PLAIN = 1  # the version of files without attachments, which older readers know
CHECKSUM_BYTES = 4
DIGEST_END = 5  # where the digest of a context model ends in a block
# A file may claim this many codes, and 64 more for each of its bytes: hostile ones must not ask for all memory.
FREE_CODES = 2**24
FREE_BY_CONTEXT = 2**18  # the same for a block by context, where codes take far longer: and 512 more for each byte
NOTHING: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class TokenFile:
    """What a token file holds."""

    header: Header
    tokens: Tokens
    attachments: Mapping[str, bytes]


def write(
    path: str | Path,
    tokens: Tokens,
    *,
    codec: str,
    weights_hash: str,
    fit: dict[str, Any] | None = None,
    priors: Priors = (),
    attachments: Mapping[str, bytes] = NOTHING,
    target: Target | None = None,
    context: ContextModel | None = None,
) -> int:
    """Writes a token file, whole or not at all; gives its size in bytes. Arguments and errors as for `dumps`."""
    data = dumps(
        tokens, codec=codec, weights_hash=weights_hash, fit=fit, priors=priors, attachments=attachments, target=target,
        context=context,
    )
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return len(data)


def read(source: str | Path | bytes, priors: Priors = (), contexts: Sequence[ContextModel] = ()) -> TokenFile:
    """Reads a token file, or one that is in memory already.

    Args:
        source: path, or content.
        priors: those it was written with, where it was.
        contexts: models that it may have been written with, beside those that come with the package.

    Raises:
        InputError: the file cannot be opened.
        FormatError: truncated, corrupt, foreign or from a newer version.
    """
    where, data = content(source, "token data")
    about, payload, attachments = _open(data, where)
    try:
        if about.padded_codes > _allowed(data):
            raise FormatError(f"{about.padded_codes} codes in {len(data)} bytes are more than a file may claim")
        blocks, known = _blocks(payload), _Known(about, contexts)
        streams = tuple(_stream(about, s, blocks, priors, known) for s in range(len(about.shapes)))
        if next(blocks, None) is not None:
            raise FormatError("there is more behind the last codebook")
        lengths = None if about.lengths is None else tuple(torch.tensor(n, dtype=torch.int64) for n in about.lengths)
        size = torch.tensor(about.size, dtype=torch.int64)
        gains = None if about.gains is None else torch.tensor(about.gains, dtype=torch.float32)
        return TokenFile(about, Tokens(about.spec, streams, size, lengths, about.sample_rate, gains), attachments)
    except ValueError as error:  # FormatError and InputError are ones
        raise FormatError(f"{where}: {error}") from None


def read_header(source: str | Path | bytes) -> Header:
    """As `read`, but decodes no codes. The checksum is checked all the same."""
    where, data = content(source, "token data")
    return _open(data, where)[0]


def read_attachments(source: str | Path | bytes) -> Mapping[str, bytes]:
    """What was attached, by name, as `read` gives it, but decodes no codes."""
    where, data = content(source, "token data")
    return _open(data, where)[2]


def dumps(
    tokens: Tokens,
    *,
    codec: str,
    weights_hash: str,
    fit: dict[str, Any] | None = None,
    priors: Priors = (),
    attachments: Mapping[str, bytes] = NOTHING,
    target: Target | None = None,
    context: ContextModel | None = None,
) -> bytes:
    """A token file as bytes. Codes beyond `tokens.lengths` are not kept: they come back as 0.

    Args:
        tokens: on any device.
        codec: name of the codec that made them.
        weights_hash: `zoo.weights_hash` of it.
        fit: how the media was brought to the codec's size, plain values.
        priors: how often the codec uses its entries (`Quantizer.priors()`), for each codebook of all streams. They make
            short files shorter, but these can then only be read with the same priors.
        attachments: what belongs to the tokens but is none, e.g. the sound of a clip, by name. Readers of format
            version 1 do not take files that have any.
        target: what the length of the tokens was chosen for; None: for nothing that was measured.
        context: a model of the codec's codes. It makes files shorter, which can then only be read with it.

    Raises:
        InputError: codes outside their vocabulary, values that a header cannot hold, or the model of another codec.
    """
    tokens = tokens.to("cpu")
    if context is not None and context.weights_hash != weights_hash:
        raise InputError(f"a context model of weights {context.weights_hash}: these are codes of {weights_hash}")
    try:
        sizes = {name: len(data) for name, data in attachments.items()}
        about = header.describe(tokens, codec, weights_hash, fit, sizes, target)
        front = header.dump(about)
    except FormatError as error:
        raise InputError(f"these tokens cannot be written: {error}") from None
    tokens.check_range()
    blocks = [_varint(len(block)) + block for block in _coded(about, tokens, priors, context)]
    body = b"".join([_varint(len(front)), front, *blocks, *attachments.values()])
    data = MAGIC + bytes([VERSION if attachments else PLAIN]) + _varint(len(body) + CHECKSUM_BYTES) + body
    if about.padded_codes > _allowed(data):
        raise InputError(f"{about.padded_codes} codes are too many for one file of {len(data)} bytes: write several")
    return data + zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "little")


def _coded(about: Header, tokens: Tokens, priors: Priors, context: ContextModel | None) -> Iterator[bytes]:
    """The block of each codebook of each stream."""
    view = None if context is None else View(context)
    for s, codes in enumerate(tokens.streams):
        valid = _valid(about, s)
        for k, vocab_size in zip(range(codes.shape[1]), tokens.spec.streams[s].vocab_sizes, strict=False):
            block = entropy.compress(codes[:, k][valid].flatten().numpy(), vocab_size, _prior(about, s, k, priors))
            if view is not None:
                words = view.encode(s, k, valid.numpy(), codes[:, k].numpy())
                given = bytes([entropy.BY_CONTEXT]) + bytes.fromhex(view.model.digest) + words
                if about.stored(s) <= _most_by_context(given):
                    block = min(block, given, key=len)
            yield block


class _Known:
    """Codes that were read already, for blocks that were coded given them.

    Args:
        about: of the file.
        contexts: models that may be asked for.
    """

    def __init__(self, about: Header, contexts: Sequence[ContextModel]) -> None:
        self.about, self.contexts = about, contexts
        self.view: View | None = None
        self.waiting: list[tuple[int, int, Tensor, Tensor]] = []

    def add(self, stream: int, codebook: int, valid: Tensor, codes: Tensor) -> None:
        """Makes a codebook known, (B, S1, S2, ...)."""
        if self.view is None:
            self.waiting.append((stream, codebook, valid, codes))
        else:
            self.view.add(stream, codebook, valid.numpy(), codes.numpy())

    def decode(self, stream: int, codebook: int, valid: Tensor, shape: Sequence[int], block: bytes) -> entropy.Codes:
        """The codes of a block by context. Raises FormatError."""
        if (count := self.about.stored(stream)) > _most_by_context(block):
            raise FormatError(f"{count} codes by context in {len(block)} bytes are more than a block may claim")
        digest = block[1:DIGEST_END].hex()
        if self.view is None:
            self.view = View(find(digest, self.about.weights_hash, self.contexts))
            for one in self.waiting:
                self.add(*one)
        if self.view.model.digest != digest:
            raise FormatError(f"coded with context models {self.view.model.digest} and {digest}")
        return self.view.decode(stream, codebook, valid.numpy(), shape, block[DIGEST_END:])


def check_codec(about: Header, codec: str, weights_hash: str, where: str = "these tokens") -> None:
    """Raises FormatError when the tokens were made by another codec. The weights decide; the name is for people."""
    if about.weights_hash != weights_hash:
        maker = "other weights of it" if about.codec == codec else f"codec {about.codec}"
        own = f"{codec} (weights {weights_hash})"
        raise FormatError(f"{where}: made by {maker} (weights {about.weights_hash}), not by {own}")


def _open(data: bytes, where: str) -> tuple[Header, bytes, dict[str, bytes]]:
    """Header, payload and attachments of a file whose frame and checksum hold."""
    try:
        if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
            raise FormatError("not a .cz token file" if data else "the file is empty")
        if data[4:5] > bytes([VERSION]):
            raise FormatError(f"format version {data[4]} is newer than {VERSION}, the newest known; update codeczoo")
        length, start = _read_varint(data, 5)
        if len(data) < start + length:
            raise FormatError(f"truncated: {len(data)} of {start + length} bytes")
        end = len(data) - CHECKSUM_BYTES
        if len(data) > start + length or end < start or zlib.crc32(data[:end]) != int.from_bytes(data[end:], "little"):
            raise FormatError("corrupt: the checksum does not match")
        if data[4] not in (PLAIN, VERSION):
            raise FormatError(f"unknown format version {data[4]}")
        front, payload = _read_varint(data, start)
        if payload + front > end:
            raise FormatError("the header is longer than the file")
        about = header.parse(data[payload : payload + front])
        sizes = about.attachments or {}
        if sizes and data[4] == PLAIN:
            raise FormatError(f"files of version {PLAIN} have no attachments")
        codes_end = end - sum(sizes.values())
        if payload + front > codes_end:
            raise FormatError("the attachments are longer than the file")
        ends = list(accumulate(sizes.values(), initial=codes_end))
        attachments = {name: data[a:b] for name, (a, b) in zip(sizes, pairwise(ends), strict=True)}
        about = replace(about, payload_bytes=codes_end - payload - front, total_bytes=len(data))
        return about, data[payload + front : codes_end], attachments
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None


def _stream(about: Header, s: int, blocks: Iterator[bytes], priors: Priors, known: _Known) -> Tensor:
    """The codes of one stream, (B, K, *S), from the next K blocks."""
    n_codebooks, *shape = about.shapes[s]
    valid = _valid(about, s)
    codes = torch.zeros(about.batch, n_codebooks, *shape, dtype=torch.int64)
    for k, vocab_size in zip(range(n_codebooks), about.spec.streams[s].vocab_sizes, strict=False):
        block = next(blocks, b"")
        if block[:1] == bytes([entropy.BY_CONTEXT]):
            stored = known.decode(s, k, valid, shape, block)
            if stored.size and stored.max() >= vocab_size:
                raise FormatError(f"code {stored.max()} is outside 0..{vocab_size - 1}")
        else:
            stored = entropy.expand(block, vocab_size, about.stored(s), _prior(about, s, k, priors))
        codes[:, k][valid] = torch.from_numpy(stored).reshape(-1, *shape[1:])  # (stored rows, *S[1:])
        known.add(s, k, valid, codes[:, k])
    return codes


def _prior(about: Header, s: int, k: int, priors: Priors) -> entropy.Codes | None:
    """Frequencies for codebook k of stream s, where there are any."""
    at = sum(len(stream.vocab_sizes) for stream in about.spec.streams[:s]) + k
    counts = priors[at] if at < len(priors) else None
    return None if counts is None else entropy.frequencies(counts.detach().float().cpu().numpy())


def _valid(about: Header, s: int) -> Tensor:
    """Which positions of the first axis are stored, bool (B, S1)."""
    first = about.shapes[s][1]
    if about.lengths is None:
        return torch.ones(about.batch, first, dtype=torch.bool)
    return torch.arange(first) < torch.tensor(about.lengths[s])[:, None]


def _blocks(payload: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(payload):
        length, at = _read_varint(payload, at)
        if at + length > len(payload):
            raise FormatError("a codebook is longer than the file")
        yield payload[at : at + length]
        at += length


def _varint(n: int) -> bytes:
    """Seven bits a byte, least significant first, the high bit set on all but the last."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and where it ends. Raises FormatError."""
    n = 0
    for i, byte in enumerate(data[at : at + 9]):
        n |= (byte & 127) << 7 * i
        if byte < 128:
            return n, at + i + 1
    raise FormatError("truncated or broken length")


def _most_by_context(block: bytes) -> int:
    return FREE_BY_CONTEXT + 512 * len(block)


def _allowed(data: bytes) -> int:
    return FREE_CODES + 64 * len(data)
