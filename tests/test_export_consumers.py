"""Exports as their consumers read them: LitData, Megatron-LM, Hugging Face datasets, WebDataset, NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_patterns import document, same

from codeczoo import export
from codeczoo.export import dataset, litdata, webdataset
from codeczoo.export.batches import Runner
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import Delay, Flat, Pattern, grid_of, sizes_of
from codeczoo.export.patterns.flat import OneRow

DOCUMENTS = [document([5 + i] * (1 + i % 2), codebooks=1 + i % 4, seed=i) for i in range(11)]
SPEC = DOCUMENTS[0].spec
PATTERNS: dict[str, Pattern] = {"flat": Flat(SPEC, 32000), "delay": Delay(SPEC), "big": Flat(SPEC, 70000)}


@pytest.fixture(params=PATTERNS)
def pattern(request: pytest.FixtureRequest) -> Pattern:
    return PATTERNS[request.param]


def write(folder: Path, format_: str, pattern: Pattern) -> export.Reader:
    """DOCUMENTS in a format."""
    runner = Runner(torch.nn.Linear(1, 1), "some codec", "0123456789abcdef")  # type: ignore[arg-type]
    with dataset.atomic_folder(folder) as temporary:
        Writer = dataset.format_module(format_).Writer
        writer = Writer(temporary, Writer.dtype_for(pattern.vocabulary.size))
        for i, tokens in enumerate(DOCUMENTS):
            about = Document(f"ünï.{i}", tuple(sizes_of(tokens)), tuple(grid_of(tokens)), None, f"{i:064x}")
            writer.add(about, pattern.ids(tokens))
        writer.close(dataset.header_of(runner, pattern, format_))
    return export.read(folder)


def steps(i: int, pattern: Pattern) -> Any:
    """The ids of a document as formats of one row have them: step by step."""
    return pattern.ids(DOCUMENTS[i]).T.reshape(-1)  # (K, L) -> (L * K,)


def back(ids: Any, i: int, pattern: Pattern) -> bool:
    """Whether a document's ids, step by step, are the tokens that were exported."""
    row = np.asarray(ids).astype(np.int64)
    row = row if pattern.rows is None else row.reshape(-1, pattern.rows).T
    return same(pattern.tokens(row, sizes_of(DOCUMENTS[i]), grid_of(DOCUMENTS[i])), DOCUMENTS[i])


@pytest.mark.filterwarnings("ignore")
def test_litdata_streams_the_blocks(tmp_path: Path, pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    lit = pytest.importorskip("litdata", reason="litdata is not installed: pip install litdata")
    from litdata.streaming.item_loader import TokensLoader

    monkeypatch.setattr(litdata, "BYTES", 300)
    write(tmp_path / "out", "litdata", pattern)
    block = 4 * (pattern.rows or 1)
    stream = lit.StreamingDataset(str(tmp_path / "out"), item_loader=TokensLoader(block_size=block), shuffle=False)
    found = [np.array(stream[i]) for i in range(len(stream))]
    chunks: list[list[Any]] = [[]]
    for i in range(len(DOCUMENTS)):
        chunks[-1].append(steps(i, pattern))
        if sum(map(len, chunks[-1])) * found[0].itemsize >= 300:
            chunks.append([])
    flat = [np.concatenate(chunk) for chunk in chunks if chunk]
    assert len(flat) > 2
    expected = [row[: len(row) // block * block].reshape(-1, block) for row in flat]
    assert np.array_equal(np.stack(found), np.concatenate(expected))
    loader = lit.StreamingDataLoader(stream, batch_size=2)  # as LitGPT trains
    batch = next(iter(loader)).long()
    assert batch.tolist() == np.concatenate(expected)[:2].tolist()


@pytest.mark.filterwarnings("ignore")
def test_megatron_reads_the_documents(tmp_path: Path, pattern: Pattern) -> None:
    why = "megatron-core is not installed: pip install megatron-core"
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason=why)
    write(tmp_path / "out", "megatron", pattern)
    read = indexed.IndexedDataset(str(tmp_path / "out" / "tokens"))
    assert len(read) == len(DOCUMENTS) and read.document_indices.tolist() == [*range(len(DOCUMENTS) + 1)]
    wanted = indexed.DType.optimal_dtype(pattern.vocabulary.size)
    for i in range(len(DOCUMENTS)):
        assert read[i].dtype == wanted and np.array_equal(read[i], steps(i, pattern)) and back(read[i], i, pattern)
    assert np.array_equal(read.get(3, offset=2, length=5), steps(3, pattern)[2:7])


@pytest.mark.parametrize("format_", ["parquet", "hf"])
def test_datasets_reads_the_rows(tmp_path: Path, pattern: Pattern, format_: str) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    folder = tmp_path / "out"
    write(folder, format_, pattern)
    if format_ == "hf":
        rows = datasets.load_from_disk(str(folder))
    else:
        files = str(folder / "part-*.parquet")
        rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["id"][:] == [f"ünï.{i}" for i in range(len(DOCUMENTS))]
    for i, row in enumerate(rows.with_format("numpy")):
        assert np.array_equal(row["tokens"], steps(i, pattern)) and row["length"] == len(row["tokens"])
        assert back(row["tokens"], i, pattern)


def test_hf_caches_of_two_exports_differ(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    for name in PATTERNS:
        write(tmp_path / name, "hf", PATTERNS[name])
    assert len({datasets.load_from_disk(str(tmp_path / name))._fingerprint for name in PATTERNS}) == len(PATTERNS)


def test_webdataset_streams_the_samples(tmp_path: Path, pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed: pip install webdataset")
    monkeypatch.setattr(webdataset, "DOCUMENTS", 4)
    write(tmp_path / "out", "webdataset", pattern)
    urls = str(tmp_path / "out" / "tokens-{000000..000002}.tar")
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode().to_tuple("__key__", "tokens.npy", "json"))
    assert [int(key) for key, _, _ in samples] == [*range(len(DOCUMENTS))]
    for i, (_, ids, about) in enumerate(samples):
        assert np.array_equal(ids, pattern.ids(DOCUMENTS[i])) and about["id"] == f"ünï.{i}"


def test_numpy_maps_the_table(tmp_path: Path, pattern: Pattern) -> None:
    header = write(tmp_path / "out", "npy", pattern).header
    flat = np.memmap(tmp_path / "out" / "tokens.bin", header["dtype"], mode="r")
    offsets = np.load(tmp_path / "out" / "offsets.npy")
    assert np.array_equal(flat, np.concatenate([steps(i, pattern) for i in range(len(DOCUMENTS))]))
    assert all(back(flat[offsets[i] : offsets[i + 1]], i, pattern) for i in range(len(DOCUMENTS)))
    if isinstance(pattern, OneRow):
        assert [flat[a] for a in offsets[:-1]] == [pattern.vocabulary.special["start"]] * len(DOCUMENTS)


@pytest.mark.parametrize("format_", export.FORMATS)
def test_the_same_documents_give_the_same_bytes(tmp_path: Path, format_: str) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, format_, PATTERNS["flat"])
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
