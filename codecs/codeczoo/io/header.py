"""The header of a .cz file: compact JSON, deflated with a preset dictionary. See docs/format.md."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite, prod
from typing import Any

from codeczoo.core.errors import FormatError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.io.entropy import MAX_VOCAB
from codeczoo.io.target import Target

MAX_HEADER = 2**20  # bytes of JSON
# Part of format version 1: text that headers are likely to hold, the likeliest last. Never change it.
DICTIONARY = (
    b'"sample_rate":24000,"channels":1},"sample_rate":44100,"sample_rate":48000,"sample_rate":16000,"media":"audio",'
    b'"unit":"second","streams":[{"vocab_sizes":[1024,1024,1024,1024,1024,1024,1024,1024],"axes":["time"],"shape":[null],'
    b'"rate":75.0,"name":"codes"}],"prefixes":["codebooks"],"input_size":null,"sample_rate":24000,"channels":1},'
    b'"media":"video","vocab_sizes":[64000],"axes":["time","row","column"],"shape":[null,null,null],"prefixes":["streams"],'
    b'"sample_rate":30.0,"unit":"pixel","vocab_sizes":[16384],"axes":["row","column"],"shape":[16,16],"shape":[null,null],'
    b'"rate":0.00390625,"prefixes":[],"input_size":null,"lengths":[[32],[64],[128]],"shapes":[[1,128]],'
    b'"fit":{"mode":"tile","original":[1080,1920],"size":[256,256],"overlap":[32,32]}}"mode":"pad""mode":"crop"'
    b'"shapes":[[1,32]],"size":[[512,512]]},"input_size":[512,512],"vocab_sizes":[8192],"shape":[128],"rate":128,'
    b'"vocab_sizes":[4096],"axes":["position"],"shape":[32],"rate":32,"name":"codes"}],"prefixes":[],"input_size":[256,256],'
    b'{"codec":"titok_s128_b64_l32_one_d_piece_s256","weights_hash":"","spec":{"media":"image","unit":"image","streams":[{'
    b'"vocab_sizes":[4096],"axes":["position"],"shape":[256],"rate":256,"name":"codes"}],"prefixes":["positions"],'
    b'"input_size":[256,256],"sample_rate":null,"channels":3},"shapes":[[1,256]],"size":[[256,256]],'
    b'"fit":{"mode":"resize","original":[480,640],"size":[256,256]}}'
)


@dataclass(frozen=True)
class Header:
    """All of a token file but the codes.

    Args:
        codec: name of the codec.
        weights_hash: of its weights, `zoo.weights_hash`.
        spec: its tokens at full length.
        shapes: (K, *S) of each stream that is present.
        size: of each sample, as `Tokens.size`.
        lengths: valid positions of each sample for each stream, or None where all are.
        sample_rate: as in Tokens.
        fit: how the media was brought to the codec's size, e.g. `io.image.Fit.to_dict()`.
        gains: as in Tokens, a row for each sample.
        attachments: names and bytes of what follows the codes, in order.
        target: what the length of the tokens was chosen for; None: nothing was measured.
        payload_bytes: of the coded codes alone; 0 before there is a file.
        total_bytes: of the whole file; 0 before there is one.
    """

    codec: str
    weights_hash: str
    spec: TokenSpec
    shapes: tuple[tuple[int, ...], ...]
    size: tuple[tuple[int, ...], ...]
    lengths: tuple[tuple[int, ...], ...] | None = None
    sample_rate: float | None = None
    fit: dict[str, Any] | None = None
    gains: tuple[tuple[float, ...], ...] | None = None
    attachments: dict[str, int] | None = None
    target: Target | None = None
    payload_bytes: int = 0
    total_bytes: int = 0

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return len(self.size)

    @property
    def padded_codes(self) -> int:
        """Codes of all streams with their padding: what the tensors take."""
        return self.batch * sum(map(prod, self.shapes))

    def stored(self, stream: int) -> int:
        """Codes of one codebook of one stream that are stored: those within `lengths`."""
        _, first, *rest = self.shapes[stream]
        return (sum(self.lengths[stream]) if self.lengths else self.batch * first) * prod(rest)


def describe(
    tokens: Tokens,
    codec: str,
    weights_hash: str,
    fit: dict[str, Any] | None,
    attachments: dict[str, int] | None = None,
    target: Target | None = None,
) -> Header:
    """The header for some tokens. Lengths that leave nothing out are not kept."""
    lengths = tuple(tuple(map(int, n)) for n in tokens.lengths) if tokens.lengths is not None else None
    if lengths and all(set(n) == {c.shape[2]} for n, c in zip(lengths, tokens.streams, strict=True)):
        lengths = None
    size = tuple(tuple(map(int, row)) for row in tokens.size)
    shapes = tuple(tuple(c.shape[1:]) for c in tokens.streams)
    gains = None if tokens.gains is None else tuple(tuple(map(_float32, row)) for row in tokens.gains.tolist())
    header = Header(
        codec,
        weights_hash,
        tokens.spec,
        shapes,
        size,
        lengths,
        tokens.sample_rate,
        fit,
        gains,
        attachments or None,
        target,
    )
    check(header)
    return header


def dump(header: Header) -> bytes:
    """Raises FormatError for values that JSON cannot hold, or too many of them."""
    optional = {
        "lengths": header.lengths, "sample_rate": header.sample_rate, "fit": header.fit, "gains": header.gains,
        "attachments": header.attachments,
    }  # fmt: skip
    values = {
        "codec": header.codec,
        "weights_hash": header.weights_hash,
        "spec": header.spec.to_dict(),
        "shapes": header.shapes,
        "size": header.size,
        **{key: value for key, value in optional.items() if value is not None},
        **(header.target.to_dict() if header.target else {}),
    }
    try:
        text = json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise FormatError(f"the header cannot be written: {error}") from None
    if len(text) > MAX_HEADER:
        raise FormatError(f"the header of {header.batch} samples takes {len(text)} bytes, allowed: {MAX_HEADER}")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return deflate.compress(text) + deflate.flush()


def parse(data: bytes) -> Header:
    """Inverse of `dump`. Raises FormatError for anything else."""
    inflate = zlib.decompressobj(-15, DICTIONARY)
    try:
        text = inflate.decompress(data, MAX_HEADER)
        if not inflate.eof or inflate.unused_data:
            raise FormatError("the header is cut, too long, or followed by something")
        values = json.loads(text)
        header = Header(
            codec=values["codec"],
            weights_hash=values["weights_hash"],
            spec=TokenSpec.from_dict(values["spec"]),
            shapes=_rows(values["shapes"]),
            size=_rows(values["size"]),
            lengths=_rows(values["lengths"]) if "lengths" in values else None,
            sample_rate=values.get("sample_rate"),
            fit=values.get("fit"),
            gains=_rows(values["gains"]) if "gains" in values else None,
            attachments=values.get("attachments"),
            target=Target.from_dict(values),
        )
        check(header)
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise error if isinstance(error, FormatError) else FormatError(f"the header is broken: {error}") from None
    return header


def _rows(values: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in values)


def _float32(value: float) -> float:
    """With no more digits than float32 has."""
    return float(f"{value:.9g}")


def check(header: Header) -> None:
    """Raises FormatError unless all values are of the right kind and fit each other."""
    spec, lengths = header.spec, header.lengths
    rules = {
        "codec or weights_hash": isinstance(header.codec, str) and isinstance(header.weights_hash, str),
        "spec": _spec_is_sound(spec),
        "sample_rate": header.sample_rate is None or _is_number(header.sample_rate),
        "fit": header.fit is None or isinstance(header.fit, dict),
        "gains": header.gains is None or _are_gains(header.gains, header.batch),
        "attachments": header.attachments is None or _are_attachments(header.attachments),
        "size": header.batch > 0 and all(row and _are_counts(row) for row in header.size),
    }
    for name, holds in rules.items():
        if not holds:
            raise FormatError(f"{name} in the header is not sound")
    if not 1 <= len(header.shapes) <= len(spec.streams) or not all(
        _are_counts(shape) and len(shape) == 1 + len(stream.axes) and 1 <= shape[0] <= len(stream.vocab_sizes)
        for shape, stream in zip(header.shapes, spec.streams, strict=False)
    ):
        raise FormatError(f"shapes {header.shapes} are not of the {len(spec.streams)} streams of the codec")
    if lengths is not None and not (
        len(lengths) == len(header.shapes)
        and all(_are_counts(row) and len(row) == header.batch for row in lengths)
        and all(max(row) <= shape[1] for row, shape in zip(lengths, header.shapes, strict=True))
    ):
        raise FormatError("lengths in the header are not one per sample and stream, each within its shape")


def _spec_is_sound(spec: TokenSpec) -> bool:
    return (
        spec.media in ("image", "audio", "video")
        and spec.unit in ("image", "pixel", "second")
        and bool(spec.streams)
        and set(spec.prefixes) <= {"positions", "codebooks", "streams"}
        and (spec.input_size is None or _are_counts(spec.input_size))
        and (spec.sample_rate is None or _is_number(spec.sample_rate))
        and _are_counts([spec.channels])
        and (spec.window is None or (_are_counts(spec.window) and len(spec.window) == 2 and min(spec.window) > 0))
        and all(
            stream.vocab_sizes
            and _are_counts(stream.vocab_sizes)
            and min(stream.vocab_sizes) >= 1
            and max(stream.vocab_sizes) <= MAX_VOCAB
            and all(isinstance(axis, str) for axis in stream.axes)
            and stream.axes
            and len(stream.shape) == len(stream.axes)
            and _are_counts([n for n in stream.shape if n is not None])
            and _is_number(stream.rate)
            and isinstance(stream.name, str)
            and (
                stream.stride is None or (_are_counts(stream.stride) and len(stream.stride) == 3 and all(stream.stride))
            )
            for stream in spec.streams
        )
    )


def _are_counts(values: Sequence[Any]) -> bool:
    return isinstance(values, tuple | list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _are_attachments(sizes: Any) -> bool:
    return (
        isinstance(sizes, dict)
        and all(isinstance(name, str) and name for name in sizes)
        and _are_counts([*sizes.values()])
    )


def _are_gains(rows: Sequence[Sequence[Any]], batch: int) -> bool:
    return len(rows) == batch and len({len(row) for row in rows}) == 1 and all(map(_is_number, chain(*rows)))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)
