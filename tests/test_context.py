"""Context models: codes by those around them, bit-exact, in fewer bytes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import one_d_piece_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import codeczoo
from codeczoo import zoo
from codeczoo.cli.main import main
from codeczoo.core.errors import FormatError, InputError, WeightsError
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.export import context_fit
from codeczoo.io import context, entropy, tokens
from codeczoo.io.neighbours import ABSENT, AROUND, PAST, SEGMENT, Positions

HASH = "0f3a9b1c2d4e5f67"
AXES = ("time", "row", "column")


def spec_of(*streams: tuple[int, ...], axes: int = 1, size: int | None = None) -> TokenSpec:
    shape = (size, *[None] * (axes - 1))
    found = [StreamSpec(sizes, AXES[:axes], shape, 1.0, f"s{i}") for i, sizes in enumerate(streams)]
    return TokenSpec("image", "image", tuple(found), ("codebooks", "streams"))


def random_model(spec: TokenSpec, width: int = 6, soft: int = 0) -> context.ContextModel:
    """Of whole numbers that no training would give: up to the largest that may be stored."""
    planes = context_fit.planes_of(spec, None)
    positions = [int(s.shape[0] or 0) if len(s.axes) == 1 else 0 for s in spec.streams]
    counts = [torch.ones(plane.radix) for plane in planes]
    net = context_fit.Net(planes, positions, counts, 3, width)
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            numbers = torch.arange(p.numel()).reshape(p.shape)
            p.copy_(((numbers * numbers * 37 + numbers * 101 + i * 11) % 129 - 64) / 2.0 ** (i % 7 + soft))
    rows = [[p.stream, p.codebook, p.place, p.radix, [[t.source, [*t.offset]] for t in p.taps]] for p in planes]
    header = {"codec": "c", "weights_hash": HASH, "planes": rows, "positions": positions}
    return context.ContextModel(header, net.whole())


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_every_codebook_round_trips(draw: st.DataObject) -> None:
    axes, seed = draw.draw(st.integers(1, 3)), draw.draw(st.integers(0, 1000))
    vocab = st.sampled_from([1, 2, 5, 40, 70_000])
    books = draw.draw(st.lists(st.lists(vocab, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3))
    spec = spec_of(*books, axes=axes, size=draw.draw(st.sampled_from([None, 7])))
    model, random = random_model(spec), np.random.default_rng(seed)
    writer, reader = context.View(model), context.View(model)
    for s, sizes in enumerate(books):
        shape = [draw.draw(st.integers(1, (300, 4, 4)[axis])) for axis in range(axes)]
        valid = np.arange(shape[0]) < random.integers(0, shape[0] + 1, (2, 1))
        for k, size in enumerate(sizes):
            codes = random.integers(0, size, (2, *shape))
            data = writer.encode(s, k, valid, codes)
            assert np.array_equal(reader.decode(s, k, valid, shape, data), codes[valid].reshape(-1))


def test_streams_of_fewer_codebooks_and_nothing_at_all() -> None:
    """A finer stream is coded, though not all codebooks of the coarser one are there; grids may be empty."""
    spec = spec_of((5, 7), (300, 5), axes=2)
    model, random = random_model(spec), np.random.default_rng(0)
    full, none = np.ones((1, 3), bool), np.zeros((1, 3), bool)
    for valid, shape in ((full, (3, 4)), (none, (3, 4)), (np.ones((1, 0), bool), (0, 4))):
        codes = [random.integers(0, 5, (1, *shape)) for _ in range(3)]
        written = Tokens(spec, (torch.from_numpy(codes[0])[:, None], torch.from_numpy(np.stack(codes[1:], 1))),
                         torch.tensor([[3, 4]]), tuple(torch.tensor([int(valid.sum())]) for _ in range(2)))
        writer, reader = context.View(model), context.View(model)
        for s, k, own in ((0, 0, codes[0]), (1, 0, codes[1]), (1, 1, codes[2])):
            words = writer.encode(s, k, valid, own)
            assert np.array_equal(reader.decode(s, k, valid, shape, words), own[valid].reshape(-1))
        data = tokens.dumps(written, codec="c", weights_hash=HASH, context=model)
        assert all(torch.equal(a, b * torch.from_numpy(valid)[:, None, :, None]) for a, b in
                   zip(tokens.read(data, contexts=[model]).tokens.streams, written.streams, strict=True))


def test_codes_outside_the_vocabulary_are_refused(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits may make more codes than a codebook has entries."""
    model, written = context.load(learned), chain(300, 5)
    data = tokens.dumps(written, codec="c", weights_hash=HASH, context=model)
    monkeypatch.setattr(context.View, "decode", lambda self, s, k, valid, shape, words: np.full(300, 11))
    with pytest.raises(FormatError, match=r"code 11 is outside 0\.\.10"):
        tokens.read(data, contexts=[model])


