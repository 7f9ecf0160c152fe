"""What an export takes: files, manifests, tar shards, data sets on disk; told apart, each once, in order."""

import csv
import io
import json
import tarfile
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeczoo.core.errors import CodeczooError, InputError
from codeczoo.export.inputs import Absent, Input, inputs
from codeczoo.export.inputs.apart import told_apart
from codeczoo.export.inputs.entry import input_of
from codeczoo.io.files import find

SUFFIXES = (".png", ".jpg")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"content of {Path(name).name}".encode())


def taken(*paths: Path | str, column: str | None = None) -> list[Input]:
    with TemporaryFile() as scratch:
        found = list(told_apart(inputs(map(str, paths), SUFFIXES, column), scratch))
    assert [input_of(json.loads(json.dumps(one.to_dict()))) for one in found] == found
    return found


def contents(found: list[Input]) -> list[tuple[str, str]]:
    """Id and content of those that are there."""
    return [(one.id, one.found().read().decode()) for one in found if not isinstance(one, Absent)]


def absent(found: list[Input]) -> list[tuple[str, str]]:
    return [(one.id, one.why) for one in found if isinstance(one, Absent)]


def test_ids_are_those_of_the_other_commands(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "a.png.png", "left/b.png", "right/b.png", "c.png", "notes.txt")
    paths = [tmp_path / "left", tmp_path / "right", tmp_path]
    assert [one.id for one in taken(*paths)][:2] == ["left/b.png", "right/b.png"]
    wanted = {f.path: f.stem.as_posix() for f in find(paths, SUFFIXES)}
    assert {Path(one.path): one.id for one in taken(*paths) if not isinstance(one, Absent)} == wanted


def test_what_comes_twice_is_taken_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    found = taken(tmp_path, tmp_path / "b.png")
    assert absent(found) == [("link", "the same as input 0"), ("b", "the same as input 1")]
    assert contents(found) == [("a", "content of a.png"), ("b", "content of b.png")]


def test_names_that_are_no_text_become_text(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "a.png").rename(Path(str(tmp_path) + "/\udcff.png"))
    assert [one.id for one in taken(tmp_path)] == ["\\xff"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_manifests_name_files_and_say_more(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, "deep/a.png", "deep/b.dat", "c.png")
    rows: list[dict[str, Any]] = [
        {"path": "deep/b.dat", "label": "cat", "score": 0.5},
        {"path": str(tmp_path / "c.png"), "label": "", "score": 1},
        {"path": "", "label": "x", "score": 2},
        {"path": "deep/none.png", "label": "y", "score": 3},
    ]
    manifest = tmp_path / f"list.{kind}"
    if kind == "jsonl":
        manifest.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), manifest)
    else:
        with manifest.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    found = taken(manifest)
    assert [one.id for one in found] == ["deep/b", "c", "list/3", "deep/none"]
    assert absent(found) == [("list/3", "entry 3 has no path")]
    assert contents(found[:2]) == [("deep/b", "content of b.dat"), ("c", "content of c.png")]
    about = found[0].said()
    assert about is not None and about["label"] == "cat" and float(about["score"]) == 0.5
    with pytest.raises(InputError, match=r"no column 'nothing', it has path, label, score"):
        taken(manifest, column="nothing")


def test_broken_manifests_are_told_with_their_line(tmp_path: Path) -> None:
    for text, message in [
        ('{"path": "a.png"}\n{', "line 2 is not JSON"),
        ("[1]", "line 1 is no object"),
        ('{"label": 1}', "no column of path, file_name.*it has label; --column"),
        ("", "lists no file"),
    ]:
        (tmp_path / "list.jsonl").write_text(text)
        with pytest.raises(InputError, match=message):
            taken(tmp_path / "list.jsonl")
    with pytest.raises(InputError, match="no such file"):
        taken(tmp_path / "nothing.jsonl")


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


SAMPLES = {
    "a.jpg": b"A",
    "a.txt": b" a cat \n",
    "a.json": b'{"width": 3, "caption": "cat", "boxes": [1]}',
    "deep/b.cls": b"7",
    "deep/b.PNG": b"B",
    "deep/b.seg.png": b"mask",
    "c.txt": b"nothing to see",
    "._d.jpg": b"of another system",
}


