"""Every command end to end, in process: outputs, exit codes, one-line messages."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import codeczoo
from codeczoo import export, zoo
from codeczoo.cli import cards, common
from codeczoo.cli import decode as decode_command
from codeczoo.cli import eval as eval_command
from codeczoo.cli.main import COMMANDS, main
from codeczoo.core.errors import InputError
from codeczoo.export import pictures
from codeczoo.export.baselines import BASELINES, at_bytes
from codeczoo.export.evaluate import Row
from codeczoo.export.judges import JUDGES
from codeczoo.export.judging import Networks
from codeczoo.export.media import MEDIA
from codeczoo.io import image, tokens


class Place(NamedTuple):
    """A folder with pictures, a codec and another codec."""

    root: Path
    photos: Path
    codec: Path
    other: Path


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size[1], size[0]), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    from conftest import one_d_piece_tree

    root = tmp_path_factory.mktemp("cli")
    photos = root / "photos"
    (photos / "deep" / "er").mkdir(parents=True)
    picture(0, (40, 50)).save(photos / "a.png")
    picture(1, (32, 32)).save(photos / "a.jpg")
    picture(2, (70, 33)).save(photos / "deep" / "b.webp")
    picture(3, (20, 90)).save(photos / "deep" / "er" / "c.jpg")
    (photos / "notes.txt").write_text("not a picture")
    for seed, name in enumerate(("codec", "other")):
        torch.manual_seed(seed)
        zoo.save(root / f"{name}.safetensors", codeczoo.build(one_d_piece_tree()))
    return Place(root, photos, root / "codec.safetensors", root / "other.safetensors")


@pytest.fixture
def broken(place: Place, tmp_path: Path) -> Path:
    """The pictures and a truncated one."""
    folder = tmp_path / "broken"
    shutil.copytree(place.photos, folder)
    (folder / "deep" / "bad.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr, which must be an error."""
    error = capsys.readouterr().err
    assert error.startswith("codeczoo: error: ") and error.count("\n") == 1, error
    return error


@pytest.fixture
def encoded(place: Place, tmp_path: Path) -> Path:
    folder = tmp_path / "cz"
    assert run("encode", place.photos, "-o", folder, "--codec", place.codec) == 0
    return folder


def test_encode_keeps_the_folders_and_the_codec_s_own_tokens(place: Place, encoded: Path) -> None:
    assert names(encoded) == ["a.jpg.cz", "a.png.cz", "deep/b.cz", "deep/er/c.cz"]
    codec = codeczoo.load(place.codec)
    x, fit = image.fit(image.read(place.photos / "deep" / "b.webp"), (32, 32), "resize")
    file = tokens.read(encoded / "deep" / "b.cz")
    assert torch.equal(file.tokens.codes, codec.encode(x).codes)
    assert file.header.fit == fit.to_dict() and file.header.weights_hash == zoo.weights_hash(codec)


def test_encode_skips_what_is_there_unless_told(
    place: Place, encoded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (encoded / "a.jpg.cz").unlink()
    (encoded / "deep" / "b.cz").write_bytes(b"old")
    arguments = ("encode", place.photos, "-o", encoded, "--codec", place.codec)
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["encoded"], told["skipped"], told["failed"]) == (1, 3, [])
    assert (encoded / "deep" / "b.cz").read_bytes() == b"old"
    assert run(*arguments, "--overwrite") == 0
    assert tokens.read(encoded / "deep" / "b.cz").tokens.batch == 1


def test_one_bad_input_does_not_stop_the_rest(
    place: Place, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("encode", broken, "-o", out, "--codec", place.codec, "--batch", 1) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and str(broken / "deep" / "bad.jpg") in told.err
    assert "4 encoded" in told.out and "failed 1" in told.out
    assert names(out) == ["a.jpg.cz", "a.png.cz", "deep/b.cz", "deep/er/c.cz"]


def test_tokens_do_not_depend_on_the_batch(place: Place, encoded: Path, tmp_path: Path) -> None:
    assert run("encode", place.photos, "-o", tmp_path / "one", "--codec", place.codec, "--batch", 1) == 0
    for name in names(encoded):
        assert (tmp_path / "one" / name).read_bytes() == (encoded / name).read_bytes()


@pytest.mark.parametrize("fit", common.FITS)
def test_every_fit_comes_back_at_the_original_size(place: Place, tmp_path: Path, fit: str) -> None:
    assert run("encode", place.photos, "-o", tmp_path / "cz", "--codec", place.codec, "--fit", fit) == 0
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "png", "--codec", place.codec) == 0
    shape = image.read(tmp_path / "png" / "deep" / "b.png").shape
    assert shape == ((3, 33, 33) if fit == "crop" else (3, 70, 33))


