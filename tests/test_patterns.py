"""Patterns of a row for each codebook: AudioCraft's layouts, exact inverses, the first wrong place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeczoo import export
from codeczoo.core.config import build
from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.export import dataset
from codeczoo.export.batches import Runner
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import (
    CoarseFirst,
    Delay,
    Factored,
    Flat,
    FrameMajor,
    LayerMajor,
    Parallel,
    Pattern,
    grid_of,
    sizes_of,
)
from codeczoo.export.patterns.flat import OneRow
from codeczoo.quantizers.fsq import FSQ

K, CARD = 4, 16
MOSHI = [0, 1, 1, 1]


def spec_of(vocab_sizes: tuple[int, ...]) -> TokenSpec:
    stream = StreamSpec(vocab_sizes, ("time",), (None,), 75.0)
    return TokenSpec("audio", "second", (stream,), ("codebooks",), None, 24000, 1)


SPEC = spec_of((CARD,) * K)
UNEVEN = spec_of((16, 4, 8))
PATTERNS: dict[str, Callable[[TokenSpec], Pattern]] = {
    "flat": Flat,
    "flat after text": lambda spec: Flat(spec, 32000),
    "flat, shared ids": lambda spec: Flat(spec, 7, "shared"),
    "layer-major, shared ids": lambda spec: LayerMajor(spec, 0, "shared"),
    "frame-major, shared ids": lambda spec: FrameMajor(spec, 0, "shared"),
    "delay, own ids": lambda spec: Delay(spec, vocab_offset=3, offsets="own"),
    "coarse first, own ids": lambda spec: CoarseFirst(spec, offsets="own"),
    "parallel": Parallel,
    "delay": Delay,
    "moshi": lambda spec: Delay(spec, delays=[0] + [1] * (len(spec.streams[0].vocab_sizes) - 1)),
    "delayed first": lambda spec: Delay(spec, delays=[7, *range(len(spec.streams[0].vocab_sizes) - 1)], vocab_offset=9),
    "coarse first": CoarseFirst,
    "valle": lambda spec: CoarseFirst(spec, delays=range(len(spec.streams[0].vocab_sizes) - 1), vocab_offset=100),
}


def document(lengths: list[int], spec: TokenSpec = SPEC, codebooks: int | None = None, seed: int = 0) -> Tokens:
    """Random tokens of a recording whose channels or windows have these many frames."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for n in lengths:
        books = [torch.randint(v, (1, 1, n), generator=generator) for v in spec.streams[0].vocab_sizes[:codebooks]]
        samples.append(Tokens(spec, (torch.cat(books, 1),), torch.tensor([[320 * n - 7]]), None, spec.sample_rate))
    return Tokens.stack(samples)


def same(a: Tokens, b: Tokens) -> bool:
    pairs = [(a[i], b[i]) for i in range(b.batch)]
    return (a.spec, a.batch, a.sample_rate) == (b.spec, b.batch, b.sample_rate) and all(
        torch.equal(x.codes, y.codes) and torch.equal(x.size, y.size) for x, y in pairs
    )


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_pattern_has_an_exact_inverse(name: str, data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from([SPEC, UNEVEN, spec_of((5,))]))
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    codebooks = data.draw(st.integers(1, len(spec.streams[0].vocab_sizes)))
    pattern = PATTERNS[name](spec)
    fixed = pattern.codebooks if isinstance(pattern, OneRow) else None
    tokens = document(lengths, spec, fixed or codebooks, data.draw(st.integers(0, 99)))
    ids = pattern.ids(tokens)
    assert ids.min() >= pattern.vocabulary.offset and ids.max() < pattern.vocabulary.size
    assert ids.shape[:-1] == (() if pattern.rows is None else (len(spec.streams[0].vocab_sizes),))
    assert same(pattern.tokens(ids, sizes_of(tokens), grid_of(tokens)), tokens)
    books = pattern.books(ids, grid_of(tokens))
    assert books.shape == ids.shape
    for k in range(tokens.streams[0].shape[1]):  # every code has its codebook
        codes = np.concatenate([tokens[i].codes[0, k].numpy() for i in range(tokens.batch)])
        assert sorted(ids[books == k] - pattern.vocabulary.first[k]) == sorted(codes)
    assert (books < 0).sum() == ids.size - sum(tokens[i].codes.numel() for i in range(tokens.batch))


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ids_are_one_to_one_or_refused(name: str, data: st.DataObject) -> None:
    """Whatever is changed, the inverse refuses it or gives tokens that have exactly these ids."""
    tokens = document(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    pattern = PATTERNS[name](SPEC)
    ids = pattern.ids(tokens)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, ids.size - 1))
        ids.reshape(-1)[place] = data.draw(st.integers(-1, pattern.vocabulary.size + 1))
    if data.draw(st.booleans()):
        ids = ids[..., : data.draw(st.integers(1, ids.shape[-1]))]
    try:
        back = pattern.tokens(ids)
    except (FormatError, InputError):
        return
    assert np.array_equal(pattern.ids(back), ids)