def test_tar_shards_are_samples_with_what_is_said_of_them(tmp_path: Path) -> None:
    shard(tmp_path / "s-0.tar", SAMPLES)
    shard(tmp_path / "s-1.tar", {"a.jpg": b"other"})
    found = taken(tmp_path)
    assert contents(found) == [("s-0/a", "A"), ("s-0/deep/b", "B"), ("s-1/a", "other")]
    assert absent(found) == [("s-0/c", "sample c has txt, and nothing that this codec takes")]
    assert found[0].said() == {"txt": "a cat", "width": 3, "caption": "cat"}
    assert found[1].said() == {"cls": "7"} and found[3].said() is None
    assert found[1].found().path == tmp_path / "s-0.tar" / "deep" / "b.PNG"


def test_damaged_tar_shards(tmp_path: Path) -> None:
    data = shard(tmp_path / "s.tar", SAMPLES).read_bytes()
    (tmp_path / "s.tar").write_bytes(data[:1536] + b"x" * (len(data) - 1536))
    found = taken(tmp_path / "s.tar")
    assert contents(found) == [("s/a", "A")] and [one.failed for one in found if isinstance(one, Absent)] == [True]
    (tmp_path / "s.tar").write_bytes(data[:600])
    assert contents(taken(tmp_path / "s.tar")) == [("s/a", "A")]
    shard(tmp_path / "long.tar", {"a.jpg": b"x" * 5000})
    (tmp_path / "long.tar").write_bytes((tmp_path / "long.tar").read_bytes()[:2000])
    with pytest.raises(CodeczooError, match="ends within it"):
        taken(tmp_path / "long.tar")[0].found().read()
    (tmp_path / "no.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(InputError, match=r"no\.tar: not a plain tar file"):
        taken(tmp_path / "no.tar")


def test_parquet_files_hold_media(tmp_path: Path) -> None:
    touch(tmp_path, "outside.png")
    media = [{"bytes": b"A", "path": "a.png"}, {"bytes": None, "path": "outside.png"}, None]
    columns = {"label": [3, 4, 5], "image": media, "other": [b"1", b"2", b"3"]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet", row_group_size=2)
    found = taken(f"{tmp_path}/*.parquet")
    assert contents(found[:2]) == [("train/000000", "A"), ("train/000001", "content of outside.png")]
    with pytest.raises(InputError, match="column image is empty"):
        found[2].found().read()
    assert found[1].said() == {"label": 4}
    assert contents(taken(tmp_path / "train.parquet", column="other"))[2] == ("train/000002", "3")
    with pytest.raises(InputError, match="no column of media or paths, it has label"):
        pq.write_table(pa.table({"label": [3]}), tmp_path / "labels.parquet")
        taken(tmp_path / "labels.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"bad\.parquet: not a file of rows"):
        taken(tmp_path / "bad.parquet")


def test_data_sets_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    column = {"bytes": [b"A", b"B", b"C"], "path": [None, "b.png", None]}
    rows = [{"bytes": data, "path": path} for data, path in zip(*column.values(), strict=True)]
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    whole = datasets.Dataset.from_dict({"image": rows, "label": [0, 1, 2]}, features=features)
    whole.save_to_disk(tmp_path / "whole", num_shards=2)
    found = taken(tmp_path / "whole")
    assert [data for _, data in contents(found)] == ["A", "B", "C"] and found[2].said() == {"label": 2}
    assert found[0].id == "data-00000-of-00002/000000"
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(tmp_path / "both")
    assert [one.id.split("/")[0] for one in taken(tmp_path / "both")] == ["train"] * 3 + ["test"] * 3


def test_folders_of_media_leave_manifests_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "list.jsonl", "list.parquet", "list.csv")
    assert [one.id for one in taken(tmp_path)] == ["a"] == [one.id for one in taken(f"{tmp_path}/*")]
    with pytest.raises(InputError, match="nothing to read in"):
        taken(f"{tmp_path}/*.webp")