def test_what_is_looked_at_is_known() -> None:
    """The own plane is seen at earlier steps only, everything where it is said to be."""
    random = np.random.default_rng(0)
    for axes, offsets in PAST.items():
        shape = (SEGMENT * 2 + 9, 5, 6)[:axes] if axes == 1 else (4, 5, 6)[:axes]
        valid = np.arange(shape[0]) < np.array([[shape[0]], [shape[0] - 2]])
        grid = Positions(valid, shape)
        turn = np.full(math.prod(grid.shape), len(grid))
        for i, (start, stop) in enumerate(grid.steps()):
            turn[grid.flat[start:stop]] = i
        codes = random.integers(0, 99, grid.shape)
        for offset in [*offsets, *AROUND[axes]]:
            index = grid.moved(offset, within_segment=offset in offsets)
            there = index != ABSENT
            if offset in offsets:
                assert (turn[index[there]] < turn[grid.flat[there]]).all()
            for i in random.permutation(len(grid))[:50]:
                sample, *at = (int(a[i]) for a in grid.at)
                other = tuple(a + b for a, b in zip(at, offset, strict=True))
                inside = all(0 <= a < size for a, size in zip(other, shape, strict=True)) and valid[sample, other[0]]
                if axes == 1 and offset in offsets:
                    inside = inside and other[0] // SEGMENT == at[0] // SEGMENT
                assert inside == there[i]
                assert not inside or codes.reshape(-1)[index[i]] == codes[(sample, *other)]


