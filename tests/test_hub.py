"""Codecs on the Hugging Face Hub, without a network: what is sent, and what a local copy gives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import one_line, run

import codeczoo
from codeczoo import zoo
from codeczoo.core.errors import InputError
from codeczoo.io import hub

package = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
constants = pytest.importorskip("huggingface_hub.constants")


class Server:
    """Keeps what is uploaded."""

    def __init__(self) -> None:
        self.made: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.made[repository] = private

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> str:
        assert repo_id in self.made and commit_message
        self.files = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        return f"hub/{repo_id}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(package, "HfApi", lambda: server)
    return server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def keep(cache: Path, repository: str, files: dict[str, bytes], revision: str = "main", commit: str = "0" * 40) -> None:
    """A repository's local copy, laid out as huggingface_hub does."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    reference = root / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)


def test_what_is_pushed_loads_without_a_network(tiny_codec: Any, server: Server, cache: Path) -> None:
    where = codeczoo.push_to_hub(
        tiny_codec, "me/tiny", recipe="name: tiny", extra={"licence": "cc-by-4.0"}, private=True
    )
    assert where == "hub/me/tiny" and server.made == {"me/tiny": True} and {*server.files} == {hub.WEIGHTS, hub.CARD}
    card = server.files[hub.CARD].decode()
    assert "license: cc-by-4.0" in card and 'load("me/tiny")' in card and "name: tiny" in card
    assert f"| parameters | {sum(p.numel() for p in tiny_codec.parameters()):,} |" in card
    keep(cache, "me/tiny", server.files)
    loaded = codeczoo.load("me/tiny")
    assert zoo.weights_hash(loaded) == zoo.weights_hash(tiny_codec) and zoo.title("me/tiny") == "tiny"


def test_a_revision_is_pinned(
    tiny_codec: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for revision, commit in (("main", "0" * 40), ("v1", "1" * 40)):
        codeczoo.save(tmp_path / "c.safetensors", tiny_codec)
        keep(cache, "me/tiny", {hub.WEIGHTS: (tmp_path / "c.safetensors").read_bytes()}, revision, commit)
        digests.append(zoo.weights_hash(tiny_codec))
        next(p for p in tiny_codec.parameters() if p.ndim > 1).data += 1
    monkeypatch.chdir(tmp_path)
    for name, wanted in (("me/tiny", 0), ("me/tiny@main", 0), ("me/tiny@v1", 1), ("me/tiny@" + "1" * 40, 1)):
        assert zoo.weights_hash(codeczoo.load(name)) == digests[wanted], name
    assert zoo.title("me/tiny@v1") == "tiny@v1"
    keep(cache, "me/tiny", {hub.WEIGHTS: (tmp_path / "c.safetensors").read_bytes()}, "a/b", "2" * 40)
    assert zoo.title("me/tiny@a/b") == "tiny@a-b"
    with pytest.raises(InputError, match="me/tiny@v2: no local copy"):
        codeczoo.load("me/tiny@v2")
    with pytest.raises(InputError, match="me/tiny@v1' is no repository"):
        codeczoo.push_to_hub(tiny_codec, "me/tiny@v1")


def test_half_size_is_loaded_as_float32(tiny_codec: Any, tmp_path: Path) -> None:
    sizes = {}
    for dtype in (None, torch.float16, torch.bfloat16):
        path = tmp_path / f"{dtype}.safetensors"
        codeczoo.save(path, tiny_codec, dtype=dtype)
        loaded, sizes[dtype] = codeczoo.load(path), path.stat().st_size
        assert all(p.dtype == torch.float32 for p in loaded.parameters())
        assert zoo.weights_hash(loaded) == zoo.files.read_header(path)["weights_hash"]
        for name, value in tiny_codec.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-2, atol=1e-6)
    assert max(sizes[torch.float16], sizes[torch.bfloat16]) < 0.7 * sizes[None]
    next(p for p in tiny_codec.parameters() if p.ndim > 1).data[0] = 1e6
    with pytest.raises(InputError, match=r"torch\.float16 does not"):
        codeczoo.save(tmp_path / "x.safetensors", tiny_codec, dtype=torch.float16)
    assert not (tmp_path / "x.safetensors").exists()


def test_what_is_not_there_is_one_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("encode", tmp_path, "-o", tmp_path / "out", "--codec", "nobody/nothing") == 2
    line = one_line(capsys)
    assert "nobody/nothing" in line and "no local copy" in line
    with pytest.raises(InputError, match="no such file or folder"):
        zoo.find("a/b.safetensors")
    with pytest.raises(InputError, match="is no repository: owner/name"):
        codeczoo.push_to_hub(torch.nn.Identity(), "no_owner")  # type: ignore[arg-type]


def test_recipes_lose_their_paths(tiny_codec: Any, server: Server) -> None:
    codeczoo.push_to_hub(tiny_codec, "me/tiny", "data: {root: /home/me/secret/photos}\n")
    assert b"root: photos" in server.files[hub.CARD] and b"secret" not in b"".join(server.files.values())


def test_refusals_are_one_line(
    tiny_codec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(Server):
        def create_repo(self, repository: str, private: bool, exist_ok: bool) -> None:
            raise OSError("401 Client Error\nyou are nobody")

    monkeypatch.setattr(package, "HfApi", Refusing)
    codeczoo.save(tmp_path / "c.safetensors", tiny_codec)
    assert run("push", tmp_path / "c.safetensors", "me/tiny") == 2
    assert "401 Client Error you are nobody" in one_line(capsys)


def test_the_command_pushes(
    tiny_codec: Any, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = "data: {root: /home/me/secret/photos, sizes: [/a/b, 3]}\nname: tiny\n"
    codeczoo.save(tmp_path / "c.safetensors", tiny_codec, recipe, extra={"steps": 7})
    assert run("push", tmp_path / "c.safetensors", "me/tiny", "--store", "float16", "--licence", "mit") == 0
    assert "hub/me/tiny" in capsys.readouterr().out
    card = server.files[hub.CARD].decode()
    assert "root: photos" in card and "- b" in card and b"secret" not in b"".join(server.files.values())
    assert "license: mit" in card and "| steps | 7 |" in card and server.made == {"me/tiny": False}
