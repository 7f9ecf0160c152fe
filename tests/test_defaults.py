"""The codecs that come with the package: that they are there and small, have a page, and serve where none is named."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from PIL import Image

import codeczoo
import codeczoo.export
from codeczoo.cli import defaults
from codeczoo.cli.main import main
from codeczoo.core.errors import InputError
from codeczoo.core.places import DEFAULTS, shipped
from codeczoo.data.films import generated_film
from codeczoo.data.pictures import generated_picture
from codeczoo.data.sounds import generated_sound
from codeczoo.io import audio, image, tokens, video
from codeczoo.io.weights import read_header
from codeczoo.metrics.image import psnr

LARGEST = 12_000_000  # bytes
PAGES = ROOT / "docs" / "models"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A picture, a sound and a clip."""
    folder = tmp_path / "media"
    image.write(folder / "a.png", generated_picture(0, 1, 72))
    audio.write(folder / "a.wav", generated_sound(0, 1, 16000, 12000), 16000)
    pytest.importorskip("av", reason="av is not installed")
    video.write(folder / "b.mp4", generated_film(0, 1, 64, 9), 12)
    return folder


def test_every_default_is_shipped() -> None:
    assert set(DEFAULTS.values()) <= shipped().keys()
    for kind, name in DEFAULTS.items():
        assert read_header(shipped()[name])["spec"]["media"] == kind


@pytest.mark.parametrize("name", shipped())
def test_shipped_weights_are_small_licensed_and_have_a_page(name: str) -> None:
    path = shipped()[name]
    header = read_header(path)
    assert path.stat().st_size <= LARGEST
    assert header["extra"]["licence"] and header["extra"]["data"]
    page = (PAGES / f"{name}.md").read_text()
    assert header["weights_hash"] in page  # measured with these very weights
    assert "/work/" not in header["recipe"]
    codec = codeczoo.load(name)
    assert codec.config is not None and not any(p.isnan().any() for p in codec.parameters())


def test_files_of_all_media_need_no_codec(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded, decoded = tmp_path / "tokens", tmp_path / "decoded"
    assert main(["encode", str(media), "-o", str(coded), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoded"] == 3
    named = {path.name: tokens.read_header(path).codec for path in coded.glob("*.cz")}
    assert named == {"a.png.cz": DEFAULTS["image"], "a.wav.cz": DEFAULTS["audio"], "b.cz": DEFAULTS["video"]}
    assert main(["decode", str(coded), "-o", str(decoded)]) == 0
    assert capsys.readouterr().out.strip() == "3 decoded"
    assert image.read(decoded / "a.png.png").shape == (3, 72, 72)
    x_hat, rate = audio.read(decoded / "a.wav.wav")
    assert (x_hat.shape, rate) == ((1, 12000), 16000)
    assert video.read(decoded / "b.mp4").shape == (3, 9, 64, 64)
    assert main(["encode", str(media), "-o", str(coded)]) == 0
    assert "skipped 3" in capsys.readouterr().out
    assert main(["encode", str(media), "-o", str(tmp_path / "none"), "--codebooks", "2"]) == 2
    assert "video: --codebooks: this codec decodes prefixes of" in capsys.readouterr().err
    assert main(["decode", str(coded), "-o", str(tmp_path / "none"), "--format", "flac"]) == 2
    assert "--format flac: pictures are written as" in capsys.readouterr().err
    assert not (tmp_path / "none").exists(), "nothing is half done"


def test_gifs_that_move_are_videos(tmp_path: Path) -> None:
    video.write(tmp_path / "moves.gif", generated_film(0, 1, 64, 5), 10)
    Image.new("RGB", (9, 8), "red").save(tmp_path / "still.gif")
    (tmp_path / "broken.gif").write_bytes(b"no picture")
    found = defaults.by_media([str(tmp_path)])
    assert [one.path.name for one in found["video"]] == ["moves.gif"]
    assert [one.path.name for one in found["image"]] == ["broken.gif", "still.gif"]


def test_pictures_come_back_alike_and_better_with_more_codebooks() -> None:
    codec = codeczoo.load(DEFAULTS["image"])
    x = torch.stack([generated_picture(0, i, 128) for i in range(4)])
    with torch.inference_mode():
        coded = codec.encode(x)
        found = [psnr(x, codec.decode(coded.prefix(codebooks=n))).mean().item() for n in (1, 2, 4)]
    assert found == sorted(found) and found[0] > 18


@pytest.mark.parametrize("name", shipped())
def test_nothing_is_no_media(name: str) -> None:
    codec = codeczoo.load(name)
    size = {"image": [64, 64], "audio": [2400], "video": [9, 64, 64]}[codec.spec.media]
    whole = [2, codec.spec.channels, *(codec.spec.input_size or size)]
    for i in (0, *range(2, len(whole))):
        with pytest.raises(InputError, match="none empty"):
            codec.encode(torch.zeros(*whole[:i], 0, *whole[i + 1 :]))


def test_eval_and_export_want_one_media(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["eval"], ["export", "-o", str(tmp_path / "ids"), "--format", "npy"]):
        assert main([*command, str(media)]) == 2
        said = capsys.readouterr().err
        assert "pictures and recordings and videos want a codec each" in said and said.count("\n") == 1
    assert main(["eval", str(media / "a.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["codec"] == DEFAULTS["image"]
    assert main(["export", str(media / "a.wav"), "-o", str(tmp_path / "ids"), "--format", "npy"]) == 0
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": str(media / "a.wav")}))
    assert main(["export", str(tmp_path / "list.jsonl"), "-o", str(tmp_path / "of_list"), "--format", "npy"]) == 0
    assert codeczoo.export.read(tmp_path / "of_list").header["codec"] == DEFAULTS["audio"]


def test_report_takes_the_shipped_codecs_for_the_files(media: Path, tmp_path: Path) -> None:
    line = ["report", str(media / "a.png"), "-o", str(tmp_path / "page.html"), "--against", "none"]
    assert main(line) == 0
    facts = json.loads((tmp_path / "page.json").read_text())
    wanted = {name for name, path in shipped().items() if read_header(path)["spec"]["media"] == "image"}
    assert {codec["name"] for codec in facts["codecs"]} == wanted


def test_names_that_say_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.xyz").write_bytes(b"?")
    assert main(["encode", str(tmp_path / "x.xyz"), "-o", str(tmp_path / "t")]) == 2
    assert "no picture, recording or video by its name; if it is one, name a --codec" in capsys.readouterr().err


def test_names_of_recipes_and_of_folders_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told at once: nobody asks a network for them."""
    monkeypatch.setattr("codeczoo.io.hub.fetch", lambda name: pytest.fail(name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="image/titok_tiny is a recipe, which has no weights: train it"):
        codeczoo.load("image/titok_tiny")
    with pytest.raises(InputError, match="runs/typo: no such file or folder; the folder runs is here"):
        codeczoo.load("runs/typo")


def test_nothing_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "shipped", dict)
    with pytest.raises(codeczoo.core.errors.InputError, match="no codec for videos is shipped here"):
        defaults.default("video")


def test_weights_may_be_read_by_whoever_may_read_other_files(tmp_path: Path) -> None:
    codeczoo.save(tmp_path / "codec.safetensors", codeczoo.load(DEFAULTS["image"]))
    (tmp_path / "plain").touch()
    assert (tmp_path / "codec.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