def test_decode_finds_the_codec_and_equals_the_library(place: Place, encoded: Path, tmp_path: Path) -> None:
    assert run("decode", encoded, "-o", tmp_path / "png") == 0
    assert names(tmp_path / "png") == ["a.jpg.png", "a.png.png", "deep/b.png", "deep/er/c.png"]
    codec, file = codeczoo.load(place.codec), tokens.read(encoded / "a.png.cz")
    with torch.inference_mode():
        x_hat = image.unfit(codec.decode(file.tokens), image.Fit.from_dict(file.header.fit or {}))
    image.write(tmp_path / "library.png", x_hat)
    assert (tmp_path / "library.png").read_bytes() == (tmp_path / "png" / "a.png.png").read_bytes()


def test_encoding_a_prefix_is_decoding_a_prefix(place: Place, encoded: Path, tmp_path: Path) -> None:
    short = ("--positions", 5, "--codec", place.codec)
    assert run("encode", place.photos, "-o", tmp_path / "short", *short) == 0
    assert tokens.read(tmp_path / "short" / "a.jpg.cz").tokens.codes.shape == (1, 1, 5)
    assert run("decode", tmp_path / "short", "-o", tmp_path / "a", "--format", "webp") == 0
    assert run("decode", encoded, "-o", tmp_path / "b", "--format", "webp", "--positions", 5) == 0
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_decode_reports_foreign_and_broken_files(
    place: Place, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (encoded / "z.cz").write_bytes(b"nonsense")
    (encoded / "y.cz").write_bytes((encoded / "a.jpg.cz").read_bytes()[:-3])
    capsys.readouterr()
    assert run("decode", encoded, "-o", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 2 and "4 decoded" in told.out and len(names(tmp_path / "out")) == 4
    assert run("decode", encoded / "a.jpg.cz", "-o", tmp_path / "foreign", "--codec", place.other) == 1
    assert zoo.weights_hash(codeczoo.load(place.codec)) in capsys.readouterr().err
    assert not (tmp_path / "foreign").exists()


@pytest.mark.parametrize("format_", export.FORMATS)
def test_export_gives_the_same_pictures_as_the_cz_files(
    place: Place, broken: Path, encoded: Path, tmp_path: Path, format_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    arguments = ("--codec", place.codec, "--format", format_, "--vocab-offset", 1000, "--json")
    assert run("export", broken, "-o", tmp_path / "direct", *arguments) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["exported"] == 4 and told["dtype"] == "uint16" and len(told["failed"]) == 1
    assert run("export", encoded, "-o", tmp_path / "from_cz", *arguments) == 0
    codec = codeczoo.load(place.codec)
    direct, from_cz = export.read(tmp_path / "direct"), export.read(tmp_path / "from_cz")
    direct.check_codec(zoo.weights_hash(codec))
    with pytest.raises(codeczoo.core.errors.WeightsError):
        direct.check_codec("0" * 16)
    for i in range(4):
        file = tokens.read(encoded / f"{from_cz.document(i).id}.cz")
        assert direct.ids(i).min() >= 1000 and np.array_equal(direct.ids(i), from_cz.ids(i))
        assert direct.document(i).fit == from_cz.document(i).fit == image.Fit.from_dict(file.header.fit or {})
        assert torch.equal(codec.decode(direct.tokens(i)), codec.decode(file.tokens))


def test_export_of_tiles_is_one_document(place: Place, tmp_path: Path) -> None:
    arguments = ("--codec", place.codec, "--format", "npy", "--fit", "tile", "--positions", 3)
    assert run("export", place.photos / "deep" / "b.webp", "-o", tmp_path / "out", *arguments) == 0
    reader = export.read(tmp_path / "out")
    n = reader.tokens(0).batch
    assert len(reader) == 1 and n > 3 and len(reader.ids(0)) == 4 * n + 1
    fit = reader.document(0).fit
    assert fit is not None
    x_hat = image.unfit(codeczoo.load(place.codec).decode(reader.tokens(0)), fit)
    assert x_hat.shape == (3, 70, 33)


def test_an_export_that_fails_midway_can_be_resumed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from codeczoo.export import npy

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    arguments = ("export", place.photos, "-o", tmp_path / "out", "--codec", place.codec, "--format", "npy")
    with monkeypatch.context() as patch:
        patch.setattr(npy.Writer, "_close", full)
        assert run(*arguments) == 2 and "No space left on device" in one_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["out.store"]
    assert run(*arguments, "--resume") == 0 and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_export_of_nothing_good_is_an_error(
    place: Place, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("-o", tmp_path / "out", "--codec", place.codec, "--format", "parquet")
    assert run("export", broken / "deep" / "bad.jpg", *arguments) == 2
    assert "nothing exported" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_full_disk_ends_encode_with_one_line(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run("encode", place.photos, "-o", tmp_path / "out", "--codec", place.codec) == 2
    assert "No space left on device" in one_line(capsys) and not names(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["encod"], "no command 'encod'; did you mean encode"),
        (["encode"], "required: PATH"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "CODEC", "--positions", "0"], "at least 1, got '0'"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "CODEC", "--positions", "17"], "must be 1..16, got 17"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "CODEC", "--codebooks", "1"], "prefixes of positions only"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "CODEC", "--fit", "squeeze"], "invalid choice: 'squeeze'"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "nothing_like_it"], "no codec 'nothing_like_it'"),
        (["encode", "nowhere", "-o", "OUT", "--codec", "CODEC"], "no such file or folder: nowhere"),
        (["encode", "PHOTOS", "-o", "CODEC", "--codec", "CODEC"], "is a file; a folder is wanted"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "CODEC", "--cool"], "unrecognized arguments: --cool"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "PHOTOS/a.jpg"], "a.jpg"),
        (["decode", "PHOTOS", "-o", "OUT"], "nothing to read in"),
        (["decode", "PHOTOS/a.jpg", "-o", "OUT"], "not a .cz token file"),
        (["export", "PHOTOS", "-o", "OUT", "--codec", "CODEC", "--format", "zip"], "invalid choice: 'zip'"),
        (["export", "PHOTOS", "-o", "PHOTOS", "--codec", "CODEC", "--format", "npy"], "exists"),
        (
            ["export", "PHOTOS", "-o", "OUT", "--codec", "CODEC", "--format", "npy", "--vocab-offset", "-1"],
            "at least 0, got -1",
        ),
        (
            ["export", "PHOTOS", "-oOUT", "--codec=CODEC", "--format=npy", "--dtype=uint16", "--vocab-offset=70000"],
            "uint16 holds ids below 65536",
        ),
        (["eval", "PHOTOS", "--codec", "CODEC", "--against", "jpg"], "no baseline 'jpg'; did you mean jpeg?"),
        (["eval", "PHOTOS", "--codec", "CODEC", "--positions", "4,x"], "got 'x'"),
        (["eval", "PHOTOS", "--codec", "CODEC", "--positions", "99"], "must be 1..16, got 99"),
        (["eval", "PHOTOS", "--codec", "CODEC", "--lpips-weights", "none.pth"], "none.pth"),
        (["eval", "PHOTOS", "--codec", "CODEC", "--fid-weights", "none.pth"], "none.pth"),
        (["info", "nothing_like_it"], "no recipe or weights 'nothing_like_it'"),
        (["info", "nowhere.cz"], "nowhere.cz"),
        (["info", "PHOTOS/a.jpg"], "a.jpg"),
        (["import", "titk", "--weights", "w", "--config", "c", "-o", "o"], "did you mean titok or"),
    ],
)
def test_bad_requests_get_one_line_and_exit_code_2(
    place: Place, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"PHOTOS": place.photos, "CODEC": place.codec, "OUT": tmp_path / "out"}
    for key, path in places.items():
        arguments = [argument.replace(key, str(path)) for argument in arguments]
    assert run(*arguments) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_one_process_of_a_training_says_where_it_is(
    interrupted: bool, first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from codeczoo.engine import run as engine

    outcome = engine.Outcome(tmp_path / "run", 3, interrupted, first)
    monkeypatch.setattr(engine, "train", lambda config, out, resume: outcome)
    assert run("train", "image/titok_tiny") == (130 if interrupted else 0)
    told = capsys.readouterr()
    assert told.out == (f"{tmp_path / 'run'}\n" if first and not interrupted else "")
    assert told.err.count("interrupted at step 3") == (first and interrupted)


def test_interruption_ends_with_130(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "see", interrupt)
    assert run("encode", place.photos, "-o", tmp_path / "out", "--codec", place.codec) == 130
    assert "interrupted" in one_line(capsys) and not (tmp_path / "out").exists()


def test_eval_measures_every_rate(
    place: Place, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    wish = ("--positions", "2,16", "--against", "webp,jpeg")
    code = run("eval", broken, "--codec", place.codec, *wish, "-o", out, "--json")
    told = json.loads(capsys.readouterr().out)
    assert code == 1 and told["pictures"] == 4 and len(told["failed"]) == 1
    assert told == json.loads((out / "eval.json").read_text())
    rows = told["rows"]
    assert [(row["system"], row["rate"]) for row in rows] == [
        (system, f"{n} positions") for n in (2, 16) for system in ("codec", "webp", "jpeg")
    ]
    assert [rows[0]["bits"], rows[3]["bits"]] == [12, 96] and rows[3]["bpp"] == 96 / 32**2
    assert 0 < rows[0]["payload_bytes"] < rows[0]["file_bytes"] < rows[3]["file_bytes"]
    assert all(5 < row["psnr"] < 60 and "ms_ssim" not in row for row in rows)
    assert (out / "rate_distortion.png").stat().st_size > 10_000
    width, height = Image.open(out / "grid.png").size
    assert height == 7 * 34 and width > 4 * 34


def test_eval_prints_a_table_of_halved_rates(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval", place.photos, "--codec", place.codec) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == ["1", "2", "4", "8", "16"]
    assert lines[0].split()[:3] == ["system", "rate", "bits"] and lines[-1] == "4 pictures, 0 failed"


def test_eval_crops_unless_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    measured = []
    for fit in ([], ["--fit", "crop"], ["--fit", "resize"]):
        assert run("eval", place.photos, "--codec", place.codec, "--positions", 16, "--json", *fit) == 0
        measured.append(json.loads(capsys.readouterr().out)["rows"])
    assert measured[0] == measured[1] != measured[2]


def test_a_measure_that_not_every_picture_allows_is_left_out(tiny_codec: codeczoo.Codec) -> None:
    row = Row("codec", "all", JUDGES["image"](tiny_codec.spec, Networks(), torch.device("cpu")))
    for size in (200, 100):
        row.add(torch.zeros(3, size, size), torch.full((3, size, size), 0.1), {"bits": size})
    result = row.result()
    assert result["bits"] == 150 and result["psnr"] == pytest.approx(20) and "ms_ssim" not in result


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_use_the_bytes_they_get(name: str) -> None:
    x = torch.from_numpy(np.array(picture(5, (96, 64)))).permute(2, 0, 1).float() / 255
    long = replace(BASELINES[name], side=40)  # as if it held no more
    assert at_bytes(torch.rand(3, 8, 100), long, 10**6).shrunk == 4
    with pytest.raises(InputError, match="holds no picture of 8 x 500 pixels, nor an eighth of it"):
        at_bytes(torch.rand(3, 8, 500), long, 10**6)
    coded = [at_bytes(x, BASELINES[name], budget) for budget in (1, 400, 700, 1500, 100_000)]
    assert coded[0].bytes > 1  # nothing is that small, and that is told
    assert all(c.bytes <= budget for c, budget in zip(coded[1:], (400, 700, 1500, 100_000), strict=True))
    assert all(a.psnr <= b.psnr for a, b in pairwise(coded))
    assert coded[-1].psnr > 35 and coded[-1].shrunk == 1 and all(c.x_hat.shape == x.shape for c in coded)


def test_info_tells_what_files_say(place: Place, encoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("info", place.codec, "--json") == 0
    codec = json.loads(capsys.readouterr().out)
    assert (codec["tokens"], codec["bits"], codec["prefixes"]) == ("16 of 64", "96 per image", "positions")
    assert codec["weights_hash"] == zoo.weights_hash(codeczoo.load(place.codec))
    assert run("info", encoded / "a.png.cz", "--json") == 0
    file = json.loads(capsys.readouterr().out)
    assert file["codec"] == str(place.codec) and file["shapes"] == [[1, 16]] and file["fit"]["original"] == [40, 50]
    assert run("info", place.codec) == 0 and "96 per image" in capsys.readouterr().out


def test_list_and_info_read_the_recipes_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "titok_x.yaml"
    recipe.write_text("# @package _global_\n# TiTok of size X.\ncard: {system: TiTok, tokens: 32, status: runs}\n")
    bare = tmp_path / "bare.yaml"
    bare.write_text("codec: {}\n")
    monkeypatch.setattr(cards, "recipes", lambda: {"image/titok_x": recipe, "image/bare": bare})
    monkeypatch.setattr("codeczoo.cli.list.shipped", dict)
    monkeypatch.setattr("codeczoo.cli.info.shipped", dict)
    assert run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipes"] == [
        {"recipe": "image/titok_x", "system": "TiTok", "tokens": 32, "status": "runs"},
        {"recipe": "image/bare"},
    ]
    assert run("list") == 0 and "image/titok_x" in capsys.readouterr().out
    for name in ("image/titok_x", "titok_x"):
        assert run("info", name) == 0
        assert "TiTok of size X." in capsys.readouterr().out
    assert run("info", "titok") == 2 and "did you mean image/titok_x?" in one_line(capsys)
    recipe.write_text("card: [")
    assert run("list") == 2 and "titok_x.yaml: not YAML" in one_line(capsys)


def test_every_recipe_has_a_card_that_list_shows(capsys: pytest.CaptureFixture[str]) -> None:
    for name, path in cards.recipes().items():
        assert cards.card(path).keys() >= {"system", "tokens", "status"}, name


def test_import_gives_a_file_that_loads(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def original(system: str, weights: str, config: str, text_tower: str | None) -> Any:
        assert (system, weights, config, text_tower) == ("titok", "w.bin", "c.json", None)
        return codeczoo.load(place.codec)

    monkeypatch.setattr(zoo, "original", original)
    out = tmp_path / "new" / "titok.safetensors"
    assert run("import", "titok", "--weights", "w.bin", "--config", "c.json", "-o", out) == 0
    assert zoo.weights_hash(codeczoo.load(out)) == zoo.weights_hash(codeczoo.load(place.codec))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: codeczoo {command} ")


def test_constants_that_spare_an_import_are_right() -> None:
    assert set(common.FITS) == set(image.MODES)
    assert list(eval_command.AGAINST) == [name for judge in JUDGES.values() for name in judge.BASELINES]
    assert list(decode_command.FORMATS) == list(dict.fromkeys(name for m in MEDIA.values() for name in m.FORMATS))
    assert set(common.TOKEN_SUFFIXES) == {suffix for media in MEDIA.values() for suffix in media.TOKEN_SUFFIXES}


def test_help_list_and_info_do_not_import_torch(place: Place) -> None:
    lines = [["--help"], ["--version"], ["list"], ["info", str(place.codec)], *([c, "--help"] for c in COMMANDS)]
    program = (
        "import sys\nfrom codeczoo.cli.main import main\n"
        f"for line in {lines!r}:\n    assert main(line) == 0, line\n"
        "    assert not {'torch', 'lightning', 'hydra', 'pyarrow'} & sys.modules.keys(), line\n"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
