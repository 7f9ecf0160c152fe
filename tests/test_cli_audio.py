"""Every command on recordings: rates, channels and lengths come back, long ones in pieces, baselines aligned."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from audio_cases import build, encodec, rvq
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from test_cli import one_line, run
from test_foreign import codes_of, ecdc_file, metadata, saved

import codeczoo
from codeczoo import export, zoo
from codeczoo.audio.dac import unpadded
from codeczoo.audio.encodec import EnCodec
from codeczoo.cli import drawings
from codeczoo.core.errors import FormatError, InputError
from codeczoo.export import audio_baselines as baselines
from codeczoo.export import batches, recordings
from codeczoo.io import audio, image, tokens
from codeczoo.io.audio_fit import AudioFit, join_channels, restored, split_channels

FILES = {  # name: rate, channels, frames
    "mono.wav": (2400, 1, 2400),
    "deep/stereo.flac": (44_100, 2, 40_001),
    "deep/three.wav": (8000, 3, 5003),
    "short.wav": (48_000, 2, 7),
    "speech.ogg": (16_000, 1, 16_000),
}


ROWS = ("parallel", "delay", "coarse-first")


class Place(NamedTuple):
    """A folder with recordings; codecs that stream, that take windows by themselves, that see all at once."""

    root: Path
    sounds: Path
    codec: Path
    stereo: Path
    whole: Path


def sound(rate: int, channels: int, frames: int, seed: int = 0) -> torch.Tensor:
    """A sweep and noise, another in each channel, (C, T)."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(frames) / rate
    tones = [0.4 * torch.sin(2 * torch.pi * (200 + 150 * c) * t * (1 + t)) for c in range(channels)]
    return torch.stack(tones) + 0.5 * torch.rand(channels, frames, generator=generator) - 0.25