def test_coarser_grids_are_seen_by_their_share() -> None:
    fine = Positions(np.ones((1, 4), bool), (4, 6, 6))
    coarse = Positions(np.array([[True, False]]), (2, 2, 3))
    index = fine.on(coarse)
    for place, (_, t, y, x) in zip(index, zip(*fine.at, strict=True), strict=True):
        wanted = np.ravel_multi_index((0, t // 2, y // 3, x // 2), coarse.shape) if t < 2 else ABSENT
        assert place == wanted


def test_weights_are_whole_number_arithmetic() -> None:
    """As docs/format.md has them, in Python's integers of any size."""
    model = random_model(spec_of((5, 300), axes=1, size=9), width=4)
    state, random = {key: value.astype(int).tolist() for key, value in model._state.items()}, np.random.default_rng(0)
    for number, plane in enumerate(model.planes):
        values = np.stack([random.integers(0, model.rows(tap.source), 30) for tap in plane.taps])
        found = model.weights(number, values)
        mix, second, out = (state[f"{number}.{name}"] for name in ("mix", "second", "out"))
        biases = [state[f"{number}.{name}"] for name in ("first_bias", "second_bias", "out_bias")]
        for row in range(30):
            hidden = list(biases[0])
            for tap, matrix, value in zip(plane.taps, mix, values[:, row].tolist(), strict=True):
                entry = state[f"embed.{tap.source}"][value]
                for j in range(len(hidden)):
                    hidden[j] += sum(e * matrix[i][j] for i, e in enumerate(entry)) >> 8
            hidden = [min(max(h, 0), 2**15 - 1) for h in hidden]
            hidden = [(biases[1][j] + sum(h * second[i][j] for i, h in enumerate(hidden))) >> 10 for j in range(4)]
            hidden = [min(max(h, 0), 2**15 - 1) for h in hidden]
            logs = [(biases[2][j] + sum(h * out[i][j] for i, h in enumerate(hidden))) >> 12 for j in range(plane.radix)]
            below = [min(max(logs) - one, 63 * 256) for one in logs]
            assert found[row].tolist() == [power(b % 256) >> b // 256 for b in below]
    assert found.max() == 2**24 and found.min() == 0


def power(fraction: int) -> int:
    """floor(2^(24 - fraction / 256)), by bisection."""
    low, high = 0, 2**25
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**256 <= 2 ** (24 * 256 - fraction) else (low, middle)
    return low


def test_golden_block() -> None:
    """Files stay readable: order, neighbours and arithmetic are part of the format."""
    model = random_model(spec_of((7, 9), axes=2), soft=3)
    codes = np.arange(40).reshape(1, 5, 8)
    view, valid = context.View(model), np.ones((1, 5), bool)
    found = [view.encode(0, k, valid, codes * codes % (7, 9)[k]).hex() for k in range(2)]
    assert [model.digest, *found] == GOLDEN


def chain(n: int, seed: int, vocab_size: int = 11) -> Tokens:
    """Two codebooks: each code is mostly the one before and 3 more; the second one is the first and the next."""
    random = np.random.default_rng(seed)
    steps = np.where(random.random(n + 1) < 0.9, 3, random.integers(0, vocab_size, n + 1))
    first = steps.cumsum() % vocab_size
    both = np.stack([first[:-1], (first[:-1] + first[1:]) % vocab_size])
    return Tokens(spec_of((11, 11)), (torch.from_numpy(both)[None],), torch.tensor([[n]]))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("context") / "model.safetensors"
    train, val = [chain(400, i) for i in range(20)], [chain(400, 99)]
    fitted = context_fit.fit(train, val, codec="c", weights_hash=HASH, spec=train[0].spec, steps=500)
    assert fitted.codes == [400, 400] and fitted.unigram[0] > 3.2 and fitted.context[0] < 1.2
    assert fitted.context[1] < 0.5, "the second codebook is known from the first, also from what comes later"
    context.save(path, fitted.header, fitted.state)
    return path


def test_learned_models_make_files_smaller(learned: Path) -> None:
    model, written = context.load(learned), chain(700, 5)
    plain = tokens.dumps(written, codec="c", weights_hash=HASH)
    data = tokens.dumps(written, codec="c", weights_hash=HASH, context=model)
    assert len(data) < 0.5 * len(plain)
    assert torch.equal(tokens.read(data, contexts=[model]).tokens.codes, written.codes)
    first = tokens.dumps(written.prefix(codebooks=1), codec="c", weights_hash=HASH, context=model)
    assert torch.equal(tokens.read(first, contexts=[model]).tokens.codes, written.codes[:, :1])
    noise = Tokens(written.spec, (torch.randint(11, (1, 2, 700)),), written.size)
    assert len(tokens.dumps(noise, codec="c", weights_hash=HASH, context=model)) <= len(
        tokens.dumps(noise, codec="c", weights_hash=HASH)
    ), "the smallest block counts"
    with pytest.raises(FormatError, match=f"context model {model.digest}, which does not come with the package"):
        tokens.read(data)
    with pytest.raises(InputError, match="a context model of weights 0f3a9b1c2d4e5f67"):
        tokens.dumps(written, codec="c", weights_hash="f" * 16, context=model)


def test_small_files_do_not_claim_much_work(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, written = context.load(learned), chain(700, 5)
    data = tokens.dumps(written, codec="c", weights_hash=HASH, context=model)
    plain = tokens.dumps(written, codec="c", weights_hash=HASH)
    monkeypatch.setattr(tokens, "_most_by_context", lambda block: 699)
    with pytest.raises(FormatError, match=r"700 codes by context in \d+ bytes are more than a block may claim"):
        tokens.read(data, contexts=[model])
    assert tokens.dumps(written, codec="c", weights_hash=HASH, context=model) == plain


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_damaged_words_are_a_format_error_or_other_codes(learned: Path, at: int, flip: int) -> None:
    model, written = context.load(learned), chain(300, 5)
    words = bytearray(context.View(model).encode(0, 0, np.ones((1, 300), bool), written.codes[:, 0].numpy()))
    words[at % len(words)] ^= flip
    try:
        found = context.View(model).decode(0, 0, np.ones((1, 300), bool), (300,), bytes(words))
    except FormatError:
        return
    assert found.shape == (300,) and found.min() >= 0 and found.max() < 11


def test_models_are_checked(learned: Path, tmp_path: Path, tiny_codec: Any) -> None:
    zoo.save(tmp_path / "codec.safetensors", tiny_codec)
    with pytest.raises(WeightsError, match="no context model"):
        context.load(tmp_path / "codec.safetensors")
    with pytest.raises(InputError, match="no such file"):
        context.load(tmp_path / "absent.safetensors")
    model = context.load(learned)
    state = {key: torch.from_numpy(value) for key, value in model._state.items()}
    header = context.weights.read_header(learned)[context.HEADER]
    for broken in ({"0.mix": state["0.mix"][:1]}, {"0.out": state["0.out"] * 2**20}, {"1.second": state["1.out"]}):
        with pytest.raises(WeightsError, match=r"plane \d does not fit together"):
            context.ContextModel(header, state | broken)
    with pytest.raises(WeightsError, match="embed"):
        context.ContextModel(header, {key: value for key, value in state.items() if key != "embed.0"})


def test_digits_of_large_codebooks() -> None:
    for size in (2, 4096, 2**14, 2**14 + 1, 64_000, 65_536, 2**36, 2**62):
        digits = context_fit.factors_of(size)
        assert math.prod(digits) >= size > math.prod(digits[:-1]) and (size > 2**14) == (len(digits) > 1)
    planes = context_fit.planes_of(spec_of((64_000,), (1024,)), [8, 8, 8, 5, 5, 5])
    assert [p.radix for p in planes] == [8, 8, 8, 5, 5, 5, 1024] and planes[3].place == 512
    with pytest.raises(InputError, match=r"digits of \[8, 8\] make 64 codes, which no codebook has"):
        context_fit.planes_of(spec_of((64_000,)), [8, 8])


def test_shares_are_those_of_one_model_at_a_time() -> None:
    counts = np.random.default_rng(0).integers(0, 2**24, (20, 7)) + np.eye(20, 7, dtype=int)
    encoder, codes = entropy.RangeEncoder(), np.arange(20) % 7
    encoder.each(codes, counts)
    runs = [(codes[i : i + 1], entropy._model(counts[i])) for i in range(20)]
    assert encoder.data() == entropy._range_encode(runs)


def test_from_an_export_to_files_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """codeczoo export, context, encode --context, decode --context."""
    photos, random = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    for i in range(40):
        small = Image.fromarray(random.integers(0, 256, (2, 2, 3), dtype=np.uint8))
        small.resize((160, 160), Image.Resampling.BICUBIC).save(photos / f"{i:02d}.png")
    torch.manual_seed(0)
    codec, model, out = tmp_path / "codec.safetensors", tmp_path / "context.safetensors", tmp_path / "out"
    zoo.save(codec, codeczoo.build(one_d_piece_tree()))
    on = ["--codec", str(codec), "--device", "cpu"]
    tiles = ["--fit", "tile", *on]
    assert main(["export", str(photos), "-o", str(tmp_path / "ids"), "--format", "parquet", *tiles]) == 0
    assert main(["context", str(tmp_path / "ids"), "-o", str(model), "--steps", "30"]) == 0
    assert "unigram" in capsys.readouterr().out
    assert main(["encode", str(photos), "-o", str(out / "plain"), *tiles]) == 0
    assert main(["encode", str(photos), "-o", str(out / "small"), "--context", str(model), *tiles]) == 0
    assert total(out / "small") < total(out / "plain")
    assert main(["decode", str(out / "small"), "-o", str(out / "a"), "--context", str(model), *on]) == 0
    assert main(["decode", str(out / "plain"), "-o", str(out / "b"), *on]) == 0
    assert [p.read_bytes() for p in sorted((out / "a").iterdir())] == [
        p.read_bytes() for p in sorted((out / "b").iterdir())
    ]
    capsys.readouterr()
    bits = []
    for more in ([], ["--context", str(model)]):
        assert main(["eval", str(photos), "--positions", "4", "--json", *more, *on]) == 0
        bits.append(json.loads(capsys.readouterr().out)["rows"][0]["file_bytes"])
    assert bits[1] <= bits[0]
    assert main(["decode", str(out / "small"), "-o", str(out / "c"), *on]) == 1
    assert "give it (--context)" in capsys.readouterr().err
    for wrong, why in (
        (["encode", str(photos), "-o", str(out / "d"), "--context", "shipped", *on], "none comes with the package"),
        (["encode", str(photos), "-o", str(out / "d"), "--context", str(model)], "not of image-2d's"),
        (["context", str(tmp_path / "ids"), "-o", str(tmp_path / "x.pt")], "saved as .safetensors"),
        (["context", str(tmp_path / "ids"), "-o", str(model), "--factors", "2,2"], "which no codebook has"),
    ):
        assert main(wrong) == 2 and why in capsys.readouterr().err


def total(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir())


def test_shipped_models_are_of_shipped_codecs() -> None:
    """Each is found by its codec's weights, and codes that codec's tokens."""
    for path in context._files():
        codec = zoo.load(path.stem)
        model = context.shipped(zoo.weights_hash(codec))
        assert model is not None and model.digest == context.load(path).digest
        assert {(p.stream, p.codebook) for p in model.planes} == {
            (s, k) for s, stream in enumerate(codec.spec.streams) for k in range(len(stream.vocab_sizes))
        }
        assert path.stat().st_size < 4 * 2**20
        random = np.random.default_rng(0)
        shape = (1, len(codec.spec.streams[0].vocab_sizes), *(n or 6 for n in codec.spec.streams[0].shape))
        codes = torch.from_numpy(random.integers(0, codec.spec.streams[0].vocab_sizes[0], shape))
        size = torch.tensor([[64] * (len(shape) - 2)])
        written = replace(Tokens(codec.spec, (codes,), size), lengths=None)
        view, valid = context.View(model), np.ones((1, shape[2]), bool)
        words = view.encode(0, 0, valid, codes[:, 0].numpy())
        again = context.View(model).decode(0, 0, valid, shape[2:], words)
        assert np.array_equal(again, written.codes[0, 0].flatten().numpy())


GOLDEN = [
    "f0de1d19",
    "f31e42003c28c66159f21b25b28dcccb1e81b58a",
    "30f26f00431b24b97c6df2cfeaf79b745ae855013a3bebb3",
]
