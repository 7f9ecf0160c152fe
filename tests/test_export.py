"""Patterns, export formats and the batching behind them: exact inverses, whole folders or none."""

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from codeczoo import export
from codeczoo.core.errors import CodeczooError, FormatError, InputError
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.export import arrow, dataset, hf, litdata, webdataset
from codeczoo.export.batches import NICE, Prefix, Runner, in_groups, threaded, windows
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import Flat, grid_of
from codeczoo.io.image import Fit

LINE = TokenSpec("image", "image", (StreamSpec((64,), ("position",), (16,), 16),), ("positions",), (32, 32))
STREAM = StreamSpec((10, 20, 30), ("time",), (None,), 75)
AUDIO = TokenSpec("audio", "second", (STREAM,), ("codebooks",), None, 24000, 1)
GRID = TokenSpec("image", "pixel", (StreamSpec((100,), ("row", "column"), (None, None), 1 / 256),))
PYRAMID = TokenSpec(
    "image",
    "image",
    (StreamSpec((8,), ("row", "column"), (2, 2), 4), StreamSpec((16, 4), ("row", "column"), (4, 4), 16)),
    ("streams",),
    (64, 64),
)
FORMATS = export.FORMATS
VICTIMS = {  # a file of each format, to be broken
    "npy": "tokens.bin", "parquet": "part-000000.parquet", "litdata": "chunk-0-0.bin", "megatron": "tokens.idx",
    "webdataset": "tokens-000000.tar", "hf": "data-00000-of-00001.arrow",
}  # fmt: skip


def sample(spec: TokenSpec, *grids: tuple[int, ...], batch: int = 1, seed: int = 0) -> Tokens:
    """Random tokens; grids for streams whose shape is free, else those of the spec."""
    generator = torch.Generator().manual_seed(seed)
    streams = []
    for s, stream in enumerate(spec.streams):
        shape = grids[s] if grids else tuple(n for n in stream.shape if n is not None)
        books = [torch.randint(v, (batch, 1, *shape), generator=generator) for v in stream.vocab_sizes]
        streams.append(torch.cat(books, 1))
    size = torch.tensor([spec.input_size or {"image": (48, 32), "audio": (2000,)}[spec.media]]).expand(batch, -1)
    return Tokens(spec, tuple(streams), size)


def cases() -> list[Tokens]:
    line, pyramid, audio = sample(LINE), sample(PYRAMID), sample(AUDIO, (7,))
    return [
        line,
        line.prefix(positions=1),
        sample(LINE, batch=6),
        audio,
        audio.prefix(codebooks=2),
        sample(GRID, (3, 2)),
        pyramid,
        pyramid.prefix(streams=1),
        sample(PYRAMID, batch=2),
    ]


def same(a: Tokens, b: Tokens) -> bool:
    return (
        a.spec == b.spec
        and len(a.streams) == len(b.streams)
        and all(torch.equal(x, y) for x, y in zip(a.streams, b.streams, strict=True))
        and torch.equal(a.size, b.size)
    )


@pytest.mark.parametrize("tokens", cases(), ids=lambda t: f"{t.spec.media}-{[tuple(c.shape) for c in t.streams]}")
@pytest.mark.parametrize("offset", [0, 32000])
def test_flat_has_an_exact_inverse(tokens: Tokens, offset: int) -> None:
    pattern = Flat(tokens.spec, offset)
    ids = pattern.ids(tokens)
    assert ids.dtype == np.int64 and ids.min() >= offset and ids.max() < pattern.vocabulary.size
    assert same(pattern.tokens(ids, tokens.size[0].tolist(), grid_of(tokens)), tokens)


def test_flat_order_and_ids_are_as_documented() -> None:
    codes = torch.tensor([[[1, 2], [3, 4], [5, 6]]])  # (1, K=3, T=2)
    pattern = Flat(AUDIO, 100)
    ids = pattern.ids(Tokens(AUDIO, (codes,), torch.tensor([[9]])))
    special = pattern.vocabulary.special
    assert special == {"start": 160, "end": 161, "pad": 162, "separator": 163}
    assert ids.tolist() == [160, 101, 113, 135, 102, 114, 136, 161]


def test_generated_ids_need_neither_size_nor_grid_where_the_codec_has_one() -> None:
    pattern = Flat(LINE)
    tokens = pattern.tokens([64, 5, 6, 7, 65])
    assert tokens.codes.tolist() == [[[5, 6, 7]]] and tokens.size.tolist() == [[32, 32]]
    with pytest.raises(InputError, match="any size"):
        Flat(GRID).tokens([100, 5, 101], None, (1, 1))
    with pytest.raises(InputError, match="grid"):
        Flat(GRID).tokens([100, 5, 101], (16, 16))


