"""Every command on clips: rates, sizes, lengths and sound come back, long ones in pieces, pictures as pictures."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from audio_cases import build as build_audio
from PIL import Image
from test_cli import one_line, run
from test_hitvideo import CODECS
from test_io_video import clip
from video_cases import build

import codeczoo
from codeczoo import zoo
from codeczoo.core.errors import InputError
from codeczoo.export import clips
from codeczoo.io import audio, image, sound, tokens, video

av = pytest.importorskip("av")
pytest.importorskip("soundfile")

NTSC = Fraction(30000, 1001)
SECONDS = 1.5  # of sound, longer than its clips


class Place(NamedTuple):
    """A folder with clips; a codec of one stream, one of three, one of sound."""

    clips: Path
    codec: Path
    layers: Path
    audio: Path


def tone(path: Path, suffix: str) -> Path:
    """Stereo sound as packets that a clip of this suffix holds."""
    t = torch.arange(round(SECONDS * 24000)) / 24000
    audio.write(path.with_suffix(".wav"), torch.stack([0.3 * torch.sin(1000 * n * t) for n in (1, 2)]), 24000)
    sound.encode(path.with_suffix(".wav"), path, suffix)
    return path


def heard(path: Path) -> list[tuple[bytes, float]]:
    """Packets of the sound, and when they sound."""
    with av.open(str(path)) as file:
        packets = [p for p in file.demux(file.streams.audio) if p.dts is not None]
        return [(bytes(p), float(p.pts * p.time_base)) for p in packets]


def frame_times(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        return [float(frame.time) for frame in file.decode(video=0)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("video")
    folder = root / "clips"
    (folder / "deep").mkdir(parents=True)
    aac, opus = tone(root / "a.mp4", ".mp4"), tone(root / "a.mka", ".webm")
    made: dict[str, tuple[torch.Tensor, Any, sound.Track | None]] = {
        "loud.mp4": (clip(20, 24, 32), NTSC, sound.Track(aac)),
        "deep/late.mp4": (clip(9, 24, 32), 25, sound.Track(aac, Fraction(1, 5))),
        "deep/odd.mp4": (clip(6, 23, 17), 12, None),
        "opus.webm": (clip(14, 24, 32), 24, sound.Track(opus)),
        "mute.mkv": (clip(14, 16, 16), 24, None),
        "still.gif": (clip(5, 16, 24), 10, None),
    }
    for name, (x, rate, track) in made.items():
        with video.Writer(folder / name, rate, 1, track) as file:
            file.append(x)
    image.write(folder / "photo.png", clip(1, 30, 20)[:, 0])
    codecs = {"codec": build("vidtok"), "layers": CODECS["ResidualMerge"]}
    codecs["audio"] = build_audio("encodec causal reflect")
    for name, codec in codecs.items():
        zoo.save(root / f"{name}.safetensors", codec)
    return Place(folder, *(root / f"{name}.safetensors" for name in codecs))


@pytest.fixture(scope="module")
def encoded(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    assert run("encode", place.clips, "-o", folder, "--codec", place.codec) == 0
    return folder


FILES = ("loud.mp4", "deep/late.mp4", "deep/odd.mp4", "opus.webm", "mute.mkv", "still.gif")


def test_rates_sizes_and_lengths_come_back(place: Place, encoded: Path, tmp_path: Path) -> None:
    assert run("decode", encoded, "-o", tmp_path) == 0
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert made == sorted(["photo.png", *(Path(name).with_suffix(".mp4").as_posix() for name in FILES)])
    for name in FILES:
        old, new = video.info(place.clips / name), video.info(tmp_path / Path(name).with_suffix(".mp4"))
        assert new[:4] == old[:4] and new.has_audio == old.has_audio, name
    assert image.read(tmp_path / "photo.png").shape == (3, 30, 20)


def test_files_hold_the_codec_s_own_tokens(place: Place, encoded: Path, tmp_path: Path) -> None:
    codec = codeczoo.load(place.codec)
    for name in ("loud.mp4", "still.gif", "photo.png"):
        path = place.clips / name
        x = image.read(path)[:, None] if name == "photo.png" else video.read(path)
        found = tokens.read(encoded / Path(name).with_suffix(".cz"))
        with torch.no_grad():
            expected = codec.encode(x[None].float() / 255)
            x_hat = codec.decode(found.tokens)[0]
        assert torch.equal(found.tokens.codes, expected.codes) and found.tokens.size.tolist() == [list(x.shape[1:])]
        assert len(found.tokens.codes.unique()) > 4  # or nothing was tested
        assert found.tokens.sample_rate == (None if name == "photo.png" else float(video.info(path).rate))
        assert run("decode", encoded / Path(name).with_suffix(".cz"), "-o", tmp_path, "--format", "mkv") == 0
        written = video.read(tmp_path / Path(name).with_suffix(".mkv"))  # lossless
        assert (written - (x_hat * 255)).abs().max() < 0.51


@pytest.mark.parametrize("which", ["codec", "layers"])
def test_neither_batches_nor_pieces_change_a_file(
    place: Place, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("encode", place.clips, "--codec", getattr(place, which))
    assert run(*arguments, "-o", tmp_path / "a") == 0
    assert run(*arguments, "-o", tmp_path / "b", "--batch", 1) == 0
    monkeypatch.setattr(clips, "SHORT", 0)
    monkeypatch.setattr(clips, "AT_ONCE", 24 * 32 * 3)
    assert run(*arguments, "-o", tmp_path / "c") == 0
    made = list((tmp_path / "a").rglob("*.cz"))
    assert len(made) == 7
    for path in made:
        name = path.relative_to(tmp_path / "a")
        first = tokens.read(path)
        for other in "bc":
            again = tokens.read(tmp_path / other / name)
            assert again.header.payload_bytes == first.header.payload_bytes and again.header.fit == first.header.fit
            pairs = zip(first.tokens.streams, again.tokens.streams, strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), name


# ---- sound ----


def test_sound_is_passed_through_untouched(place: Place, encoded: Path, tmp_path: Path) -> None:
    assert run("decode", encoded / "loud.cz", encoded / "deep" / "late.cz", "-o", tmp_path) == 0
    for name in ("loud.mp4", "deep/late.mp4"):
        source, made = place.clips / name, tmp_path / Path(name).name
        assert heard(made) == heard(source) and len(heard(made)) > 20
        assert video.info(made).start == pytest.approx(video.info(source).start, abs=0.002)
        assert frame_times(made) == pytest.approx(frame_times(source), abs=0.002)
    assert run("decode", encoded / "opus.cz", "-o", tmp_path, "--format", "webm") == 0
    packets = [data for data, _ in heard(place.clips / "opus.webm")]
    assert [data for data, _ in heard(tmp_path / "opus.webm")] == packets
    assert run("decode", encoded / "opus.cz", "-o", tmp_path, "--format", "mkv") == 0
    assert [data for data, _ in heard(tmp_path / "opus.mkv")] == packets
    assert run("decode", encoded / "loud.cz", "-o", tmp_path, "--format", "gif") == 0
    assert not video.info(tmp_path / "loud.gif").has_audio


def test_formats_that_hold_no_such_sound_say_so(
    encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("decode", encoded / "loud.cz", "-o", tmp_path, "--format", "webm") == 1
    assert "webm holds no aac sound, mkv does" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["mp4", "webm", "mkv"])
def test_sound_as_tokens(place: Place, suffix: str, tmp_path: Path) -> None:
    source = (place.clips / "loud.mp4", place.clips / "deep", "--codec", place.codec, "--audio", place.audio)
    assert run("encode", *source, "-o", tmp_path / "cz") == 0
    file = tokens.read(tmp_path / "cz" / "loud.cz")
    assert list(file.attachments) == ["sound.cz"] and tokens.read(tmp_path / "cz" / "odd.cz").attachments == {}
    nested = tokens.read(file.attachments["sound.cz"])
    x, rate = audio.read(place.clips / "loud.mp4")
    assert (nested.header.codec, nested.header.batch, nested.header.fit) == (
        str(place.audio), 2, {"rate": 24000, "channels": 2, "frames": x.shape[1]}
    )  # fmt: skip
    with torch.no_grad():
        expected = codeczoo.load(place.audio).encode(audio.resample(x, rate, 2400)[:, None])
    assert torch.equal(nested.tokens.codes, expected.codes)
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "out", "--format", suffix) == 0
    y, rate = audio.read(tmp_path / "out" / f"loud.{suffix}")
    assert y.shape[1] / rate == pytest.approx(SECONDS, abs=0.05) and y.shape[0] == 2
    assert video.info(tmp_path / "out" / f"loud.{suffix}").frames == 20
    late = tmp_path / "out" / f"late.{suffix}"
    assert frame_times(late)[0] - float(sound.begin(late) or 0) == pytest.approx(0.2, abs=0.03)
    assert not video.info(tmp_path / "out" / f"odd.{suffix}").has_audio


def test_codecs_of_sound_are_found_or_named(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved, source = tmp_path / "sound.safetensors", place.clips / "loud.mp4"
    moved.write_bytes(place.audio.read_bytes())
    assert run("encode", source, "-o", tmp_path / "cz", "--codec", place.codec, "--audio", moved) == 0
    moved.unlink()
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "that --audio may name" in told and "no such file" in told and not (tmp_path / "out").exists()
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "out", "--audio", place.audio) == 0
    for command in (("encode", source), ("decode", tmp_path / "cz")):
        assert run(*command, "-o", tmp_path / "x", "--codec", place.codec, "--audio", place.codec) == 2
        assert "that codec takes video" in one_line(capsys)


# ---- prefixes, formats ----


def test_prefixes_in_time_are_shorter_clips(place: Place, encoded: Path, tmp_path: Path) -> None:
    assert run("decode", encoded, "-o", tmp_path, "--positions", 3) == 0
    for name, frames in {"loud.mp4": 9, "late.mp4": 9, "odd.mp4": 6, "mute.mp4": 9, "still.mp4": 5}.items():
        found = next(tmp_path.rglob(name))
        assert video.info(found).frames == frames, name
    last = heard(tmp_path / "loud.mp4")[-1][1]
    assert last == pytest.approx(9 / NTSC, abs=0.06) and heard(place.clips / "loud.mp4")[-1][1] > 1
    arguments = ("--codec", place.codec, "--positions", 3)
    assert run("encode", place.clips, "-o", tmp_path / "cz", *arguments) == 0
    assert run("decode", tmp_path / "cz" / "loud.cz", "-o", tmp_path / "again") == 0
    whole, cut = (video.read(tmp_path / folder / "loud.mp4") for folder in (".", "again"))
    assert torch.equal(whole, cut)
    assert tokens.read_header(tmp_path / "cz" / "photo.cz").shapes == ((1, 1, 8, 5),)


def test_prefixes_of_layers_decode(place: Place, tmp_path: Path) -> None:
    source = (place.clips / "mute.mkv", "--codec", place.layers)
    assert run("encode", *source, "-o", tmp_path / "all") == 0
    assert run("encode", *source, "-o", tmp_path / "two", "--streams", 2) == 0
    assert len(tokens.read_header(tmp_path / "two" / "mute.cz").shapes) == 2
    assert run("decode", tmp_path / "two", "-o", tmp_path / "a", "--format", "mkv") == 0
    assert run("decode", tmp_path / "all", "-o", tmp_path / "b", "--format", "mkv", "--streams", 2) == 0
    assert run("decode", tmp_path / "all", "-o", tmp_path / "c", "--format", "mkv") == 0
    a, b, c = (video.read(tmp_path / folder / "mute.mkv") for folder in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c) and a.shape == c.shape == (3, 14, 16, 16)


def test_pictures_may_become_clips_but_not_the_other_way(
    place: Place, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("decode", encoded / "photo.cz", "-o", tmp_path, "--format", "mp4") == 0
    assert video.info(tmp_path / "photo.mp4")[:4] == (25, 30, 20, 1)
    assert run("decode", encoded / "photo.cz", encoded / "mute.cz", "-o", tmp_path, "--format", "jpg") == 1
    assert "several frames is no picture" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.jpg", "photo.mp4"]
    assert run("decode", encoded / "mute.cz", "-o", tmp_path / "wav", "--format", "wav") == 2
    assert "clips and pictures are written as mp4" in one_line(capsys)


def test_gifs_that_do_not_move_are_pictures(place: Place, tmp_path: Path) -> None:
    Image.new("RGB", (9, 8), "red").save(tmp_path / "a.gif")
    assert run("encode", tmp_path / "a.gif", "-o", tmp_path / "cz", "--codec", place.codec) == 0
    header = tokens.read_header(tmp_path / "cz" / "a.cz")
    assert header.fit == {"rate": None} and header.size == ((1, 8, 9),)


def test_tiles(place: Place, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, options in {"whole": (), "large": ("--tile", 32), "tiles": ("--tile", 16)}.items():
        assert run("decode", encoded / "loud.cz", "-o", tmp_path / name, "--format", "mkv", *options) == 0
    whole, large, tiles = (video.read(tmp_path / name / "loud.mkv") for name in ("whole", "large", "tiles"))
    assert torch.equal(whole, large) and tiles.shape == whole.shape and not torch.equal(whole, tiles)
    assert run("decode", encoded / "loud.cz", "-o", tmp_path / "no", "--tile", 2) == 1
    assert "at least 8 pixels" in capsys.readouterr().err and not list((tmp_path / "no").iterdir())


def test_info_tells_what_is_inside(
    place: Place, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", encoded / "loud.cz", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clip"] == "20 frames of 24x32, 29.97 frames/s, 0.67 s" and found["media"].startswith("video")
    size = int(found["sound.mp4"].split()[0])
    assert found["payload_bytes"] + size < found["bytes"] < found["payload_bytes"] + size + 300
    assert run("info", encoded / "photo.cz") == 0 and "1 frame of 30x20\n" in capsys.readouterr().out
    source = (place.clips / "loud.mp4", "--codec", place.codec, "--audio", place.audio)
    assert run("encode", *source, "-o", tmp_path) == 0 and run("info", tmp_path / "loud.cz") == 0
    assert f"tokens of {place.audio}" in capsys.readouterr().out


# ---- bad input ----


def test_bad_files_are_reported_and_the_rest_goes_on(
    place: Place, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (place.clips / "loud.mp4").read_bytes()
    (tmp_path / "in").mkdir()
    files = {
        "cut.mp4": whole[: len(whole) // 2], "empty.mp4": b"", "text.mkv": b"no video" * 99, "good.mp4": whole,
        "cut.mkv": (place.clips / "mute.mkv").read_bytes()[:2000], "cut.png": b"\x89PNG\r\n\x1a\n" + bytes(20),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    tone(tmp_path / "in" / "sound.mp4", ".mp4")
    (tmp_path / "in" / "sound.wav").unlink()
    assert run("encode", tmp_path / "in", "-o", tmp_path / "cz", "--codec", place.codec) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 6 and "1 encoded" in told.out and "failed 6" in told.out
    assert [path.name for path in (tmp_path / "cz").iterdir()] == ["good.cz"]
    data = (encoded / "loud.cz").read_bytes()
    (tmp_path / "cz" / "cut.cz").write_bytes(data[:-100])
    (tmp_path / "cz" / "text.cz").write_bytes(b"nonsense")
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "out") == 1
    assert capsys.readouterr().err.count("\n") == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.mp4"]


def test_long_files_that_end_badly_leave_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clips, "SHORT", 0)
    monkeypatch.setattr(clips, "AT_ONCE", 16 * 16 * 2)
    data = (place.clips / "mute.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: 3 * len(data) // 4])
    assert run("encode", tmp_path, place.clips / "mute.mkv", "-o", tmp_path / "cz", "--codec", place.codec) == 1
    assert "truncated" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "cz").iterdir()] == ["mute.cz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "CLIPS", "-o", "OUT", "--codec", "CODEC", "--fit", "crop"], "nothing is to be fitted"),
        (["encode", "CLIPS", "-o", "OUT", "--codec", "CODEC", "--window", "3"], "any length without"),
        (["encode", "CLIPS", "-o", "OUT", "--codec", "CODEC", "--streams", "2"], "this codec decodes"),
        (["encode", "CLIPS", "-o", "OUT", "--codec", "LAYERS", "--streams", "4"], "must be 1..3, got 4"),
        (["encode", "AUDIO", "-o", "OUT", "--codec", "AUDIO", "--audio", "AUDIO"], "is for the sound of clips"),
        (["encode", "CLIPS/deep/none", "-o", "OUT", "--codec", "CODEC"], "no such file"),
    ],
)
def test_bad_requests_get_one_line_and_exit_code_2(
    place: Place, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"CLIPS": place.clips, "CODEC": place.codec, "LAYERS": place.layers, "AUDIO": place.audio}
    for key, path in (places | {"OUT": tmp_path / "out"}).items():
        arguments = [argument.replace(key, str(path)) for argument in arguments]
    assert run(*arguments) == 2
    assert message in one_line(capsys) and not (tmp_path / "out").exists()


# ---- from Python ----


def test_clips_are_seen_whole_for_measuring(place: Place) -> None:
    from codeczoo.export.batches import Runner
    from codeczoo.export.media import media_of
    from codeczoo.io.files import find

    codec = codeczoo.load(place.codec)
    media = media_of(Runner(codec, "c", zoo.weights_hash(codec)))
    found = find([place.clips], media.SUFFIXES)
    samples = list(media.clips(found))
    assert len(samples) == 7 and not any(sample.error for sample in samples)
    for sample in samples:
        assert sample.x is not None and sample.tokens is not None and sample.x.shape[0] == 1
        with torch.no_grad():
            assert torch.equal(sample.tokens.codes, codec.encode(sample.x).codes)


def test_one_file_is_one_clip(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec = codeczoo.load(place.codec)
    with torch.no_grad():
        two = codec.encode(clip(5, 16, 16)[None].repeat(2, 1, 1, 1, 1))
    tokens.write(tmp_path / "a.cz", two, codec=str(place.codec), weights_hash=zoo.weights_hash(codec))
    tokens.write(tmp_path / "b.cz", two[1], codec=str(place.codec), weights_hash=zoo.weights_hash(codec))
    assert run("decode", tmp_path, "-o", tmp_path / "out") == 1
    assert "2 clips in one file" in capsys.readouterr().err
    assert video.info(tmp_path / "out" / "b.mp4")[:4] == (25, 16, 16, 5)
    with pytest.raises(InputError, match="no such file"):
        video.info(tmp_path / "out" / "a.mp4")
