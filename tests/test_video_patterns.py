"""Patterns of codecs with several streams of different time strides: order, prefixes, exact inverses, wrong places."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeczoo import export
from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.export import dataset, npy, parquet
from codeczoo.export.batches import Runner
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import Flat, FrameMajor, LayerMajor, Pattern, grid_of, sizes_of
from codeczoo.io.video_fit import VideoFit

AXES, FREE = ("time", "row", "column"), (None, None, None)


def spec_of(*streams: tuple[tuple[int, ...], tuple[int, int, int]]) -> TokenSpec:
    """A video codec; vocabulary sizes and stride of each stream."""
    found = [
        StreamSpec(sizes, AXES, FREE, 1 / (f * h * w), f"layer {s}", (f, h, w))
        for s, (sizes, (f, h, w)) in enumerate(streams)
    ]
    return TokenSpec("video", "pixel", tuple(found), ("positions", "streams"))


ONE = spec_of(((64,), (4, 8, 8)))
THREE = spec_of(((5,), (8, 32, 32)), ((7, 3), (8, 16, 16)), ((4,), (4, 8, 8)))
UPWARDS = spec_of(((5,), (2, 16, 16)), ((7,), (4, 8, 8)), ((9, 2), (1, 8, 8)))  # the first is not the slowest
ODD = spec_of(((5,), (3, 8, 8)), ((6,), (2, 8, 8)))  # neither step holds the other
SPECS = {"one": ONE, "three": THREE, "upwards": UPWARDS, "odd": ODD}
PATTERNS = {"flat": Flat, "layers": LayerMajor, "frames": FrameMajor}


def clip(spec: TokenSpec, frames: int = 17, height: int = 40, width: int = 33, seed: int = 0) -> Tokens:
    """Random tokens of one clip, filled up at the end in time and space as the codecs do."""
    generator = torch.Generator().manual_seed(seed)
    longest, tall, wide = (max(s.stride[i] for s in spec.streams if s.stride) for i in range(3))
    streams = []
    for stream in spec.streams:
        assert stream.stride is not None
        f, h, w = stream.stride
        steps = 1 + -(-(frames - 1) // longest) * longest // f
        grid = (1, 1, steps, -(-height // tall) * tall // h, -(-width // wide) * wide // w)
        streams.append(torch.cat([torch.randint(v, grid, generator=generator) for v in stream.vocab_sizes], 1))
    return Tokens(spec, tuple(streams), torch.tensor([[frames, height, width]]))


def same(a: Tokens, b: Tokens) -> bool:
    pairs = [(a[i], b[i]) for i in range(b.batch)]
    return (a.spec, a.batch, len(a.streams)) == (b.spec, b.batch, len(b.streams)) and all(
        torch.equal(x.size, y.size) and all(torch.equal(*both) for both in zip(x.streams, y.streams, strict=True))
        for x, y in pairs
    )


@pytest.mark.parametrize("pattern", PATTERNS.values())
@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_pattern_has_an_exact_inverse(pattern: type[Pattern], name: str, data: st.DataObject) -> None:
    spec, offset = SPECS[name], data.draw(st.sampled_from([0, 32000]))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    frames = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    tokens = Tokens.stack([clip(spec, n, height, width, seed) for seed, n in enumerate(frames)])
    kept = data.draw(st.integers(1, len(spec.streams)))
    tokens = tokens.prefix(streams=kept)
    if data.draw(st.booleans()):
        tokens = tokens.prefix(positions=data.draw(st.integers(1, int(tokens.stream_lengths()[0]))))
    ids = pattern(spec, offset).ids(tokens)
    assert ids.min() >= offset and ids.max() < pattern(spec, offset).vocabulary.size
    assert same(pattern(spec, offset).tokens(ids, sizes_of(tokens), grid_of(tokens)), tokens)


@pytest.mark.parametrize("pattern", PATTERNS.values())
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ids_are_one_to_one_or_refused(pattern: type[Pattern], data: st.DataObject) -> None:
    """Whatever is changed, the inverse refuses it or gives tokens that have exactly these ids."""
    tokens = clip(SPECS[data.draw(st.sampled_from(sorted(SPECS)))], data.draw(st.integers(1, 10)), 8, 20)
    made = pattern(tokens.spec)
    ids = made.ids(tokens)
    for _ in range(data.draw(st.integers(1, 3))):
        ids[data.draw(st.integers(0, len(ids) - 1))] = data.draw(st.integers(-1, made.vocabulary.size + 1))
    if data.draw(st.booleans()):
        ids = np.delete(ids, data.draw(st.integers(0, len(ids) - 1)))
    try:
        back = made.tokens(ids, sizes_of(tokens), grid_of(tokens))
    except FormatError:
        return
    assert np.array_equal(made.ids(back), ids)


def test_orders_written_out() -> None:
    """Two streams, the second of half the stride in time and two codebooks; five frames of one position each."""
    spec = spec_of(((10,), (4, 8, 8)), ((100, 100), (2, 8, 8)))
    coarse = torch.tensor([0, 1]).view(1, 1, 2, 1, 1)
    fine = torch.tensor([[0, 1, 2], [50, 51, 52]]).view(1, 2, 3, 1, 1)
    tokens = Tokens(spec, (coarse, fine), torch.tensor([[5, 8, 8]]))
    start, end = 210, 211
    assert Flat(spec).ids(tokens).tolist() == [start, 0, 1, 10, 160, 11, 161, 12, 162, end]
    assert LayerMajor(spec).ids(tokens).tolist() == [start, 0, 1, 10, 11, 12, 160, 161, 162, end]
    assert FrameMajor(spec).ids(tokens).tolist() == [start, 0, 10, 160, 1, 11, 161, 12, 162, end]


def test_positions_within_a_group_are_row_major() -> None:
    codes = torch.arange(12).view(1, 1, 2, 2, 3)
    ids = FrameMajor(ONE, 1000).ids(Tokens(ONE, (codes,), torch.tensor([[5, 16, 24]])))
    assert ids[1:-1].tolist() == list(range(1000, 1012))


@pytest.mark.parametrize("name", ["one", "three"])
def test_the_first_groups_are_the_tokens_of_the_first_frames(name: str) -> None:
    tokens = clip(SPECS[name], 25)
    pattern = FrameMajor(SPECS[name])
    ids = pattern.ids(tokens)
    for n in range(1, tokens.streams[0].shape[2] + 1):
        part = pattern.ids(tokens.prefix(positions=n))
        assert np.array_equal(part[:-1], ids[: len(part) - 1])
    assert len(part) == len(ids)


@pytest.mark.parametrize("pattern", [Flat, LayerMajor])
def test_the_first_layers_are_a_prefix_of_streams(pattern: type[Pattern]) -> None:
    tokens = clip(THREE)
    ids = pattern(THREE).ids(tokens)
    for n in (1, 2, 3):
        part = pattern(THREE).ids(tokens.prefix(streams=n))
        assert np.array_equal(part[:-1], ids[: len(part) - 1])


def test_generated_ids_need_no_size_where_the_grid_is_known() -> None:
    tokens = clip(THREE, 9, 32, 64)
    ids = FrameMajor(THREE).ids(tokens)
    back = FrameMajor(THREE).tokens(ids, None, grid_of(tokens))
    assert back.size.tolist() == [[9, 32, 64]] and same(back, tokens)
    longer = FrameMajor(THREE).tokens(FrameMajor(THREE).ids(clip(THREE, 25, 32, 64)), None, grid_of(tokens))
    assert longer.size.tolist() == [[25, 32, 64]]  # time follows from the ids, rows and columns from the grid
    with pytest.raises(InputError, match="no fixed shape: give the grid"):
        FrameMajor(THREE).tokens(ids)


@pytest.mark.parametrize("pattern", PATTERNS.values())
@pytest.mark.parametrize("place", [1, 2, 9, 10, 40, 63])
def test_a_changed_id_is_named(pattern: type[Pattern], place: int) -> None:
    tokens = clip(THREE, 9)  # 2 * 4, 2 * 12 * 2 and 3 * 40 ids
    made = pattern(THREE)
    ids = made.ids(tokens)
    book = int(np.searchsorted(made._edges, ids[place], side="right")) - 1  # type: ignore[attr-defined]
    for wrong in (made.vocabulary.first[(book + 1) % 4], made.vocabulary.special["pad"], -1):
        changed = ids.copy()
        changed[place] = wrong
        with pytest.raises(FormatError, match=rf"place {place}: id {wrong} does not belong there"):
            made.tokens(changed, sizes_of(tokens), grid_of(tokens))


@pytest.mark.parametrize("pattern", PATTERNS.values())
def test_cut_rows_and_foreign_grids_are_told(pattern: type[Pattern]) -> None:
    tokens = clip(THREE, 9)
    ids, end = pattern(THREE).ids(tokens), pattern(THREE).vocabulary.special["end"]
    size, grid = sizes_of(tokens), grid_of(tokens)
    with pytest.raises(FormatError, match="the end of the sample does not belong there"):
        pattern(THREE).tokens([*ids[:-2], end], size, grid)
    for wrong in ([0] * 9, [2, 0, 1, *grid[3:]], [2, 2], [2, 10**9, 10**9, *grid[3:]], [2, 3, 2, *grid[3:]]):
        with pytest.raises(FormatError):
            pattern(THREE).tokens(ids, size, wrong)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TokenSpec("image", "image", (StreamSpec((8,), ("row", "column"), (2, 2), 4),)), "not for this image codec"),
        (TokenSpec("audio", "second", (StreamSpec((8,), ("time",), (None,), 75),) * 2), "does not say what frames"),
    ],
)
def test_frame_major_is_for_frames(spec: TokenSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrameMajor(spec)


def test_frame_major_of_one_stream_is_flat() -> None:
    spec = TokenSpec("audio", "second", (StreamSpec((10, 20), ("time",), (None,), 75),), (), None, 24000, 1)
    tokens = Tokens(spec, (torch.randint(10, (1, 2, 7)),), torch.tensor([[2240]]))
    assert np.array_equal(FrameMajor(spec).ids(tokens), Flat(spec).ids(tokens))


@pytest.mark.parametrize("format_", [npy, parquet])
@pytest.mark.parametrize("pattern", PATTERNS.values())
def test_exports_of_video_read_back_exactly(
    tmp_path: Path, format_: object, pattern: Callable[[TokenSpec], Pattern]
) -> None:
    documents = [clip(THREE, n, 40 + n, 33, n).prefix(streams=1 + n % 3) for n in (1, 2, 9, 24)]
    documents.append(Tokens.stack([clip(THREE, n, seed=n) for n in (9, 1, 20)]))
    name = format_.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    runner = Runner(torch.nn.Linear(1, 1), "some codec", "0123456789abcdef")  # type: ignore[arg-type]
    with dataset.atomic_folder(tmp_path / "out") as folder:
        writer = format_.Writer(folder, "uint16")  # type: ignore[attr-defined]
        for i, tokens in enumerate(documents):
            about = Document(str(i), tuple(sizes_of(tokens)), tuple(grid_of(tokens)), None, "")
            writer.add(about, pattern(THREE).ids(tokens))
        fit = VideoFit(Fraction(25, 2))
        writer.add(replace(about, id="5", fit=fit), pattern(THREE).ids(tokens))
        writer.close(dataset.header_of(runner, pattern(THREE), name))
    reader = export.read(tmp_path / "out")
    assert reader.tokens(4).sample_rate is None and reader.tokens(5).sample_rate == 12.5
    assert all(same(reader.tokens(i), tokens) for i, tokens in enumerate(documents))
    assert reader.document(4).size == (9, 40, 33, 1, 40, 33, 20, 40, 33)