@pytest.mark.parametrize(
    ("spec", "change", "place"),
    [
        (AUDIO, {3: 0}, 3),  # a code of the first codebook where the third is due
        (AUDIO, {6: 63}, 6),  # the pad id
        (PYRAMID, {2: 20}, 2),  # the second stream begins early, then the first comes again
        (LINE, {4: 64}, 4),  # start inside
        (LINE, {4: 67, 5: 67}, 5),  # an empty sample between two separators
        (LINE, {1: 70}, 1),  # beyond the vocabulary
    ],
)
def test_flat_names_the_first_wrong_place(spec: TokenSpec, change: dict[int, int], place: int) -> None:
    tokens = sample(spec, (7,)) if spec is AUDIO else sample(spec)
    ids = Flat(spec).ids(tokens)
    for at, value in change.items():
        ids[at] = value
    with pytest.raises(FormatError, match=f"place {place}:"):
        Flat(spec).tokens(ids, tokens.size[0].tolist(), None if spec is LINE else grid_of(tokens))


def test_grids_of_fixed_size_are_full() -> None:
    ids = Flat(PYRAMID).ids(sample(PYRAMID))
    with pytest.raises(FormatError, match="2 positions do not fill a grid"):
        Flat(PYRAMID).tokens([ids[0], *ids[3:]])  # a whole row of the first stream is missing


@pytest.mark.parametrize("ids", [[], [64], [64, 65], [1, 2, 3], [64, 1, 2], [64, 65, 1]])
def test_flat_wants_start_and_end(ids: list[int]) -> None:
    with pytest.raises(FormatError):
        Flat(LINE).tokens(ids)


def write(folder: Path, format_: str, documents: list[Tokens], dtype: str = "auto", offset: int = 0) -> None:
    pattern = Flat(documents[0].spec, offset)
    runner = Runner(torch.nn.Linear(1, 1), "some codec", "0123456789abcdef")  # type: ignore[arg-type]
    with dataset.atomic_folder(folder) as temporary:
        Writer = dataset.format_module(format_).Writer
        writer = Writer(temporary, Writer.dtype_for(pattern.vocabulary.size, dtype))
        for i, tokens in enumerate(documents):
            fit = Fit("resize", (40 + i, 30), (32, 32)) if i % 2 else None
            size, grid = tuple(tokens.size[0].tolist()), tuple(grid_of(tokens))
            about = Document(f"folder/ünï {i}", size, grid, fit, f"{i:064x}")
            writer.add(about, pattern.ids(tokens))
        writer.close(dataset.header_of(runner, pattern, format_))


