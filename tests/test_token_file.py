"""The .cz format: exact round trips, small files, and nothing but FormatError out of broken ones."""

import bisect
import json
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import constriction
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.io import entropy, header, tokens
from codeczoo.io.video_fit import VideoFit

QUICK = settings(max_examples=60, deadline=None)
HASH = "0f3a9b1c2d4e5f67"
FIT = {"mode": "resize", "original": [533, 400], "size": [256, 256]}
ONE_D = TokenSpec(
    "image", "image", (StreamSpec((4096,), ("position",), (256,), 256),), ("positions",), input_size=(256, 256)
)


def one_d_tokens(n: int, seed: int = 0) -> Tokens:
    codes = torch.randint(0, 4096, (1, 1, n), generator=torch.Generator().manual_seed(seed))
    return Tokens(ONE_D, (codes,), torch.tensor([[256, 256]]))


def dumps(t: Tokens) -> bytes:
    return tokens.dumps(t, codec="one_d_piece_s256", weights_hash=HASH, fit=FIT)


def assert_same(read: Tokens, written: Tokens) -> None:
    assert read.spec == written.spec
    assert read.sample_rate == written.sample_rate
    assert torch.equal(read.size, written.size)
    assert len(read.streams) == len(written.streams)
    for s, (a, b) in enumerate(zip(read.streams, written.streams, strict=True)):
        assert a.dtype == torch.int64
        assert a.shape == b.shape
        assert torch.equal(read.stream_lengths(s), written.stream_lengths(s))
    for i in range(written.batch):
        for a, b in zip(read[i].streams, written[i].streams, strict=True):
            assert torch.equal(a, b)


@st.composite
def any_tokens(draw: st.DrawFn) -> Tokens:
    vocab = st.one_of(st.integers(1, 300), st.integers(2, 2**18), st.sampled_from([2**18 + 1, 64000, 2**36, 2**62]))
    batch, n_axes = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    seed, skew = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1, 4, 30]))
    random = np.random.default_rng(seed)
    specs, streams, lengths = [], [], []
    for s in range(draw(st.integers(1, 3))):
        vocab_sizes = tuple(draw(st.lists(vocab, min_size=1, max_size=8)))
        shape = [draw(st.integers(0 if axis == 0 else 1, (300, 5, 4)[axis])) for axis in range(n_axes)]
        axes = ("time", "row", "column")[:n_axes]
        specs.append(StreamSpec(vocab_sizes, axes, (None,) * n_axes, draw(st.floats(0, 100)), f"s{s}"))
        kept = vocab_sizes[: draw(st.integers(1, len(vocab_sizes)))]
        uniform = random.random((batch, len(kept), *shape))
        sizes = np.array(kept).reshape(1, -1, *[1] * n_axes)
        codes = np.minimum((uniform**skew * sizes).astype(np.int64), sizes - 1)
        streams.append(torch.from_numpy(codes))
        lengths.append(torch.from_numpy(random.integers(0, shape[0] + 1, batch)))
    spec = TokenSpec("video", "second", tuple(specs), draw(st.sampled_from([(), ("codebooks", "streams")])))
    n_streams = draw(st.integers(1, len(streams)))
    size = torch.from_numpy(random.integers(1, 2000, (batch, 3)))
    ragged = tuple(lengths[:n_streams]) if draw(st.booleans()) else None
    return Tokens(spec, tuple(streams[:n_streams]), size, ragged, draw(st.sampled_from([None, 24.0, 30000 / 1001])))


@QUICK
@given(any_tokens(), st.text(max_size=30))
def test_round_trip(written: Tokens, name: str) -> None:
    data = tokens.dumps(written, codec=name, weights_hash=HASH, fit=FIT)
    read = tokens.read(data)
    assert_same(read.tokens, written)
    assert (read.header.codec, read.header.weights_hash, read.header.fit) == (name, HASH, FIT)
    assert read.header == tokens.read_header(data)
    assert read.header.total_bytes == len(data)


BASE = [dumps(one_d_tokens(n)) for n in (1, 32, 256)]
BASE.append(dumps(replace(one_d_tokens(256), streams=(one_d_tokens(256).codes.clamp(max=3).repeat(1, 1, 9),))))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(BASE), st.data())
def test_damage_is_a_format_error(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    damaged = draw.draw(
        st.one_of(
            st.just(data[:at]),
            st.integers(1, 255).map(lambda flip: data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]),
            st.binary(min_size=1, max_size=9).map(lambda extra: data[:at] + extra + data[at:]),
            st.integers(1, 9).map(lambda n: data[:at] + data[at + n :]),
            st.binary(max_size=200),
            st.binary(max_size=200).map(lambda tail: tokens.MAGIC + b"\1" + tail),
        ).filter(lambda changed: changed != data)
    )
    with pytest.raises(FormatError):
        tokens.read(damaged)
    with pytest.raises(FormatError):
        tokens.read_header(damaged)


