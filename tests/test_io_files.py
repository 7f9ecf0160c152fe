"""Finding inputs and writing outputs whole."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeczoo.core.errors import InputError
from codeczoo.io.files import Found, atomic, find, told_apart

SUFFIXES = (".png", ".jpg")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def stems(found: list[Found]) -> list[str]:
    return [f.stem.as_posix() for f in found]


def test_folders_keep_their_structure(tmp_path: Path) -> None:
    touch(tmp_path, "b/z.png", "b/a/y.JPG", "x.v2.png", "notes.txt", ".hidden/a.png", ".b.png")
    found = find([tmp_path], SUFFIXES)
    assert stems(found) == ["x.v2", "b/z", "b/a/y"]
    assert found[0].output(Path("out"), ".cz") == Path("out/x.v2.cz")
    assert find([tmp_path], SUFFIXES) == found


def test_files_and_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.jpg", "a/3.txt", "b/1.png", "odd.dat", "we[ird].png")
    assert stems(find([tmp_path / "odd.dat"], SUFFIXES)) == ["odd"]
    assert stems(find([tmp_path / "we[ird].png"], SUFFIXES)) == ["we[ird]"]
    assert stems(find([f"{tmp_path}/a/*"], SUFFIXES)) == ["1", "2"]
    assert stems(find([f"{tmp_path}/*/1.png"], SUFFIXES)) == ["a/1", "b/1"]
    assert stems(find([f"{tmp_path}/**/1.png"], SUFFIXES)) == ["a/1", "b/1"]
    assert stems(find([f"{tmp_path}/[ab]"], SUFFIXES)) == ["a/1", "a/2", "b/1"]
    assert len(find([tmp_path, tmp_path / "a", f"{tmp_path}/a/*.png"], SUFFIXES)) == 4


def test_clashing_outputs_differ(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "a.png.png", "left/b.png", "right/b.png", "c.png")
    found = find([tmp_path / "left", tmp_path / "right", *sorted(tmp_path.glob("*.*"))], SUFFIXES)
    assert {f.path.relative_to(tmp_path).as_posix(): f.stem.as_posix() for f in found} == {
        "a.jpg": "a.jpg",
        "a.png": "a.png",
        "a.png.png": "a.png.png",
        "left/b.png": "left/b.png",
        "right/b.png": "right/b.png",
        "c.png": "c",
    }


@settings(max_examples=200, deadline=None)
@given(
    st.sets(
        st.tuples(
            st.lists(st.sampled_from(["p", "q"]), max_size=3),
            st.sampled_from(["a", "A", "a.png", "b"]),
            st.sampled_from([".png", ".jpg"]),
        ).map(lambda parts: Path("/", *parts[0], parts[1] + parts[2])),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 3),
)
def test_outputs_always_differ(paths: set[Path], depth: int) -> None:
    ordered = sorted(paths)
    found = [Found(p, Path(*p.parts[1:][-depth - 1 :]).with_suffix("")) for p in ordered]
    got = told_apart(found)
    assert [f.path for f in got] == ordered
    assert len({f.stem for f in got}) == len(got)


def test_outputs_stay_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/x.png", "b/x.png", "c/x.png", "c/X.png")
    monkeypatch.chdir(tmp_path / "c")
    found = find(["../a/x.png", "../b/x.png", "."], SUFFIXES)
    assert stems(found) == ["a/x.png", "b/x.png", "X", "c/x.png"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "elsewhere/b.png")
    (tmp_path / "data" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    assert stems(find([tmp_path / "data"], SUFFIXES)) == ["a", "more/b"]


@pytest.mark.parametrize("name", ["missing", "missing/*.png", "empty", "text"])
def test_nothing_found_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "text/a.txt")
    with pytest.raises(InputError, match=name.split("/")[0]) as caught:
        find([tmp_path / name], SUFFIXES)
    assert "\n" not in str(caught.value)


def test_atomic(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    with atomic(path) as temporary:
        temporary.write_bytes(b"1")
        assert temporary.suffix == ".png"
        assert not path.exists()
    assert path.read_bytes() == b"1"
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), atomic(path) as temporary:
            temporary.write_bytes(b"2")
            raise error
    assert path.read_bytes() == b"1"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_says_what_cannot_be_written(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder"):
        with pytest.raises(InputError, match=f"cannot write {path}"), atomic(path) as temporary:
            temporary.write_bytes(b"1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