# AudioCraft's definitions (audiocraft.modules.codebooks_patterns): a layout is a list over steps of coordinates (t, q).
def parallel_layout(n: int) -> list[list[tuple[int, int]]]:
    return [[], *([(t, q) for q in range(K)] for t in range(n))]


def delay_layout(n: int, delays: list[int]) -> list[list[tuple[int, int]]]:
    out: list[list[tuple[int, int]]] = [[]]
    for step in range(n + max(delays)):
        out.append([(step - delay, q) for q, delay in enumerate(delays) if step - delay >= 0])
    return out


def coarse_first_layout(n: int, delays: list[int]) -> list[list[tuple[int, int]]]:
    out: list[list[tuple[int, int]]] = [[], *([(t, 0)] for t in range(n))]
    for step in range(n + max(delays)):
        out.append([(step - delay, q + 1) for q, delay in enumerate(delays) if step - delay >= 0])
    return out


def pattern_sequence(layout: list[list[tuple[int, int]]], codes: np.ndarray, special: int) -> np.ndarray:
    """AudioCraft's build_pattern_sequence for one item: coordinates beyond the end count as absent."""
    values = np.full((codes.shape[0], len(layout)), special)
    for step, coordinates in enumerate(layout):
        for t, q in coordinates:
            if t < codes.shape[1]:
                values[q, step] = codes[q, t]
    return values


@pytest.mark.parametrize("n", [1, 2, 3, 9])
@pytest.mark.parametrize(
    ("pattern", "layout"),
    [
        (Parallel(SPEC), parallel_layout),
        (Delay(SPEC), lambda n: delay_layout(n, [0, 1, 2, 3])),
        (Delay(SPEC, delays=MOSHI), lambda n: delay_layout(n, MOSHI)),
        (Delay(SPEC, delays=[0, 0, 5, 5]), lambda n: delay_layout(n, [0, 0, 5, 5])),
        (Delay(SPEC, delays=[3, 0, 1, 0]), lambda n: delay_layout(n, [3, 0, 1, 0])),
        (CoarseFirst(SPEC), lambda n: coarse_first_layout(n, [0, 0, 0])),
        (CoarseFirst(SPEC, delays=[0, 1, 2]), lambda n: coarse_first_layout(n, [0, 1, 2])),
    ],
)
def test_layouts_are_audiocraft_s(pattern: Pattern, layout: Callable[[int], list], n: int) -> None:
    tokens = document([n])
    expected = pattern_sequence(layout(n), tokens.codes[0].numpy(), CARD)
    assert np.array_equal(pattern.ids(tokens), expected)
    assert pattern.vocabulary.special == {"special": CARD} and pattern.vocabulary.size == CARD + 1


def test_shared_and_own_ids_written_out() -> None:
    codes = torch.tensor([[[1, 2], [3, 4], [5, 6]]])  # (1, K=3, T=2)
    tokens = Tokens(UNEVEN, (codes,), torch.tensor([[9]]), None, 24000)  # of 16, 4 and 8 entries
    shared, own = Flat(UNEVEN, 100, "shared"), Parallel(UNEVEN, vocab_offset=100, offsets="own")
    assert shared.ids(tokens).tolist() == [116, 101, 103, 105, 102, 104, 106, 117]
    assert shared.vocabulary.size == 120 and own.vocabulary.size == 129
    assert own.ids(tokens).tolist() == [[128, 101, 102], [128, 119, 120], [128, 125, 126]]
    assert LayerMajor(UNEVEN, 0, "shared").ids(tokens).tolist() == [16, 1, 2, 3, 4, 5, 6, 17]
    with pytest.raises(FormatError, match="place 2: id 104 does not belong there"):  # the second codebook has 4 entries
        shared.tokens([116, 101, 104, 105, 117])


def test_delay_written_out() -> None:
    codes = torch.arange(8).view(1, K, 2)
    ids = Delay(SPEC).ids(Tokens(SPEC, (codes,), torch.tensor([[640]])))
    s = CARD
    assert ids.tolist() == [[s, 0, 1, s, s, s], [s, s, 2, 3, s, s], [s, s, s, 4, 5, s], [s, s, s, s, 6, 7]]