def sealed(front: bytes, payload: bytes, version: int = 1) -> bytes:
    """A file with a right checksum, whatever is in it: what someone hostile would send."""
    body = tokens._varint(len(front)) + front + payload
    data = tokens.MAGIC + bytes([version]) + tokens._varint(len(body) + 4) + body
    return data + zlib.crc32(data).to_bytes(4, "little")


def deflated(text: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, header.DICTIONARY)
    return deflate.compress(text) + deflate.flush()


def plain_header(shapes: list, **changes: object) -> dict:
    values = {"codec": "c", "weights_hash": HASH, "spec": ONE_D.to_dict(), "shapes": shapes, "size": [[256, 256]]}
    return values | changes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@QUICK
@given(st.data())
def test_hostile_header_with_a_right_checksum(draw: st.DataObject) -> None:
    values = plain_header([[1, 4]], lengths=[[4]], sample_rate=None, fit=None)
    place = draw.draw(st.sampled_from([(k,) for k in values] + [("spec", k) for k in values["spec"]]))
    target = values
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = draw.draw(JSON)
    blocks = tokens._varint(7) + b"\0" + bytes(6)
    try:
        read = tokens.read(sealed(deflated(json.dumps(values).encode()), blocks))
    except FormatError:
        return
    assert read.tokens.codes.shape == (1, 1, 4)


@QUICK
@given(st.integers(0, 5), st.integers(1, 500), st.sampled_from([2, 3, 1000, 4096]), st.binary(max_size=60))
def test_hostile_payload_with_a_right_checksum(tag: int, count: int, vocab_size: int, junk: bytes) -> None:
    spec = replace(ONE_D, streams=(StreamSpec((vocab_size,), ("position",), (None,), 1),))
    front = deflated(json.dumps(plain_header([[1, count]], spec=spec.to_dict())).encode())
    block = bytes([tag]) + junk
    try:
        codes = tokens.read(sealed(front, tokens._varint(len(block)) + block)).tokens.codes
    except FormatError:
        return
    assert codes.shape == (1, 1, count)
    assert 0 <= codes.min() <= codes.max() < vocab_size


@pytest.mark.parametrize(
    "front",
    [
        deflated(json.dumps(plain_header([[1, 2**40]])).encode()),  # a terabyte of codes
        deflated(json.dumps(plain_header([[1, 2**20]], size=[[1, 1]] * 64, lengths=[[0] * 64])).encode()),  # of padding
        deflated(b"[" * 100_000),
        deflated(b" " * 2**24),  # a bomb: 16 MB in 16 kB
        deflated(b"{}"),
        deflated(b"\xff"),
        b"",
    ],
)
def test_hostile_sizes_are_refused(front: bytes) -> None:
    with pytest.raises(FormatError):
        tokens.read(sealed(front, b"\x02\x01\x00"))


def test_sealed_files_hold_what_they_say_and_no_more() -> None:
    text, blocks = json.dumps(plain_header([[1, 4]])).encode(), tokens._varint(7) + b"\0" + bytes(6)
    assert tokens.read(sealed(deflated(text), blocks)).tokens.codes.tolist() == [[[0, 0, 0, 0]]]
    with pytest.raises(FormatError, match="more behind"):
        tokens.read(sealed(deflated(text), blocks * 2))
    with pytest.raises(FormatError, match="too long"):
        tokens.read(sealed(deflated(text + b" " * 2**20), blocks))
    with pytest.raises(FormatError, match="4 codes of 12 bits in 7 bytes"):
        tokens.read(sealed(deflated(text), tokens._varint(8) + b"\0" + bytes(7)))
    with pytest.raises(FormatError, match="invalid for the employed entropy model"):
        tokens.read(sealed(deflated(text.replace(b"4096", b"1000")), tokens._varint(41) + b"\1" + b"\xff" * 40))
    with pytest.raises(FormatError, match="lengths in the header"):
        tokens.read(sealed(deflated(json.dumps(plain_header([[1, 4]], lengths=[[5]])).encode()), blocks))
    with pytest.raises(FormatError, match="of no bytes"):
        tokens.read(sealed(deflated(text), b""))


