"""TorchScript archives read as data: every tensor by name, nothing run, hostile files give one line."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codeczoo.core.errors import InputError, WeightsError
from codeczoo.io.torchscript import is_archive
from codeczoo.io.weights import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Module(nn.Module):
    """Parts as real archives have them: types, tables that are no parameters, lists, text, a shared part, views."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).bfloat16()
        self.seq = nn.Sequential(nn.Linear(4, 2).double(), nn.Identity(), nn.GroupNorm(1, 4))
        self.register_buffer("table", torch.arange(12, dtype=torch.int32).view(3, 4).t(), persistent=False)
        self.register_buffer("row", self.table[1], persistent=False)
        self.levels, self.text, self.nothing, self.again = [8, 8, 5], "DV", None, self.conv

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table.sum() + len(self.levels)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jit") / "encoder.jit"
    torch.jit.save(torch.jit.script(Module().eval()), path)
    return path


@pytest.mark.parametrize("made", ["script", "trace"])
def test_every_tensor_by_name(made: str, tmp_path: Path) -> None:
    path, module = tmp_path / "weights.pt", Module().eval()
    torch.jit.save(torch.jit.script(module) if made == "script" else torch.jit.trace(module, torch.rand(2)), path)
    found, wanted = read_tensors(path), torch.jit.load(path).state_dict()
    assert is_archive(path) and set(found) == set(wanted) and "table" in found
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


def test_two_archives_of_a_folder(archive: Path, tmp_path: Path) -> None:
    for name in ("encoder", "decoder"):
        module = nn.Module()
        module.add_module(name, nn.Linear(2, 2))
        torch.jit.save(torch.jit.script(module), tmp_path / f"{name}.jit")
    found = read_tensors(tmp_path)
    assert set(found) == {f"{half}.{kind}" for half in ("encoder", "decoder") for kind in ("weight", "bias")}
    (tmp_path / "decoder.jit").write_bytes((tmp_path / "encoder.jit").read_bytes())
    with pytest.raises(WeightsError, match="both archives hold encoder"):
        read_tensors(tmp_path)
    (tmp_path / "decoder.jit").unlink()
    with pytest.raises(InputError, match=r"decoder.jit is absent"):
        read_tensors(tmp_path)


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    assert not is_archive(tmp_path / "a.pt") and torch.equal(read_tensors(tmp_path / "a.pt")["a"], torch.ones(2))


def test_frozen_modules_have_lost_their_names(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.freeze(torch.jit.script(Module().eval())), tmp_path / "a.jit")
    with pytest.raises(WeightsError, match="frozen"):
        read_tensors(tmp_path / "a.jit")


def changed(archive: Path, target: Path, change: Callable[[str, bytes], bytes | None], kind: int = 0) -> Path:
    """A copy whose members are changed; None leaves one out."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w", kind) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def tree(data: bytes) -> Callable[[str, bytes], bytes]:
    return lambda name, old: data if name.endswith("/data.pkl") else old


HEAD = b"\x80\x02c__torch__\nM\n)\x81}(X\x01\x00\x00\x00a"  # an object whose attribute "a" follows


def one_tensor(count: int, offset: int, size: int, stride: int) -> Callable[[str, bytes], bytes]:
    """An archive of a single tensor of float32, whose file holds one number."""
    number = lambda n: b"J" + struct.pack("<i", n)  # noqa: E731
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s  # noqa: E731
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + number(count) + b"tQ"
    where = number(offset) + b"(" + number(size) + b"t(" + number(stride) + b"t"
    data = HEAD + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + where + b"\x89}tRub."
    return lambda name, old: data if name.endswith("/data.pkl") else b"1234" if name.endswith("data/0") else old


HOSTILE = {
    "calls os.system": (tree(b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR."), "names os.system, which is not"),
    "an instance": (tree(b"\x80\x02(ios\nsystem\n."), "wants INST"),
    "no module": (tree(b"\x80\x02}."), "holds no module"),
    "a state of a list": (tree(b"\x80\x02]}b."), "sets the state"),
    "calls a class": (tree(b"\x80\x02c__torch__\nM\n)R."), "calls M"),
    "fewer numbers than it says": (one_tensor(2, 0, 1, 1), "does not hold 2 numbers"),
    "numbers behind the last": (one_tensor(1, 9, 1, 1), "corrupt"),
    "terabytes out of one number": (one_tensor(1, 0, 2**31 - 1, 0), "larger than its numbers"),
    "modules without end": (tree(b"\x80\x02c__torch__\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub."), "64 deep"),
    "no tree": (lambda name, old: None if name.endswith("/data.pkl") else old, "wants one data.pkl"),
    "no numbers": (lambda name, old: None if "/data/" in name else old, "corrupt"),
    "big-endian": (lambda name, old: b"big" if name.endswith("byteorder") else old, "big-endian"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_run_nothing(name: str, archive: Path, tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    with pytest.raises(WeightsError, match=message):
        read_tensors(changed(archive, tmp_path / "a.jit", change))


def test_one_tensor(archive: Path, tmp_path: Path) -> None:
    """The hostile ones above fail for what they say."""
    found = read_tensors(changed(archive, tmp_path / "a.jit", one_tensor(1, 0, 1, 1)))
    assert found["a"].numpy().tobytes() == b"1234"


def test_compressed_numbers_are_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="compressed"):
        read_tensors(changed(archive, tmp_path / "a.jit", lambda _, old: old, zipfile.ZIP_DEFLATED))


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1), at=st.floats(0, 1), byte=st.integers(0, 255))
def test_damaged_archives_give_one_line(archive: Path, cut: float, at: float, byte: int) -> None:
    data = bytearray(archive.read_bytes())
    data[int(at * (len(data) - 1))] = byte
    path = archive.with_name("damaged.jit")
    path.write_bytes(data[: int(cut * len(data))] if cut < 0.5 else data)
    try:
        read_tensors(path)
    except WeightsError as error:
        assert "\n" not in str(error)