@pytest.mark.parametrize(
    ("pattern", "step", "row", "value", "message"),
    [
        (Parallel(SPEC), 0, 2, 3, "step 0, codebook 2: id 3, wanted the special id 16"),
        (Parallel(SPEC), 3, 1, 16, "step 3, codebook 1: id 16, wanted a code of 0..15"),
        (Parallel(SPEC), 3, 0, 16, "step 3, codebook 1: id"),  # row 0 tells the length: a new sample seems to begin
        (Parallel(SPEC), 4, 3, -1, "step 4, codebook 3: id -1"),
        (Delay(SPEC), 1, 1, 0, "step 1, codebook 1: id 0, wanted the special id 16"),
        (Delay(SPEC), 8, 2, 17, "step 8, codebook 2: id 17"),
        (Delay(SPEC, vocab_offset=50), 4, 1, 49, "step 4, codebook 1: id 49, wanted a code of 50..65"),
        (CoarseFirst(SPEC), 5, 1, 2, "step 5, codebook 1: id 2, wanted the special id 16"),
        (CoarseFirst(SPEC), 9, 0, 2, "step 9, codebook 0: id 2, wanted the special id 16"),
        (Parallel(UNEVEN), 2, 1, 4, "step 2, codebook 1: id 4, wanted a code of 0..3"),
    ],
)
def test_the_first_wrong_place_is_named(pattern: Pattern, step: int, row: int, value: int, message: str) -> None:
    ids = pattern.ids(document([6, 6], pattern.spec))
    ids[row, step] = value
    ids[-1, -1] = 99  # a later wrong place
    with pytest.raises(FormatError, match=message):
        pattern.tokens(ids)