def test_each_fault_has_its_own_message(tmp_path: Path) -> None:
    data, path = dumps(one_d_tokens(32)), tmp_path / "a.cz"
    cases = {
        b"": "empty",
        b"\x89PNG\r\n\x1a\n" + data: "not a .cz",
        data[:50]: "truncated: 50 of",
        data[:3]: "truncated",
        data[:4] + bytes([tokens.VERSION + 1]) + data[5:]: "newer",
        data[:60] + b"x" + data[61:]: "checksum",
        data + b"x": "corrupt",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message) as caught:
            tokens.read(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        tokens.read(tmp_path / "b.cz")


CLIP = TokenSpec(
    "video", "pixel", (StreamSpec((64000,), ("time", "row", "column"), (None,) * 3, 1 / 256, "codes", (4, 8, 8)),)
)
ATTACHED = {"sound.mp4": b"sound" * 3, "empty": b"", "notes.txt": bytes(range(256))}


def clip_tokens() -> Tokens:
    codes = torch.tensor([i * i * 37 % 64000 for i in range(12)]).view(1, 1, 3, 2, 2)
    return Tokens(CLIP, (codes,), torch.tensor([[9, 16, 16]]), sample_rate=30000 / 1001)


def with_attachments(attachments: dict[str, bytes]) -> bytes:
    fit = VideoFit(Fraction(30000, 1001), Fraction(1, 50)).to_dict()
    return tokens.dumps(clip_tokens(), codec="cosmos_dv", weights_hash=HASH, fit=fit, attachments=attachments)


def test_attachments_come_back_and_cost_their_bytes() -> None:
    plain, data = with_attachments({}), with_attachments(ATTACHED)
    read = tokens.read(data)
    assert_same(read.tokens, clip_tokens())
    assert read.attachments == tokens.read_attachments(data) == ATTACHED and list(read.attachments) == list(ATTACHED)
    assert read.header.attachments == {"sound.mp4": 15, "empty": 0, "notes.txt": 256}
    assert read.header.payload_bytes == tokens.read_header(plain).payload_bytes
    assert len(data) - len(plain) in range(271, 271 + 80) and read.header.total_bytes == len(data)
    assert tokens.read(plain).attachments == {} and tokens.read_header(plain).attachments is None


def test_readers_of_version_1_know_that_attachments_are_newer() -> None:
    plain, data = with_attachments({}), with_attachments(ATTACHED)
    assert (plain[4], data[4]) == (1, 2)
    values = plain_header([[1, 4]], attachments={"a": 3})
    front, blocks = deflated(json.dumps(values).encode()), tokens._varint(7) + b"\0" + bytes(6)
    assert tokens.read(sealed(front, blocks + b"abc", 2)).attachments == {"a": b"abc"}
    with pytest.raises(FormatError, match="version 1 have no attachments"):
        tokens.read(sealed(front, blocks + b"abc", 1))
    with pytest.raises(FormatError, match="unknown format version 0"):
        tokens.read(sealed(front, blocks + b"abc", 0))


@QUICK
@given(st.dictionaries(st.text(max_size=3), st.integers(-1, 2**70) | JSON, max_size=4))
def test_hostile_attachments_with_a_right_checksum(sizes: dict) -> None:
    values, blocks = plain_header([[1, 4]], attachments=sizes), tokens._varint(7) + b"\0" + bytes(6)
    try:
        read = tokens.read(sealed(deflated(json.dumps(values).encode()), blocks + b"abc", 2))
    except FormatError:
        return
    assert b"".join(read.attachments.values()) == b"abc"


@pytest.mark.parametrize("stride", [[4, 8], [4, 8, 0], [4, 8, -8], [4, 8, 1.5], "4x8", 4])
def test_hostile_strides(stride: object) -> None:
    values = plain_header([[1, 4]])
    values["spec"] = json.loads(json.dumps(values["spec"]))
    values["spec"]["streams"][0]["stride"] = stride
    with pytest.raises(FormatError):
        tokens.read(sealed(deflated(json.dumps(values).encode()), tokens._varint(7) + b"\0" + bytes(6)))


def test_golden_file_with_attachments() -> None:
    """Files written by version 2 stay readable, and mean the same."""
    read = tokens.read(bytes.fromhex(GOLDEN_CLIP))
    assert_same(read.tokens, clip_tokens())
    assert read.attachments == ATTACHED
    assert VideoFit.from_dict(read.header.fit or {}) == VideoFit(Fraction(30000, 1001), Fraction(1, 50))


def test_fits_of_clips_are_checked() -> None:
    fit = VideoFit(Fraction(30000, 1001), Fraction(-1, 50), Fraction(16, 11))
    assert VideoFit.from_dict(json.loads(json.dumps(fit.to_dict()))) == fit
    assert VideoFit(None).to_dict() == {"rate": None} and VideoFit.from_dict({"rate": None}) == VideoFit(None)
    good = fit.to_dict()
    wrong = [0, 25.0, "25", [25], [25, 0], [-25, 1], [2**70, 1], [25, 1, 1], [True, 1], [25.0, 1]]
    for key, value in (*(("rate", v) for v in wrong), *(("aspect", v) for v in wrong[1:]), ("start", [1, 0])):
        with pytest.raises(FormatError):
            VideoFit.from_dict(good | {key: value})
    for broken in ({}, None, [1]):
        with pytest.raises(FormatError):
            VideoFit.from_dict(broken)  # type: ignore[arg-type]


def test_wrong_codec() -> None:
    about = tokens.read_header(dumps(one_d_tokens(1)))
    tokens.check_codec(about, "one_d_piece_s256", HASH)
    tokens.check_codec(about, "renamed", HASH)
    with pytest.raises(FormatError, match="other weights"):
        tokens.check_codec(about, "one_d_piece_s256", "f" * 16)
    with pytest.raises(FormatError, match="codec one_d_piece_s256"):
        tokens.check_codec(about, "titok_s128", "f" * 16)


def test_cannot_write_what_cannot_be_read() -> None:
    with pytest.raises(InputError, match="outside"):
        dumps(replace(one_d_tokens(1), streams=(torch.full((1, 1, 1), 4096),)))
    with pytest.raises(InputError, match="header"):
        tokens.dumps(one_d_tokens(1), codec="x", weights_hash=HASH, fit={"a": float("nan")})
    with pytest.raises(InputError, match="size in the header"):
        dumps(Tokens(ONE_D, (torch.zeros(0, 1, 4, dtype=torch.int64),), torch.zeros(0, 2, dtype=torch.int64)))


def test_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.cz"
    n = tokens.write(path, one_d_tokens(32), codec="c", weights_hash=HASH)
    assert path.stat().st_size == n
    with pytest.raises(InputError):
        tokens.write(path, replace(one_d_tokens(1), streams=(torch.full((1, 1, 1), -1),)), codec="c", weights_hash=HASH)
    assert tokens.read(path).tokens.codes.shape == (1, 1, 32)
    assert [p.name for p in path.parent.iterdir()] == ["a.cz"]


def test_files_are_small() -> None:
    for n in (32, 256):
        data = dumps(one_d_tokens(n))
        assert len(data) <= n * 12 // 8 + 60
        assert tokens.read_header(data).payload_bytes == n * 12 // 8 + 2 + (n > 84)


def test_padding_takes_no_bytes() -> None:
    short = one_d_tokens(32)
    padded = replace(short, streams=(torch.cat([short.codes, torch.full((1, 1, 224), 7)], 2),))
    padded = replace(padded, lengths=(torch.tensor([32]),))
    a, b = tokens.read_header(dumps(short)), tokens.read_header(dumps(padded))
    assert a.payload_bytes == b.payload_bytes


def test_golden_file() -> None:
    """Files written by version 1 stay readable, and mean the same codes."""
    codes = torch.tensor([[[(i * i * 37 + 11 * i) % 4096 for i in range(12)]]])
    data = bytes.fromhex(GOLDEN)
    read = tokens.read(data)
    assert torch.equal(read.tokens.codes, codes)
    assert read.tokens.spec == ONE_D
    assert (read.header.codec, read.header.weights_hash, read.header.fit) == ("one_d_piece_s256", HASH, FIT)


@pytest.mark.parametrize("block", range(3))
def test_golden_blocks(block: int) -> None:
    """The same for the range-coded blocks: their tables, runs and priors are part of the format."""
    codes = [i * i % 5 * (i % 7 == 0) for i in range(1500)]
    assert entropy.expand(bytes.fromhex(GOLDEN_BLOCKS[block]), 5, 1500).tolist() == codes


def codes_of(vocab_size: int, count: int, skew: float, seed: int = 0) -> np.ndarray:
    uniform = np.random.default_rng(seed).random(count)
    return np.minimum((uniform**skew * vocab_size).astype(np.int64), vocab_size - 1)


@QUICK
@given(st.integers(2, 2**18), st.integers(1, 3000), st.sampled_from([1, 3, 40]), st.integers(0, 3))
def test_every_coding_round_trips(vocab_size: int, count: int, skew: float, tag: int) -> None:
    codes = codes_of(vocab_size, count, skew)
    coding = entropy.CODINGS[tag]
    assert np.array_equal(coding.decode(coding.encode(codes, vocab_size), vocab_size, count), codes)
    assert len(entropy.compress(codes, vocab_size)) <= 1 + len(coding.encode(codes, vocab_size))


def test_a_codecs_own_frequencies_make_short_files_shorter() -> None:
    usage = torch.from_numpy(np.bincount(codes_of(4096, 10**6, 6, seed=1), minlength=4096)).float()
    codes = torch.from_numpy(codes_of(4096, 256, 6))[None, None]
    written = replace(one_d_tokens(256), streams=(codes,))
    data = tokens.dumps(written, codec="c", weights_hash=HASH, priors=[usage])
    assert len(data) < len(tokens.dumps(written, codec="c", weights_hash=HASH)) - 20
    ideal = -np.log2((usage.numpy() + 1)[codes.flatten()] / 10**6).sum() / 8
    assert tokens.read_header(data).payload_bytes < ideal * 1.02 + 8
    assert torch.equal(tokens.read(data, priors=[usage * 0.37]).tokens.codes, codes), "the unit does not matter"
    with pytest.raises(FormatError, match="frequencies of 4096 entries: read it with its priors"):
        tokens.read(data)


def test_priors_may_be_of_no_use() -> None:
    written = one_d_tokens(256)
    odd = torch.zeros(4096)
    odd[:3] = torch.tensor([torch.inf, torch.nan, -1.0])
    for priors in ([None], [torch.ones(4096)], [odd], [torch.zeros(4096)]):
        data = tokens.dumps(written, codec="c", weights_hash=HASH, priors=priors)
        assert torch.equal(tokens.read(data, priors).tokens.codes, written.codes)
    plain = tokens.dumps(written, codec="c", weights_hash=HASH)
    assert tokens.dumps(written, codec="c", weights_hash=HASH, priors=[None]) == plain


@pytest.mark.parametrize(
    ("vocab_size", "count", "skew", "tag"), [(4096, 256, 1, 0), (5, 3000, 1, 1), (1024, 10**6, 5, 2), (16, 5000, 4, 3)]
)
def test_the_fitting_coding_wins_near_the_entropy(vocab_size: int, count: int, skew: float, tag: int) -> None:
    codes = codes_of(vocab_size, count, skew)
    block = entropy.compress(codes, vocab_size)
    p = np.bincount(codes) / count
    bits = -(p[p > 0] * np.log2(p[p > 0])).sum() * count if skew > 1 else count * np.log2(vocab_size)
    assert block[0] == tag
    assert len(block) * 8 <= 1.01 * bits + 8 * 32


@pytest.mark.parametrize("vocab_size", [2, 3, 1000, 4096, 2**18])
def test_range_coding_is_integer_arithmetic(vocab_size: int) -> None:
    """The decoder of docs/format.md, integers only and without the library, reads what the library wrote."""
    codes = codes_of(vocab_size, 500, 4)
    counts = np.bincount(codes, minlength=vocab_size)
    total, room = sum(map(int, counts)), 2**24 - vocab_size
    free = [int(n) * room // total for n in counts]
    free[int(np.argmax(counts))] += room - sum(free)
    edges = [0]
    for weight in free:
        edges.append(edges[-1] + weight + 1)
    assert edges[-1] == 2**24
    words = np.frombuffer(entropy._range_encode([(codes, entropy._model(counts))]), "<u4").tolist() + [0] * 4
    lower, span, point, at, mask = 0, 2**64 - 1, words[0] << 32 | words[1], 2, 2**64 - 1
    for code in codes:
        unit = span >> 24
        found = bisect.bisect_right(edges, ((point - lower) & mask) // unit) - 1
        assert found == code
        lower, span = (lower + unit * edges[found]) & mask, unit * (edges[found + 1] - edges[found])
        if span < 2**32:
            lower, span, point = lower << 32 & mask, span << 32, (point << 32 & mask) | words[at]
            at += 1


def test_models_do_not_depend_on_float_precision() -> None:
    codes = codes_of(1000, 2000, 3)
    counts = np.bincount(codes, minlength=1000)
    free = counts * (2**24 - 1000) // counts.sum()
    free[np.argmax(counts)] += 2**24 - 1000 - free.sum()
    words = []
    for dtype in (np.float32, np.float64):
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(codes.astype(np.int32), constriction.stream.model.Categorical(free.astype(dtype), perfect=False))
        words.append(encoder.get_compressed().astype("<u4").tobytes())
    assert words[0] == words[1] == entropy._range_encode([(codes, entropy._model(counts))])


def test_the_document_holds_the_dictionary() -> None:
    page = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
    assert f"{zlib.crc32(header.DICTIONARY):08x}" in page
    assert f"{len(header.DICTIONARY)} bytes" in page
    assert f"**versions {tokens.PLAIN} and {tokens.VERSION}**" in page


GOLDEN = (
    "ab637a0a01402743843de1803648334eb44c324c364a3149354d33331f19016f684476b89b1a1beb9818600d770013000000"
    "300aa16e27c3d4576762998c18ee21f64a7ea1e2"
)

GOLDEN_CLIP = (
    "ab637a0a02d903aa01a5954d0ec22010852f3421145a5bced2188340a30b4a23a3d145ef2ed3a69afea80b37b3994cc87c6f"
    "dee3cdde84e8433cd8db9a306fa456c7cc089bbba2d9951bc4a73859d8fa33f17f93666def991ec3d3672252e75041b5ff7e"
    "8c1be9f94b10090266665430c6d15259a1982a39176aaa2fc9c67e2d39e574fab2321a457d41b226149c6cad11b53979d762"
    "a49118aead65becb9361d3cece77f84818d2f6015d6478c7e13afbfe091900000000250094014d0250039d0534071509400b"
    "b50e74117d736f756e64736f756e64736f756e64000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d"
    "1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f"
    "505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f8081"
    "82838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3"
    "b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5"
    "e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff6b4816e7"
)

GOLDEN_BLOCKS = (
    "01ccab000013ebed94276bf65493c5b8328930395e6a685bf33a2ea78b437dea6a4f83ba513245c67421f927c62219d68d5b"
    "ba07a8cb3fabc2c58fa5207937ead2474dfa8c1e63245a3492bd5e1a300ac39afab947bb326eeeef485743947c835250c67e"
    "055a34a30f1724ce845c6e0c2dd527c5f9210d1a22dd86862361d4991d38f6f7392137583fbd19f05da8a67a3a711ccdd4f3"
    "5202fe2c9370b641352b34a28ed51ec74e5e66e22490e863098a69fa4b1d3b110adfad9895fc057c2d98736fd48f1bbd451f"
    "48690815f5d09e639c88afed517bb3f09310c16b0eb9a09a79f5f617eb0f280595271d1bdb04516776c9f2790a6e9d9434d6"
    "468e9b6f8c462ac731d7c3daf1a4f87ba682e0187448b2c94806e8ef25a8a6d162a7a323a92578f9f941adde7f4fa2628c68"
    "b98730d95b7a291c4cfb01179a45aece6f5aa285992f0b88f8fa0ecc745710afb9a84591414eda07d937356078b4f19888a0"
    "e236eb990416ac1b55dd6f9b84fca53884183037d53313c71fc3024eaefda2d112ba63e9d29d94e97e7149a359b1b9e192cf"
    "78571543b0dc8c58e83998b81e8a94038d7f719c00c111c46aff046848f1a5f6fe1fcef53e",
    "020f00000078da33600d630081300600057300e21581a069d225a8db7a08b475897a647f1c51640a80599998d2b90647b1f4"
    "782db8ae92caad11b14702c4444a73600e318d06a537dda86917bc347be30b36466ee3d96a325dad85d3dce615fd75646228"
    "4252bc7b132d306b92c521d8b88f4d758ac47e8de9e6913cb88bbe5f306aef93fd8a6bc2c4d553d7",
    "0301ccab00000facc4ad93bbc25950c7b8323be55a603f026f947c4e1fae1eb6f34016f14172d87701e47be5ded493fcf5da"
    "b0d717f49d929301530eb27cb154a2d2df3602b6b9af7da2087862ed80c4357ad08f2f621e2a0f6d192c905a861b99e1870e"
    "d64c4c3c08c3148de5b280d6f89ab669c8f71186709b13dfb5d6857a8c6b22646c5a",
)