def several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the pieces of all formats so short that ten documents fill several."""
    monkeypatch.setattr(arrow, "ROWS", 3)
    monkeypatch.setattr(litdata, "BYTES", 100)
    monkeypatch.setattr(webdataset, "DOCUMENTS", 4)
    monkeypatch.setattr(hf, "BYTES", 500)


@pytest.mark.parametrize("format_", FORMATS)
def test_export_reads_back_exactly(tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    several_pieces(monkeypatch)
    documents = [sample(LINE, seed=i).prefix(positions=1 + i) for i in range(10)] + [sample(LINE, batch=4)]
    write(tmp_path / "out", format_, documents)
    reader = export.read(tmp_path / "out")
    assert len(reader) == 11 and reader.header["tokens"] == sum(len(reader.ids(i)) for i in range(11))
    for i in [10, 0, 5, 3, -1]:
        assert same(reader.tokens(i), documents[i])
    fit = Fit("resize", (43, 30), (32, 32))
    assert reader.document(3) == Document("folder/ünï 3", (32, 32), (4,), fit, f"{3:064x}")
    assert reader.document(4).fit is None
    with pytest.raises(IndexError):
        reader.ids(11)


@pytest.mark.parametrize("format_", [name for name in FORMATS if name != "megatron"])
@pytest.mark.parametrize(
    ("offset", "dtype", "stored"),
    [(0, "auto", "uint16"), (65468, "auto", "uint16"), (65469, "auto", "uint32"), (0, "int32", "int32")],
)
def test_auto_takes_uint16_exactly_while_every_id_fits(
    tmp_path: Path, format_: str, offset: int, dtype: str, stored: str
) -> None:
    write(tmp_path / "out", format_, [sample(LINE)], dtype, offset)
    reader = export.read(tmp_path / "out")
    assert reader.header["dtype"] == str(reader.ids(0).dtype) == stored and same(reader.tokens(0), sample(LINE))


def test_megatron_has_types_of_its_own(tmp_path: Path) -> None:
    for offset, stored in [(0, "uint16"), (65431, "uint16"), (65432, "int32"), (70000, "int32")]:
        write(tmp_path / str(offset), "megatron", [sample(LINE)], "auto", offset)  # 65499 + 1 ids, then 65500 + 1
        reader = export.read(tmp_path / str(offset))
        assert reader.header["dtype"] == stored and same(reader.tokens(0), sample(LINE))
    with pytest.raises(InputError, match="megatron has no uint32"):
        write(tmp_path / "out", "megatron", [sample(LINE)], "uint32")


def test_a_type_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="uint16 holds ids below 65536"):
        dataset.dtype_for(65537, "uint16")


def test_other_readers_understand_the_files(tmp_path: Path) -> None:
    documents = [sample(LINE, seed=i) for i in range(3)]
    for format_ in FORMATS:
        write(tmp_path / format_, format_, documents)
    flat = np.fromfile(tmp_path / "npy" / "tokens.bin", dtype="<u2")
    expected = np.concatenate([Flat(LINE).ids(tokens) for tokens in documents])
    assert np.array_equal(flat, expected)
    import pyarrow.parquet as pq

    part = tmp_path / "parquet" / "part-000000.parquet"
    table = pq.read_table(part)
    assert str(table.schema.field("tokens").type).startswith("list<") and table["length"].to_pylist() == [18] * 3
    assert np.array_equal(np.concatenate(table["tokens"].to_pylist()), expected)
    metadata = json.loads(pq.ParquetFile(part).metadata.metadata[b"codeczoo"])
    assert metadata == json.loads((tmp_path / "parquet" / "header.json").read_text())


@pytest.mark.parametrize("error", [RuntimeError("killed"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_export_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    wanted = InputError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted), dataset.atomic_folder(tmp_path / "out") as folder:
        (folder / "tokens.bin").write_bytes(b"half")
        raise error
    assert not list(tmp_path.iterdir())


def test_an_export_is_replaced_only_when_asked_and_only_by_a_whole_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "npy", [sample(LINE)])
    with pytest.raises(InputError, match="exists"):
        write(out, "npy", [sample(LINE)] * 2)
    with pytest.raises(RuntimeError), dataset.atomic_folder(out, overwrite=True):
        raise RuntimeError
    assert len(export.read(out)) == 1
    other = tmp_path / "photos"
    other.mkdir()
    with pytest.raises(InputError, match="no export"), dataset.atomic_folder(other, overwrite=True):
        pass


@pytest.mark.parametrize("format_", FORMATS)
def test_broken_exports_are_told(tmp_path: Path, format_: str) -> None:
    with pytest.raises(InputError, match="no export here"):
        export.read(tmp_path)
    write(tmp_path / "out", format_, [sample(LINE, seed=i) for i in range(4)])
    victim = tmp_path / "out" / VICTIMS[format_]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError):
        export.read(tmp_path / "out")
    header = tmp_path / "out" / "header.json"
    for text in ("{", "[]", '{"version": 1}'):
        header.write_text(text)
        with pytest.raises(FormatError):
            export.read(tmp_path / "out")
    header.write_text('{"version": 2, "format": "npy"}')
    with pytest.raises(FormatError, match="version 2"):
        export.read(tmp_path / "out")


def test_a_hostile_header_builds_nothing_but_patterns(tmp_path: Path) -> None:
    write(tmp_path / "out", "npy", [sample(LINE)])
    path = tmp_path / "out" / "header.json"
    header = json.loads(path.read_text())
    header["pattern"]["_target_"] = "codeczoo.export.dataset.read"
    path.write_text(json.dumps(header))
    with pytest.raises(CodeczooError, match="must begin with"):
        export.read(tmp_path / "out")


def test_prefixes_are_checked_against_the_spec() -> None:
    assert Prefix(positions=16).check(LINE)
    for prefix, message in [
        (Prefix(positions=17), r"--positions must be 1\.\.16, got 17"),
        (Prefix(codebooks=1), "--codebooks: this codec decodes prefixes of positions only"),
    ]:
        with pytest.raises(InputError, match=message):
            prefix.check(LINE)
    with pytest.raises(InputError, match="whole tokens only"):
        Prefix(streams=1).check(GRID)


def test_groups_keep_the_order_and_never_mix() -> None:
    seen: list[list[int]] = []

    def run(items: list[int]) -> list[int]:
        seen.append(items)
        return [10 * item for item in items]

    items = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    assert in_groups(items, lambda n: n % 2, 3, run) == [10 * n for n in items]
    assert all(len(group) <= 3 and len({n % 2 for n in group}) == 1 for group in seen)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere priorities are those of processes")
def test_threads_give_way_to_the_codec() -> None:
    def priority(_: int = 0) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = priority()
    assert set(threaded(range(8), priority, ahead=2)) == {min(19, max(before, NICE))}
    assert priority() == before


def test_threads_stay_a_fixed_number_of_items_in_front() -> None:
    taken = 0

    def endless() -> "object":
        nonlocal taken
        while True:
            taken += 1
            yield taken

    source = threaded(endless(), lambda n: n, ahead=4)  # type: ignore[arg-type]
    for i in range(1, 50):
        assert next(source) == i and taken <= i + 5
    source.close()  # type: ignore[attr-defined]


def test_windows_cut_after_the_item_that_fills_them() -> None:
    assert list(windows(range(7), lambda w: len(w) == 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(windows([], lambda w: True)) == []