@pytest.mark.parametrize("pattern", [Parallel(SPEC), Delay(SPEC), CoarseFirst(SPEC)])
def test_ids_that_are_cut_or_of_another_shape_are_told(pattern: Pattern) -> None:
    ids = pattern.ids(document([6]))
    for part in (ids[:2], ids[0], ids[:, :0], ids[:, :1]):
        with pytest.raises(FormatError):
            pattern.tokens(part)
    if not isinstance(pattern, Parallel):  # which is whole at every step
        with pytest.raises(FormatError):
            pattern.tokens(ids[:, :-1])


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_factored_codes_come_back_in_every_pattern(name: str, data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from([spec_of((24,) * 3), spec_of((24,))]))
    factors = data.draw(st.sampled_from([[2, 3, 4], [4, 6], [2, 2, 2, 3]]))
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    pattern = Factored(spec, factors, PATTERNS[name])
    fixed = isinstance(pattern.digits, OneRow) and pattern.digits.codebooks is not None
    codebooks = None if fixed else data.draw(st.integers(1, len(spec.streams[0].vocab_sizes)))
    tokens = document(lengths, spec, codebooks, data.draw(st.integers(0, 99)))
    ids = pattern.ids(tokens)
    assert ids.min() >= pattern.vocabulary.offset and ids.max() < pattern.vocabulary.size
    assert pattern.rows == (None if ids.ndim == 1 else len(spec.streams[0].vocab_sizes) * len(factors))
    assert same(pattern.tokens(ids, sizes_of(tokens), grid_of(tokens)), tokens)
    books = pattern.books(ids, grid_of(tokens))
    for k, factor in enumerate(factors):  # of the first codebook
        digits = ids[books == k] - pattern.vocabulary.first[k]
        below = int(np.prod(factors[:k]))
        codes = np.concatenate([tokens[i].codes[0, 0].numpy() for i in range(tokens.batch)])
        assert sorted(digits) == sorted(codes // below % factor)
    again = build(pattern.to_dict() | {"spec": spec}, ("codeczoo.export.patterns.",))
    assert again.to_dict() == pattern.to_dict() and np.array_equal(again.ids(tokens), ids)


def test_factors_of_an_fsq_are_the_levels_of_its_channels() -> None:
    fsq = FSQ([8, 5, 3])
    codes = fsq.encode(torch.randn(1, 3, 40, generator=torch.Generator().manual_seed(0)))  # (1, 1, 40)
    spec = spec_of((120,))
    ids = Factored(spec, [8, 5, 3], Parallel).ids(Tokens(spec, (codes,), torch.tensor([[40]]), None, 24000))
    halves = torch.tensor([[4], [2], [1]])
    assert np.array_equal(ids[:, 1:], (fsq.decode(codes)[0] * halves + halves).round().long())


def test_half_a_code_is_told() -> None:
    pattern = Factored(spec_of((24,)), [2, 3, 4], Flat)
    ids = pattern.ids(document([5], pattern.spec))
    lower = ids[(pattern.books(ids) < 2)]  # two of three digits of every code
    with pytest.raises(FormatError, match="2 digits at each position are no codes of 3 digits"):
        pattern.tokens(lower, (1600,), (5,))


def test_sizes_follow_from_generated_ids_where_the_spec_has_a_rate() -> None:
    ids = Delay(SPEC).ids(document([10, 4]))
    assert Delay(SPEC).tokens(ids).size.tolist() == [[3200], [1280]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Delay(SPEC, delays=[0, 1]), "delays must be 4 numbers of at least 0"),
        (lambda: Delay(SPEC, delays=[0, 1, 2, -1]), "at least 0"),
        (lambda: CoarseFirst(SPEC, delays=[0] * 4), "delays must be 3 numbers"),
        (lambda: Parallel(SPEC, codebooks=5), r"codebooks must be 1\.\.4, got 5"),
        (lambda: Flat(SPEC, 0, "shared", 5), r"codebooks must be 1\.\.4, got 5"),
        (lambda: Flat(SPEC, 0, "both"), "own or shared, got 'both'"),  # type: ignore[arg-type]
        (lambda: Flat(SPEC, 0, "shared").ids(document([3], codebooks=2)), "2 codebooks; shared ids want 4"),
        (lambda: Flat(TokenSpec("audio", "second", SPEC.streams * 2), 0, "shared"), "codecs of one stream"),
        (lambda: Factored(SPEC, [4, 5], Flat), "make 20 codes, a codebook has 16"),
        (lambda: Factored(SPEC, [16], Flat), "at least two factors"),
        (lambda: Factored(SPEC, [16, 1], Flat), "of at least 2"),
        (lambda: Factored(SPEC, [4, 4], Flat).ids(document([3], UNEVEN)), "another codec"),
        (lambda: Parallel(SPEC, codebooks=0), r"1\.\.4, got 0"),
        (lambda: Parallel(SPEC, vocab_offset=-1), "at least 0, got -1"),
        (lambda: Parallel(SPEC, 2).ids(document([3])), "4 codebooks"),
        (lambda: Parallel(SPEC).ids(document([3], UNEVEN)), "another codec"),
        (lambda: Parallel(TokenSpec("audio", "second", SPEC.streams * 2)), "codecs of one stream, this one has 2"),
    ],
)
def test_wrong_arguments_are_told(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("format_", export.FORMATS)
@pytest.mark.parametrize(
    "pattern",
    [
        Flat(SPEC), LayerMajor(SPEC, 5), Parallel(SPEC, 3), Delay(SPEC, 3, [0, 2, 2], 70000), CoarseFirst(SPEC, 3),
        Factored(SPEC, [2, 8], Flat), Factored(SPEC, [4, 4], Delay),
    ],
)
def test_writers_keep_rows(tmp_path: Path, format_: str, pattern: Pattern) -> None:
    documents = [document([5 + i] * (1 + i % 2), codebooks=1 + i % 3, seed=i) for i in range(5)]
    runner = Runner(torch.nn.Linear(1, 1), "some codec", "0123456789abcdef")  # type: ignore[arg-type]
    with dataset.atomic_folder(tmp_path / "out") as folder:
        Writer = dataset.format_module(format_).Writer
        writer = Writer(folder, Writer.dtype_for(pattern.vocabulary.size))
        for i, tokens in enumerate(documents):
            about = Document(str(i), tuple(sizes_of(tokens)), tuple(grid_of(tokens)), None, "")
            writer.add(about, pattern.ids(tokens))
        writer.close(dataset.header_of(runner, pattern, format_))
    reader = export.read(tmp_path / "out")
    assert reader.header["rows"] == pattern.rows and reader.pattern.to_dict() == pattern.to_dict()
    for i, tokens in enumerate(documents):
        assert np.array_equal(reader.ids(i), pattern.ids(tokens)) and same(reader.tokens(i), tokens)
    if format_ == "npy" and pattern.rows is not None:  # one table of steps over all documents, as loaders want it
        table = np.fromfile(tmp_path / "out" / "tokens.bin", reader.header["dtype"]).reshape(-1, pattern.rows)
        assert np.array_equal(table, np.concatenate([pattern.ids(tokens) for tokens in documents], axis=1).T)