def save_codec(path: Path, tree: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    zoo.save(path, codeczoo.build(tree))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("audio")
    for i, (name, (rate, channels, frames)) in enumerate(FILES.items()):
        (root / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(root / "sounds" / name, sound(rate, channels, frames, i), rate)
    codecs = {"codec": "encodec causal reflect", "stereo": "windowed stereo", "whole": "encodec group norm"}
    for name, kind in codecs.items():
        zoo.save(root / f"{name}.safetensors", build(kind))
    return Place(root, root / "sounds", *(root / f"{name}.safetensors" for name in codecs))


@pytest.mark.parametrize("which", ["codec", "stereo", "whole"])
def test_rates_channels_and_lengths_come_back(place: Place, tmp_path: Path, which: str) -> None:
    assert run("encode", place.sounds, "-o", tmp_path / "cz", "--codec", getattr(place, which)) == 0
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "wav") == 0
    for name, (rate, channels, frames) in FILES.items():
        found = audio.info(tmp_path / "wav" / Path(name).with_suffix(".wav"))
        assert (found.rate, found.channels, found.frames) == (rate, channels, frames), name
        header = tokens.read_header(tmp_path / "cz" / Path(name).with_suffix(".cz"))
        assert header.fit == {"rate": rate, "channels": channels, "frames": frames}
        assert header.batch == (-(-channels // 2) if which == "stereo" else channels)
    assert run("decode", tmp_path / "cz" / "mono.cz", "-o", tmp_path / "flac", "--format", "flac") == 0
    assert torch.equal(audio.read(tmp_path / "flac" / "mono.flac")[0], audio.read(tmp_path / "wav" / "mono.wav")[0])


def test_files_hold_the_codec_s_own_tokens(place: Place, tmp_path: Path) -> None:
    assert run("encode", place.sounds, "-o", tmp_path, "--codec", place.codec) == 0
    codec = codeczoo.load(place.codec)
    x, rate = audio.read(place.sounds / "deep" / "stereo.flac")
    own = audio.resample(x, rate, 2400)
    found = tokens.read(tmp_path / "deep" / "stereo.cz").tokens
    with torch.inference_mode():
        expected = codec.encode(own[:, None])
        x_hat = torch.cat(list(restored([codec.decode(found)], 2400, AudioFit(rate, 2, x.shape[1]))), 1)
    assert torch.equal(found.codes, expected.codes) and found.size.tolist() == expected.size.tolist()
    assert len(found.codes.unique()) > 4  # or nothing was tested
    assert run("decode", tmp_path / "deep" / "stereo.cz", "-o", tmp_path / "wav") == 0
    written = audio.read(tmp_path / "wav" / "stereo.wav")[0]
    assert torch.allclose(written, x_hat.clamp(-1, 1), atol=2e-4)


@pytest.mark.parametrize("which", ["codec", "stereo"])
def test_neither_batches_nor_pieces_change_a_file(
    place: Place, tmp_path: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("encode", place.sounds, "--codec", getattr(place, which))
    assert run(*arguments, "-o", tmp_path / "a") == 0
    assert run(*arguments, "-o", tmp_path / "b", "--batch", 1) == 0
    monkeypatch.setattr(recordings, "SHORT", 0.01)
    monkeypatch.setattr(recordings, "PIECE", 0.07)
    assert run(*arguments, "-o", tmp_path / "c") == 0
    for path in (tmp_path / "a").rglob("*.cz"):
        name = path.relative_to(tmp_path / "a")
        assert path.read_bytes() == (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name


def test_codecs_that_see_everything_take_long_recordings_in_windows(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recordings, "SHORT", 0.5)
    arguments = ("encode", place.sounds / "mono.wav", "-o", tmp_path / "cz", "--codec", place.whole)
    assert run(*arguments) == 1
    assert "give --window" in capsys.readouterr().err
    assert run(*arguments, "--window", 0.4) == 0
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "no") == 1
    assert "give --window" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert run("decode", tmp_path / "cz", "-o", tmp_path / "wav", "--window", 0.4) == 0
    assert audio.info(tmp_path / "wav" / "mono.wav").frames == 2400
    assert run("encode", place.sounds, "-o", tmp_path / "x", "--codec", place.codec, "--window", 1) == 2
    assert "any length without" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "SOUNDS", "-o", "OUT", "--codec", "CODEC", "--kbps", "0.3"], "the rates of this codec are 0.45"),
        (["encode", "SOUNDS", "-o", "OUT", "--codec", "CODEC", "--kbps", "0"], "above 0, got '0'"),
        (["encode", "SOUNDS", "-o", "OUT", "--codec", "CODEC", "--kbps", "1", "--codebooks", "1"], "give one of them"),
        (["encode", "SOUNDS", "-o", "OUT", "--codec", "CODEC", "--codebooks", "4"], "must be 1..3, got 4"),
        (["encode", "SOUNDS", "-o", "OUT", "--codec", "CODEC", "--fit", "crop"], "is for pictures"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "CODEC"], "(this codec takes recordings)"),
        (["encode", "SOUNDS", "-o", "OUT", "--codec", "PICTURES"], "(this codec takes pictures)"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "PICTURES", "--window", "1"], "no windows in time"),
        (["encode", "PHOTOS", "-o", "OUT", "--codec", "PICTURES", "--kbps", "1"], "bits per image"),
        (["eval", "SOUNDS", "--codec", "CODEC", "--against", "jpeg"], "no baseline 'jpeg' for audio"),
        (["eval", "PHOTOS", "--codec", "PICTURES", "--against", "opus"], "no baseline 'opus' for image"),
        (["eval", "SOUNDS", "--codec", "CODEC", "--kbps", "0.1,1"], "the rates of this codec are"),
        (
            ["export", "SOUNDS", "-oOUT", "--codec=CODEC", "--format=npy", "--pattern=parallel", "--delays=0,1,2"],
            "pattern parallel has none",
        ),
        (
            ["export", "SOUNDS", "-oOUT", "--codec=CODEC", "--format=npy", "--pattern=delay", "--delays=0,1"],
            "delays must be 3 numbers",
        ),
        (["export", "SOUNDS", "-oOUT", "--codec=CODEC", "--format=npy", "--delays=0,x"], "got '0,x'"),
    ],
)
def test_bad_requests_get_one_line_and_exit_code_2(
    place: Place, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from conftest import one_d_piece_tree

    (tmp_path / "photos").mkdir()
    image.write(tmp_path / "photos" / "a.png", torch.rand(3, 40, 40))
    pictures = save_codec(tmp_path / "pictures.safetensors", one_d_piece_tree())
    places = {"SOUNDS": place.sounds, "CODEC": place.codec, "PHOTOS": tmp_path / "photos", "PICTURES": pictures}
    for key, path in (places | {"OUT": tmp_path / "out"}).items():
        arguments = [argument.replace(key, str(path)) for argument in arguments]
    assert run(*arguments) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_bad_files_are_reported_and_the_rest_goes_on(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (place.sounds / "mono.wav").read_bytes()
    files = {"bad.wav": good[:-900], "empty.wav": b"", "good.wav": good, "text.mp3": b"no sound" * 99}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    image.write(tmp_path / "a.png", torch.rand(3, 8, 8))
    arguments = (tmp_path, tmp_path / "a.png", "-o", tmp_path / "out", "--codec", place.codec)
    assert run("encode", *arguments) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 4 and "1 encoded" in told.out and "failed 4" in told.out
    (tmp_path / "out" / "z.cz").write_bytes(b"nonsense")
    assert run("decode", tmp_path / "out", "-o", tmp_path / "wav") == 1
    assert [path.name for path in (tmp_path / "wav").iterdir()] == ["good.wav"]


def test_kbps_keeps_the_codebooks_that_fit(place: Place, tmp_path: Path) -> None:
    for kbps, kept in ((0.46, 1), (1.0, 2), (0.91, 2), (0.85, 1), (99, 3)):  # 0.4585 kbit/s each
        out = tmp_path / str(kbps)
        assert run("encode", place.sounds / "mono.wav", "-o", out, "--codec", place.codec, "--kbps", kbps) == 0
        assert tokens.read_header(out / "mono.cz").shapes == ((kept, 100),)


@pytest.mark.parametrize("pattern", export.PATTERNS)
@pytest.mark.parametrize("format_", export.FORMATS)
def test_every_pattern_and_format_gives_back_what_was_encoded(
    place: Place, tmp_path: Path, pattern: str, format_: str
) -> None:
    arguments = ("--codec", place.stereo, "--codebooks", 2)
    assert run("encode", place.sounds, "-o", tmp_path / "cz", *arguments) == 0
    delays = {"delay": ["--delays", "0,3"], "coarse-first": ["--delays", "1"]}.get(pattern, [])
    options = (*arguments, "--format", format_, "--pattern", pattern, "--vocab-offset", 50, *delays)
    assert run("export", place.sounds, "-o", tmp_path / "out", *options) == 0
    reader, codec = export.read(tmp_path / "out"), codeczoo.load(place.stereo)
    assert len(reader) == len(FILES) and reader.header["rows"] == (2 if pattern in ROWS else None)
    for i in range(len(reader)):
        about = reader.document(i)
        stored = tokens.read(tmp_path / "cz" / f"{about.id}.cz")
        found = reader.tokens(i)
        assert torch.equal(found.codes, stored.tokens.codes) and about.fit == AudioFit(**(stored.header.fit or {}))
        assert found.gains is not None and stored.tokens.gains is not None
        assert torch.equal(found.gains, stored.tokens.gains)
        assert torch.equal(codec.decode(found), codec.decode(stored.tokens))


@pytest.fixture(scope="module")
def encodec_24k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec that could have made files of EnCodec 24 kHz."""
    tree = encodec(causal=True, ratios=[8, 5, 4, 2]) | {"quantizer": rvq(4, 1024), "sample_rate": 24_000}
    return save_codec(tmp_path_factory.mktemp("codec") / "encodec.safetensors", tree)


def test_files_of_encodec_decode_and_export(encodec_24k: Path, place: Place, tmp_path: Path) -> None:
    codes = codes_of(3, 75)
    (tmp_path / "a.ecdc").write_bytes(ecdc_file("encodec_24khz", 23_900, [codes]))
    assert run("decode", tmp_path / "a.ecdc", "-o", tmp_path, "--codec", encodec_24k) == 0
    codec = codeczoo.load(encodec_24k)
    made = codeczoo.Tokens(codec.spec, (torch.from_numpy(codes)[None],), torch.tensor([[23_900]]), None, 24_000)
    x, rate = audio.read(tmp_path / "a.wav")
    with torch.inference_mode():
        expected = codec.decode(made)[0]
    assert rate == 24_000 and x.shape == (1, 23_900) and torch.allclose(x, expected, atol=1e-4)
    assert run("encode", tmp_path / "a.ecdc", "-o", tmp_path, "--codec", encodec_24k, "--codebooks", 2) == 0
    assert np.array_equal(tokens.read(tmp_path / "a.cz").tokens.codes[0].numpy(), codes[:2])
    arguments = ("--codec", encodec_24k, "--format", "npy", "--pattern", "delay")
    assert run("export", tmp_path / "a.ecdc", "-o", tmp_path / "out", *arguments) == 0
    assert np.array_equal(export.read(tmp_path / "out").tokens(0).codes[0].numpy(), codes)
    assert run("decode", tmp_path / "a.ecdc", "-o", tmp_path / "no", "--codec", place.codec) == 1


def test_files_of_dac_decode_at_their_loudness(encodec_24k: Path, tmp_path: Path) -> None:
    codes = np.stack([codes_of(4, 150, seed) for seed in range(2)]).astype(np.uint16)
    about = metadata(channels=2, padding=True, original_length=88_000, input_db=np.float32([-22.0]))
    saved(tmp_path / "a.dac", {"codes": codes, "metadata": about})
    assert run("decode", tmp_path / "a.dac", "-o", tmp_path, "--codec", encodec_24k) == 0
    found = audio.info(tmp_path / "a.wav")
    assert (found.rate, found.channels, found.frames) == (44_100, 2, 88_000)
    x = audio.read(tmp_path / "a.wav")[0]
    saved(tmp_path / "b.dac", {"codes": codes, "metadata": about | {"input_db": np.float32([-28.0])}})
    assert run("decode", tmp_path / "b.dac", "-o", tmp_path, "--codec", encodec_24k) == 0
    quieter = audio.read(tmp_path / "b.wav")[0]
    assert torch.allclose(quieter * 10 ** (6 / 20), x, atol=2e-4)


@pytest.fixture(scope="module")
def dac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec that could have made files of DAC."""
    path = tmp_path_factory.mktemp("codec") / "dac.safetensors"
    zoo.save(path, build("dac, plain weights"))
    return path


def dac_windows(codec: Any, x: torch.Tensor, samples: int = 2256) -> tuple[np.ndarray, torch.Tensor]:
    """Signals (B, 1, T) in windows, as DAC codes what is longer than its --win_duration, and what it plays of them."""
    frames = unpadded(codec.encoder, torch.zeros(1, 1, samples)).shape[2]
    played = codec.decode_window(torch.zeros(1, 3, frames, dtype=torch.int64)).shape[2]
    assert played == codec.window_samples(frames)
    delay = (samples - played) // 2
    padded = torch.nn.functional.pad(x, (delay, delay + samples))
    starts = range(0, x.shape[2], played)
    codes = [codec.quantizer.encode(unpadded(codec.encoder, padded[:, :, a : a + samples])) for a in starts]
    return torch.stack(codes).numpy().astype(np.uint16), torch.cat([codec.decode_window(c) for c in codes], 2)


def test_dac_files_of_windows_decode(dac: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec, x = codeczoo.load(dac), sound(2400, 2, 3001)
    with torch.inference_mode():
        codes, expected = dac_windows(codec, x[:, None])  # (windows, 2, K, frames), (2, 1, T)
        fewer = torch.cat([codec.decode_window(c[:, :2]) for c in torch.from_numpy(codes.astype(int))], 2)
    assert len(codes) > 3 and len(np.unique(codes)) > 4
    chunk = codes.shape[3]
    about = metadata(channels=2, chunk_length=chunk, original_length=3001, sample_rate=2400, input_db=np.float32([-22]))
    saved(tmp_path / "a.dac", {"codes": np.concatenate(list(codes), 2), "metadata": about})
    arguments = (tmp_path / "a.dac", "--codec", dac)
    for extra, wanted in (((), expected), (("--codebooks", 2), fewer)):
        assert run("decode", *arguments, "-o", tmp_path / str(len(extra)), *extra) == 0
        found, rate = audio.read(tmp_path / str(len(extra)) / "a.wav")
        assert rate == 2400 and found.shape == (2, 3001)
        assert torch.allclose(found, wanted[:, 0, :3001] * 10 ** (-6 / 20), atol=1e-4)
    for command in (("encode",), ("export", "--format", "npy")):
        assert run(command[0], *arguments, "-o", tmp_path / command[0], *command[1:]) in (1, 2)
        assert "no continuous signal" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [{"chunk_length": 61}, {"chunk_length": 30}, {"chunk_length": 2**60}, {"original_length": 9000}, {"channels": 1}],
)
def test_dac_files_of_windows_that_the_codec_did_not_make(
    dac: Path, tmp_path: Path, changes: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    about = metadata(channels=2, chunk_length=60, original_length=3001, sample_rate=2400)
    codes = np.stack([codes_of(3, 300, seed) % 24 for seed in range(2)]).astype(np.uint16)
    for number, found in enumerate((about, about | changes)):
        saved(tmp_path / "a.dac", {"codes": codes, "metadata": found})
        assert run("decode", tmp_path / "a.dac", "-o", tmp_path / str(number), "--codec", dac) == number
    assert capsys.readouterr().err.endswith("not of this codec\n") and not (tmp_path / "1").exists()


def test_dac_files_of_windows_want_dac(encodec_24k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "a.dac", {"codes": codes_of(4, 144)[None].astype(np.uint16), "metadata": metadata()})
    assert run("decode", tmp_path / "a.dac", "-o", tmp_path / "out", "--codec", encodec_24k) == 1
    assert capsys.readouterr().err == f"codeczoo: {tmp_path / 'a.dac'}: windows of 72 frames are not of this codec\n"


def test_eval_measures_every_rate(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = ("--codebooks", "1,3", "--against", "mp3,opus", "--json", "-o", tmp_path)
    sounds = (place.sounds / "mono.wav", place.sounds / "speech.ogg")
    assert run("eval", *sounds, "--codec", place.codec, *wish) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recordings"] == 2 and told == json.loads((tmp_path / "eval.json").read_text())
    rows = told["rows"]
    assert [(row["system"], row["rate"]) for row in rows] == [
        (system, f"{n} codebooks") for n in (1, 3) for system in ("codec", "mp3", "opus")
    ]
    assert rows[0]["kbps"] == pytest.approx(0.4585, abs=1e-3) and rows[3]["kbps"] == pytest.approx(3 * rows[0]["kbps"])
    for row in rows:
        assert row["payload_kbps"] > 0 and all(np.isfinite(row[name]) for name in ("mel", "stft", "si_sdr"))
    assert rows[3]["payload_kbps"] <= 1.1 * rows[3]["kbps"] and 0 < rows[3]["codebook_use"] <= 1
    for name in ("rate_distortion.png", "spectrograms.png"):
        assert image.read(tmp_path / name).shape[1] > 100


@pytest.mark.parametrize("rates", [(0.16, 0.33, 0.75, 5.8, 8.1), (3.3, 3.9, 4.6), (1.5, 3, 6, 12, 24), (2.2,)])
def test_bitrates_along_a_plot_can_be_read(
    tmp_path: Path, rates: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: figures.append(figure) or path.touch())
    rows = [{"system": "codec", "payload_kbps": rate, "mel": 1.0, "stoi": 0.5} for rate in rates]
    drawings.plot(tmp_path / "plot.png", rows, drawings.BITS["audio"])
    FigureCanvasAgg(figures[0]).draw()
    for axis in figures[0].axes:
        low, high = axis.get_xlim()
        ticks = [*axis.xaxis.get_major_ticks(), *axis.xaxis.get_minor_ticks()]
        shown = [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
        boxes = sorted((label.get_window_extent().x0, label.get_window_extent().x1) for label in shown)
        assert len(boxes) >= 2 and all(a[1] < b[0] for a, b in pairwise(boxes))


def test_long_recordings_are_measured_in_clips(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recordings, "CLIP", 0.4)
    seen: list[int] = []
    encode = EnCodec.encode

    def spy(codec: EnCodec, x: torch.Tensor, **options: Any) -> codeczoo.Tokens:
        seen.append(x.shape[2])
        return encode(codec, x, **options)

    monkeypatch.setattr(EnCodec, "encode", spy)
    (tmp_path / "bad.wav").write_bytes((place.sounds / "mono.wav").read_bytes()[:-900])
    sounds = [place.sounds / name for name in ("mono.wav", "speech.ogg", "deep/stereo.flac", "short.wav")]
    assert run("eval", *sounds, tmp_path / "bad.wav", "--codec", place.codec, "--codebooks", 3, "--json") == 1
    told, errors = capsys.readouterr()
    told = json.loads(told)
    clips = [3, 3, 2, 0, 0]  # 1 s twice; 0.9 s, whose last tenth is part of the second clip
    assert told["recordings"] == 3 and len(told["failed"]) == 2 and "shorter than one sample" in errors
    assert told["rows"][0]["count"] - sum(clips) in (0, 1, 2)  # of the damaged one what came before
    assert max(seen) <= 0.6 * 2400 and told["rows"][0]["kbps"] == pytest.approx(3 * 0.4585, rel=0.01)


def test_recordings_are_decoded_for_so_many_seconds_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codeczoo.load(place.codec)
    clips = [codec.encode(sound(2400, 1, 1200, seed)[None]) for seed in range(5)]
    runner = batches.Runner(codec, "codec", "")
    whole = runner.decode(clips)
    sizes: list[int] = []
    decode = codec.decode

    def spy(tokens: codeczoo.Tokens) -> torch.Tensor:
        sizes.append(tokens.batch)
        return decode(tokens)

    monkeypatch.setattr(codec, "decode", spy)
    monkeypatch.setattr(batches, "TOGETHER", 1.1)
    parts = runner.decode(clips)
    assert sizes == [2, 2, 1] and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize(("sizes", "joined"), [([4, 4, 1], [4, 5]), ([4, 4, 2], [4, 4, 2]), ([1], [1]), ([4], [4])])
def test_short_ends_belong_to_the_clip_before(sizes: list[int], joined: list[int]) -> None:
    x = torch.randn(2, sum(sizes))
    found = list(recordings.last_joined(x.split(sizes, 1), 2))
    assert [part.shape[1] for part in found] == joined and torch.equal(torch.cat(found, 1), x)


def test_info_tells_rates(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", place.codec, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["media"], found["tokens"], found["bits"]) == (
        "audio, 2400 Hz, mono", "100 Hz of 3*24", "1.375 kbit/s"
    )  # fmt: skip
    assert run("info", place.stereo) == 0 and "no continuous stream" in capsys.readouterr().out


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 20))
def test_channels_split_and_join(channels: int, own: int, frames: int) -> None:
    x = torch.randn(channels, frames)
    signals = split_channels(x, own)
    assert signals.shape[1:] == (own, frames) and torch.equal(signals.flatten(0, 1)[:channels], x)
    assert torch.allclose(join_channels(signals, channels), x)
    other = signals + torch.randn_like(signals)
    assert torch.allclose(join_channels(other, channels)[-1], other.flatten(0, 1)[channels - 1 :].mean(0))
    for wrong in (len(signals) * own + 1, channels - own):
        if wrong < 1 or -(-wrong // own) != len(signals):
            with pytest.raises(InputError):
                join_channels(signals, max(0, wrong))


def test_audio_fits_are_checked() -> None:
    fit = AudioFit(44_100, 2, 5, 0.5)
    assert AudioFit.from_dict(fit.to_dict()) == fit and "gain" not in AudioFit(8000, 1, 1).to_dict()
    good = fit.to_dict()
    for key, value in (("rate", 0), ("rate", 2**40), ("channels", 10**6), ("frames", 0), ("gain", -1), ("gain", "1")):
        with pytest.raises(FormatError):
            AudioFit.from_dict(good | {key: value})
    for broken in ({}, None, [1], good | {"rate": 44100.0}):
        with pytest.raises(FormatError):
            AudioFit.from_dict(broken)  # type: ignore[arg-type]


def test_restored_pieces_are_as_long_as_the_recording() -> None:
    pieces = [torch.ones(2, 1, n) for n in (7, 0, 100, 3)]
    for rate, frames in ((2400, 110), (8000, 366), (2400, 90), (2400, 130)):
        x = torch.cat(list(restored(iter(pieces), 2400, AudioFit(rate, 2, frames, 0.5))), 1)
        assert x.shape == (2, frames) and abs(float(x[:, frames // 3].mean()) - 0.5) < 0.02
    assert torch.cat(list(restored(pieces, 2400, None)), 1).shape == (2, 110)


def lag(x: torch.Tensor, y: torch.Tensor) -> int:
    """By how many samples y lies behind x, from the peak of their cross-correlation."""
    a, b = (side.double().mean(0) for side in (x, y))
    n = 2 * len(a)
    correlation = torch.fft.irfft(torch.fft.rfft(b, n) * torch.fft.rfft(a, n).conj(), n)
    peak = int(correlation.argmax())
    return peak if peak < n // 2 else peak - n


def babble(rate: int, channels: int, seconds: float) -> torch.Tensor:
    """Noise in bursts, below 2 kHz."""
    noise = torch.randn(channels, round(4000 * seconds), generator=torch.Generator().manual_seed(0))
    bursts = (torch.arange(noise.shape[1]) // 300 % 3 > 0) * 0.1
    return audio.resample(noise * bursts, 4000, rate)


@pytest.mark.parametrize("name", baselines.BASELINES)
@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (44_100, 2), (16_000, 1)])
def test_baselines_lie_on_the_original(name: str, rate: int, channels: int) -> None:
    x = babble(rate, channels, 1.7)
    coded = baselines.at_kbps(x, rate, baselines.BASELINES[name], 48)
    assert coded.x_hat.shape == x.shape and coded.kbps == 48 and abs(lag(x, coded.x_hat)) <= 1
    assert float(torch.corrcoef(torch.stack([x[0], coded.x_hat[0]]))[0, 1]) > 0.9
    assert coded.bytes * 8 / 1.7 / 1000 == pytest.approx(48, rel=0.2)


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_baselines_use_the_bytes_they_get(name: str) -> None:
    x, budgets = babble(24_000, 1, 1.0), (10, 2200, 4500, 9000)
    coded = [baselines.at_bytes(x, 24_000, baselines.BASELINES[name], budget) for budget in budgets]
    assert coded[0].bytes > 10  # nothing is that small, and that is told
    assert all(c.bytes <= budget for c, budget in zip(coded[1:], budgets[1:], strict=True))
    assert all(a.kbps < b.kbps for a, b in pairwise(coded[1:]))
    with pytest.raises(InputError, match="one or two channels"):
        baselines.at_bytes(torch.zeros(3, 100), 24_000, baselines.BASELINES[name], 100)


@pytest.fixture
def no_encoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("av.codecs_available", set())
    return


@pytest.mark.parametrize("name", baselines.BASELINES)
@pytest.mark.parametrize("kbps", [8, 64])
def test_libsndfile_steps_in_where_ffmpeg_lacks_an_encoder(name: str, kbps: int, no_encoders: None) -> None:
    x = babble(24_000, 1, 1.7)
    coded = baselines.at_kbps(x, 24_000, baselines.BASELINES[name], kbps)
    assert coded.x_hat.shape == x.shape and abs(lag(x, coded.x_hat)) <= 4
    assert coded.bytes * 8 / 1.7 / 1000 == pytest.approx(kbps, rel=0.7)


def test_real_recordings(data_root: Path, encodec_24k: Path, tmp_path: Path) -> None:
    files = [p for p in (data_root / "SAMPLES").iterdir() if p.suffix in (".wav", ".flac") and p.stat().st_size < 2**20]
    assert files
    assert run("encode", *files, "-o", tmp_path, "--codec", encodec_24k) == 0
    assert run("decode", tmp_path, "-o", tmp_path / "wav") == 0
    for path in files:
        assert audio.info(tmp_path / "wav" / f"{path.stem}.wav")[:3] == audio.info(path)[:3]
