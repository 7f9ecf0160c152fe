"""encode --target and --max-bytes: the shortest prefix of a quality, the longest of so many bytes, of every media."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil, log2
from pathlib import Path
from typing import Any, NamedTuple

import flextok_cases
import numpy as np
import pytest
import torch
from audio_cases import build as build_audio
from audio_cases import encodec, rvq
from conftest import one_d_piece_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import names, one_line, picture, run
from test_foreign import codes_of, ecdc_file
from test_hitvideo import CODECS
from test_io_video import clip
from torch import Tensor

import codeczoo
from codeczoo import export, zoo
from codeczoo.core.errors import FormatError, InputError
from codeczoo.core.types import Tokens
from codeczoo.export import clips, recordings, targets
from codeczoo.export.batches import Prefix, Runner, paired
from codeczoo.export.media import media_of
from codeczoo.export.sources import Sample
from codeczoo.export.targets import ToBytes, ToQuality, search
from codeczoo.io import audio, image, sound, tokens, video
from codeczoo.io.files import find
from codeczoo.io.target import Target
from codeczoo.metrics import audio as audio_metrics
from codeczoo.metrics import image as image_metrics
from codeczoo.metrics import video as video_metrics

pytest.importorskip("av")
pytest.importorskip("soundfile")

RATE = 2400


class Place(NamedTuple):
    """A folder of files and a codec for each media."""

    files: dict[str, Path]
    codec: dict[str, Path]


class Case(NamedTuple):
    """One media: its kind of prefix, a measure of it, and what the measure gives for the first n of a file."""

    kind: str
    metric: str
    less: bool
    values: Callable[[Path, Any], list[float]]


def waves(channels: int, samples: int, rate: int) -> Tensor:
    t = torch.arange(samples) / rate
    noise = torch.rand(channels, samples, generator=torch.Generator().manual_seed(samples))
    return torch.stack([0.4 * torch.sin(2000 * (c + 1) * t * (1 + t)) for c in range(channels)]) + 0.2 * noise


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("target")
    files = {media: root / media for media in CASES}
    for folder in files.values():
        (folder / "deep").mkdir(parents=True)
    for i, (name, size) in enumerate({"a.png": (40, 50), "b.png": (32, 32), "deep/c.png": (33, 20)}.items()):
        picture(i, size).save(files["image"] / name)
    for name, rate, shape in (("a.wav", RATE, (1, 2400)), ("deep/b.flac", 8000, (2, 9000)), ("c.wav", RATE, (1, 700))):
        audio.write(files["audio"] / name, waves(*shape, rate), rate)
    for name, shape in {"a.mkv": (9, 32, 32), "deep/b.mkv": (14, 32, 48), "c.mkv": (5, 32, 32)}.items():
        with video.Writer(files["video"] / name, 24) as file:
            file.append(clip(*shape, noise=0.2))
    torch.manual_seed(0)
    made = {"image": codeczoo.build(one_d_piece_tree()), "audio": build_audio("encodec causal reflect")}
    made["video"] = CODECS["ResidualMerge"]
    for media, codec in made.items():
        zoo.save(root / f"{media}.safetensors", codec)
    return Place(files, {media: root / f"{media}.safetensors" for media in made})


@torch.no_grad()
def picture_values(path: Path, codec: Any) -> list[float]:
    x, _ = image.fit(image.read(path), (32, 32))
    made = codec.encode(x)
    return [float(image_metrics.psnr(x, codec.decode(made.prefix(positions=n)))) for n in range(1, 17)]


@torch.no_grad()
def sound_values(path: Path, codec: Any) -> list[float]:
    recording, rate = audio.read(path)
    x = audio.resample(recording, rate, RATE)[:, None]  # (channels, 1, T)
    made = codec.encode(x)
    decoded = [codec.decode(made.prefix(codebooks=n)) for n in range(1, 4)]
    return [float(audio_metrics.mel_distance(x, x_hat, RATE).mean()) for x_hat in decoded]


@torch.no_grad()
def clip_values(path: Path, codec: Any) -> list[float]:
    x = video.read(path)[None].float() / 255
    made = codec.encode(x)
    return [float(video_metrics.psnr(x, codec.decode(made.prefix(streams=n)))) for n in range(1, 4)]


CASES = {
    "image": Case("positions", "psnr", False, picture_values),
    "audio": Case("codebooks", "mel", True, sound_values),
    "video": Case("streams", "psnr", False, clip_values),
}


def bisected(values: list[float], good: Callable[[float], bool]) -> tuple[int, bool]:
    """The prefix that bisection over these values finds, and whether it is good; all of them where it finds none."""
    low, high = 0, len(values) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(values[middle - 1]) else (middle, high)
    return min(high, len(values)), high <= len(values)


def length(made: Tokens, kind: str) -> int:
    return len(made.streams) if kind == "streams" else made.streams[0].shape[1 if kind == "codebooks" else 2]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# --- the search ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=40), min_size=1, max_size=6))
def test_what_is_found_held_and_all_is_said_only_where_all_failed(table: list[list[bool]]) -> None:
    rounds = []

    def holds(asked: list[tuple[int, int]]) -> list[bool]:
        assert len({i for i, _ in asked}) == len(asked)  # one prefix of each file in a batch
        rounds.append(len(asked))
        return [table[i][n - 1] for i, n in asked]

    found = search([len(row) for row in table], holds)
    for n, row in zip(found, table, strict=True):
        assert row[n - 1] if n <= len(row) else not row[-1]
        if row == sorted(row):  # monotone: the very shortest
            assert n == row.index(True) + 1 if True in row else n == len(row) + 1
    assert len(rounds) <= ceil(log2(max(map(len, table)) + 1))


# --- --target --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media", CASES)
def test_every_file_gets_what_bisection_over_its_prefixes_gives(
    place: Place, tmp_path: Path, media: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case, codec = CASES[media], codeczoo.load(place.codec[media])
    paths = sorted(path for path in place.files[media].rglob("*") if path.is_file())
    values = {path: case.values(path, codec) for path in paths}
    everything = sorted(value for row in values.values() for value in row)
    middle = len(everything) // 2
    wanted = round((everything[middle] + everything[middle - 1]) / 2, 4)
    sign = -1 if case.less else 1
    target = f"{case.metric}:{wanted}"
    arguments = ("encode", place.files[media], "-o", tmp_path, "--codec", place.codec[media], "--target", target)
    code = run(*arguments, "--json", "--batch", 2)
    *rows, end = lines(capsys)
    assert {row["path"] for row in rows} == set(map(str, paths))
    chosen = set()
    for row in rows:
        path = Path(row["path"])
        n, met = bisected(values[path], lambda value: sign * (value - wanted) >= 0)
        made = tokens.read((tmp_path / path.relative_to(place.files[media])).with_suffix(".cz"))
        assert (row[case.kind], row["met"], length(made.tokens, case.kind)) == (n, met, n)
        assert row[case.metric] == pytest.approx(values[path][n - 1], abs=2e-3)
        assert row["bytes"] == made.header.total_bytes
        assert made.header.target == Target(f"{case.metric}:{wanted:g}", row[case.metric], met)
        chosen.add((n, met))
    assert len(chosen) > 1  # or nothing was chosen
    assert code == int(not all(row["met"] for row in rows))
    assert end["encoded"] == 3 and end.get("missed", 0) == sum(not row["met"] for row in rows)


@pytest.mark.parametrize("media", CASES)
def test_long_media_are_measured_piece_by_piece(
    place: Place, tmp_path: Path, media: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if media == "image":
        pytest.skip("pictures are held")
    case = CASES[media]
    values = [v for p in place.files[media].rglob("*.*") for v in case.values(p, codeczoo.load(place.codec[media]))]
    wanted = f"{case.metric}:{sorted(values)[len(values) // 2]:.4f}"
    arguments = ("encode", place.files[media], "--codec", place.codec[media], "--target", wanted, "--json")
    run(*arguments, "-o", tmp_path / "a")
    whole = lines(capsys)[:-1]
    monkeypatch.setattr(recordings, "SHORT", 0.01)
    monkeypatch.setattr(recordings, "PIECE", 0.07)
    monkeypatch.setattr(clips, "SHORT", 0)
    monkeypatch.setattr(clips, "AT_ONCE", 3 * 32 * 32)
    run(*arguments, "-o", tmp_path / "b")
    pieces = lines(capsys)[:-1]
    for a, b in zip(whole, pieces, strict=True):
        assert a[case.metric] == pytest.approx(b[case.metric], abs=2e-3)
        assert {**a, case.metric: 0} == {**b, case.metric: 0}


def test_the_mean_over_pieces_is_by_their_duration(place: Place) -> None:
    cutter = ToQuality(media_of(Runner(codeczoo.load(place.codec["audio"]), "a", "b")), "mel", 1.0)
    pieces = [(torch.zeros(1, 1, n), torch.full((1, 1, n), float(value))) for n, value in ((30, 1), (10, 5), (20, 9))]
    measure = lambda x, x_hat: torch.where(x_hat[:, 0, 0] == 9, torch.nan, x_hat[:, 0, 0])  # noqa: E731
    cutter.measure = targets.Measure(measure)
    assert cutter._mean(pieces) == (30 * 1 + 10 * 5) / 40
    assert np.isnan(cutter._mean(pieces[2:]))


def test_pieces_of_two_media_are_brought_together() -> None:
    x = torch.arange(23.0).view(1, 1, 23)
    cut = list(paired(x.split([5, 5, 13], 2), (x + 1).split([2, 9, 1, 11], 2)))
    assert [a.shape[2] for a, _ in cut] == [5, 5, 13] and all(torch.equal(a + 1, b) for a, b in cut)
    with pytest.raises(InputError, match="more than was encoded"):
        list(paired([x], [x[:, :, :9]]))


def test_tiles_are_measured_as_they_are_blended(place: Place, tmp_path: Path) -> None:
    picture(7, (50, 60)).save(tmp_path / "large.png")
    assert run("encode", tmp_path / "large.png", "-o", tmp_path, "--codec", place.codec["image"], "--fit", "tile",
               "--target", "psnr:5") == 0  # fmt: skip
    file, codec = tokens.read(tmp_path / "large.cz"), codeczoo.load(place.codec["image"])
    fit = image.Fit.from_dict(file.header.fit or {})
    assert file.tokens.batch == 4 and file.header.target is not None
    with torch.no_grad():
        x_hat = image.unfit(codec.decode(file.tokens), fit)
    x = image.read(tmp_path / "large.png").float() / 255
    assert file.header.target.value == pytest.approx(float(image_metrics.psnr(x[None], x_hat[None])), abs=1e-3)


def test_all_tokens_are_kept_where_they_miss_the_target(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--codec", place.codec["image"], "--target", "psnr:90")
    assert run("encode", place.files["image"], "-o", tmp_path, *arguments) == 1
    told = capsys.readouterr()
    assert len(re.findall(r"\.png: target psnr:90 missed: \d\.\d+ with all 16 positions\n", told.err)) == 3
    assert told.out.splitlines()[-1].startswith("3 encoded, ") and told.out.splitlines()[-1].endswith(", missed 3")
    assert told.out.splitlines()[0].split() == ["path", "positions", "bytes", "psnr", "met"]
    header = tokens.read_header(tmp_path / "a.cz")
    assert header.shapes == ((1, 16),) and header.target is not None and not header.target.met
    assert run("info", tmp_path / "a.cz", "--json") == 0
    facts = lines(capsys)[0]
    assert (facts["target"], facts["met"]) == ("psnr:90", False) and facts["value"] == header.target.value


def test_decoders_that_sample_are_measured_as_they_will_decode(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = flextok_cases.build()
    zoo.save(tmp_path / "flextok.safetensors", codec)
    path, how = place.files["image"] / "a.png", ("--steps", 2, "--seed", 3)
    x, _ = image.fit(image.read(path), codec.spec.input_size)
    codec.sampling = replace(codec.sampling, steps=2, seed=3)
    with torch.no_grad():
        made = codec.encode(x)
        prefixes = [made.prefix(positions=n) for n in range(1, made.codes.shape[2] + 1)]
        values = [float(image_metrics.psnr(x, codec.decode(prefix))) for prefix in prefixes]
    wanted = round(sorted(values)[len(values) // 2], 3)
    arguments = ("-o", tmp_path, "--codec", tmp_path / "flextok.safetensors", "--target", f"psnr:{wanted}", "--json")
    run("encode", path, place.files["image"] / "b.png", *arguments, *how)
    row = lines(capsys)[0]
    n, met = bisected(values, lambda value: value >= wanted)
    assert (row["positions"], row["met"]) == (n, met) and row["psnr"] == pytest.approx(values[n - 1], abs=1e-3)


def test_silence_has_no_ratio(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio.write(tmp_path / "silence.wav", torch.zeros(1, 2000), RATE)
    arguments = ("--codec", place.codec["audio"], "--target", "si-sdr:-20", "--json")
    assert run("encode", tmp_path / "silence.wav", "-o", tmp_path, *arguments) == 1
    told = capsys.readouterr()
    assert json.loads(told.out.splitlines()[0]) | {"path": "", "bytes": 0} == {
        "path": "", "codebooks": 3, "bytes": 0, "si_sdr": None, "met": False
    }  # fmt: skip
    assert "target si_sdr:-20 missed: no value with all 3 codebooks" in told.err
    assert tokens.read_header(tmp_path / "silence.cz").target == Target("si_sdr:-20", None, False)


def test_the_options_of_a_prefix_say_where_the_search_begins(place: Place, tmp_path: Path) -> None:
    arguments = ("--codec", place.codec["image"], "--target", "psnr:90", "--positions", 5)
    assert run("encode", place.files["image"], "-o", tmp_path, *arguments) == 1
    assert tokens.read_header(tmp_path / "b.cz").shapes == ((1, 5),)


@pytest.mark.parametrize(("media", "unreachable"), [("image", "psnr:90"), ("audio", "mel:0"), ("video", "psnr:90")])
def test_a_file_is_encoded_once_and_decoded_with_others(
    place: Place, tmp_path: Path, media: str, unreachable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(path for path in place.files[media].rglob("*.*") if path.name != "b.mkv")  # of another size
    calls: dict[str, list[int]] = {"encode": [], "decode": []}
    kind = type(codeczoo.load(place.codec[media]))
    encode, decode = kind.encode, kind.decode

    def counted_encode(self: Any, x: Tensor, **options: Any) -> Tokens:
        calls["encode"].append(len(x))
        return encode(self, x, **options)

    def counted_decode(self: Any, made: Tokens) -> Tensor:
        calls["decode"].append(made.batch)
        return decode(self, made)

    monkeypatch.setattr(kind, "encode", counted_encode)
    monkeypatch.setattr(kind, "decode", counted_decode)
    arguments = ("-o", tmp_path / "cz", "--codec", place.codec[media], "--target", unreachable)
    assert run("encode", *paths, *arguments) == 1
    signals, longest = {"image": (3, 16), "audio": (4, 3), "video": (2, 3)}[media]  # one recording has two channels
    assert sum(calls["encode"]) == signals
    assert calls["decode"] == [signals] * ceil(log2(longest + 1))  # all at once


@pytest.mark.parametrize("kind", ["quality", "bytes"])
def test_only_a_few_files_are_held(place: Place, kind: str) -> None:
    codec = codeczoo.load(place.codec["image"])
    media = media_of(Runner(codec, "a", "b", batch=1))
    (first, *_) = media.encode(find([place.files["image"] / "b.png"], image.SUFFIXES), Prefix())
    taken = 0

    def samples() -> Iterator[Sample]:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield first

    cutter = ToQuality(media, "psnr", 1.0) if kind == "quality" else ToBytes(media, 200)
    next(cutter.cut(samples()))
    assert taken < 10


@pytest.mark.parametrize(
    ("media", "arguments", "message"),
    [
        ("image", ("--target", "lufs:3"), "--target: no measure 'lufs' for pictures; allowed: ms_ssim, psnr, ssim"),
        ("audio", ("--target", "psnr:3"), "--target: no measure 'psnr' for recordings; "),
        ("video", ("--target", "flicker:3"), "no measure 'flicker' for clips and pictures; allowed: psnr, ssim"),
        ("image", ("--target", "psnr"), "argument --target: must be METRIC:VALUE, e.g. psnr:28, got 'psnr'"),
        ("image", ("--target", "psnr:nan"), "must be METRIC:VALUE"),
        ("image", ("--target", "psnr:20", "--max-bytes", "90"), "not allowed with argument"),
        ("image", ("--max-bytes", "0"), "must be a whole number of at least 1, got '0'"),
        ("video", ("--target", "psnr:20", "--positions", "2"), "fewer positions of video are fewer frames"),
        ("image", ("--steps", "3"), "options of sampling are for --target"),
        ("image", ("--target", "psnr:20", "--steps", "3"), "--steps: the decoder of this codec does not sample"),
    ],
)
def test_bad_requests_get_one_line(
    place: Place,
    tmp_path: Path,
    media: str,
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("encode", place.files[media], "-o", tmp_path / "x", "--codec", place.codec[media], *arguments) == 2
    assert message in one_line(capsys) and not (tmp_path / "x").exists()


def test_a_codec_without_prefixes_refuses(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from video_cases import build

    zoo.save(tmp_path / "grid.safetensors", build("vidtok"))
    arguments = ("encode", place.files["video"], "-o", tmp_path / "x", "--codec", tmp_path / "grid.safetensors")
    for option in (("--target", "psnr:20"), ("--max-bytes", "99")):
        assert run(*arguments, *option) == 2
        assert "this codec decodes whole tokens only" in one_line(capsys)


def test_a_bad_file_and_a_small_one_stop_nobody(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes((place.files["image"] / "a.png").read_bytes()[:100])
    picture(0, (32, 32)).save(tmp_path / "good.png")
    arguments = ("--codec", place.codec["image"], "--target")
    assert run("encode", tmp_path, "-o", tmp_path / "cz", *arguments, "psnr:1") == 1
    assert names(tmp_path / "cz") == ["good.cz"] and "bad.png" in capsys.readouterr().err
    assert run("encode", tmp_path / "good.png", "-o", tmp_path / "cz2", *arguments, "ms_ssim:0.5") == 1
    assert "ms_ssim takes at least 176 pixels a side, it has 32x32" in capsys.readouterr().err
    assert not (tmp_path / "cz2").exists()


# --- --max-bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media", CASES)
def test_files_take_all_the_bytes_they_may(
    place: Place, tmp_path: Path, media: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case, arguments = CASES[media], ("encode", place.files[media], "--codec", place.codec[media])
    run(*arguments, "-o", tmp_path / "all")
    sizes = sorted(p.stat().st_size for p in (tmp_path / "all").rglob("*.cz"))
    most = sizes[1] + 9  # the header tells it, and so takes more than these
    capsys.readouterr()
    code = run(*arguments, "-o", tmp_path / "cz", "--max-bytes", most, "--json")
    *rows, end = lines(capsys)
    assert code == (1 if end["failed"] else 0) and len(rows) + len(end["failed"]) == 3
    for row in rows:
        cz = (tmp_path / "cz" / Path(row["path"]).relative_to(place.files[media])).with_suffix(".cz")
        file, whole = tokens.read(cz), tokens.read(tmp_path / "all" / cz.relative_to(tmp_path / "cz"))
        n, full = length(file.tokens, case.kind), length(whole.tokens, case.kind)
        assert cz.stat().st_size == row["bytes"] <= most and row[case.kind] == n
        assert file.header.target == Target(most)
        kept = whole.tokens.prefix(**{case.kind: n})
        assert all(torch.equal(a, b) for a, b in zip(file.tokens.streams, kept.streams, strict=True))
        if n < full:
            h = whole.header
            more = tokens.dumps(
                whole.tokens.prefix(**{case.kind: n + 1}), codec=h.codec, weights_hash=h.weights_hash, fit=h.fit,
                target=Target(most),
            )  # fmt: skip
            assert len(more) > most
    assert any(row[case.kind] < {"image": 16, "audio": 3, "video": 3}[media] for row in rows)


def test_no_file_where_one_token_is_too_much(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--codec", place.codec["image"], "--max-bytes", 40)
    assert run("encode", place.files["image"], "-o", tmp_path / "cz", *arguments) == 1
    told = capsys.readouterr()
    assert told.err.count("--max-bytes 40: with 1 of 16 positions it takes ") == 3 and "Traceback" not in told.err
    assert not (tmp_path / "cz").exists() and told.out.startswith("0 encoded")


def test_the_sound_of_a_clip_counts(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio.write(tmp_path / "a.wav", waves(1, 12000, 24000), 24000)
    sound.encode(tmp_path / "a.wav", tmp_path / "a.mka", ".webm")
    with video.Writer(tmp_path / "loud.mkv", 24, 1, sound.Track(tmp_path / "a.mka")) as file:
        file.append(clip(9, 32, 32))
    arguments = ("encode", tmp_path / "loud.mkv", "--codec", place.codec["video"])
    assert run(*arguments, "-o", tmp_path / "all") == 0
    whole = tokens.read(tmp_path / "all" / "loud.cz")
    size, track = whole.header.total_bytes, len(next(iter(whole.attachments.values())))
    assert track > 1000
    assert run(*arguments, "-o", tmp_path / "cz", "--max-bytes", size - 3) == 0
    kept = tokens.read(tmp_path / "cz" / "loud.cz")
    assert len(kept.tokens.streams) == 2 and kept.header.attachments == whole.header.attachments
    capsys.readouterr()
    assert run(*arguments, "-o", tmp_path / "none", "--max-bytes", track) == 1
    assert f"bytes, {track} of them its sound" in capsys.readouterr().err


def test_tokens_of_others_have_bytes_but_no_quality(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = encodec(causal=True, ratios=[8, 5, 4, 2]) | {"quantizer": rvq(4, 1024), "sample_rate": 24_000}
    codec = tmp_path / "encodec.safetensors"
    zoo.save(codec, codeczoo.build(tree))
    (tmp_path / "a.ecdc").write_bytes(ecdc_file("encodec_24khz", 23_900, [codes_of(4, 75)]))
    assert run("encode", tmp_path / "a.ecdc", "-o", tmp_path / "cz", "--codec", codec, "--target", "mel:1") == 1
    assert "have no original that they could be compared with" in capsys.readouterr().err
    assert run("encode", tmp_path / "a.ecdc", "-o", tmp_path / "cz", "--codec", codec, "--max-bytes", 400) == 0
    assert tokens.read(tmp_path / "cz" / "a.cz").tokens.codes.shape == (1, 2, 75)


# --- afterwards ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media", CASES)
@pytest.mark.parametrize("pattern", ["flat", "layer-major", "delay"])
def test_exports_keep_the_lengths(
    place: Place, tmp_path: Path, media: str, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if media == "video" and pattern == "delay":
        pytest.skip("several streams have no rows")
    case, codec = CASES[media], ("--codec", place.codec[media])
    values = [v for p in place.files[media].rglob("*.*") for v in case.values(p, codeczoo.load(place.codec[media]))]
    wanted = ("--target", f"{case.metric}:{sorted(values)[len(values) // 2]:.4f}")
    run("encode", place.files[media], "-o", tmp_path / "cz", *codec, *wanted)
    how = ("--format", "npy", "--pattern", pattern)
    assert run("export", tmp_path / "cz", "-o", tmp_path / "out", *codec, *how) == 0
    capsys.readouterr()
    code = run("export", place.files[media], "-o", tmp_path / "direct", *codec, *how, *wanted)
    told = capsys.readouterr()
    reader, direct, found = export.read(tmp_path / "out"), export.read(tmp_path / "direct"), set()
    missed = [path for path in (tmp_path / "cz").rglob("*.cz") if not tokens.read_header(path).target.met]  # type: ignore[union-attr]
    assert code == bool(missed) and told.err.count(" missed: ") == len(missed) == direct.header["missed"]
    for i in range(3):
        assert np.array_equal(direct.ids(i), reader.ids(i)) and direct.document(i).id == reader.document(i).id
        kept, back = tokens.read((tmp_path / "cz" / reader.document(i).id).with_suffix(".cz")).tokens, reader.tokens(i)
        assert all(torch.equal(x, y) for x, y in zip(back.streams, kept.streams, strict=True))
        assert torch.equal(back.size, kept.size)
        found.add(length(kept, case.kind))
    assert len(found) > 1


def test_files_of_all_lengths_decode_together(place: Place, tmp_path: Path) -> None:
    codec = codeczoo.load(place.codec["image"])
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = codec.encode(x)
        some = [made[i].prefix(positions=n) for i, n in enumerate((9, 16, 1, 4, 16))]
        alone = [codec.decode(one)[0] for one in some]
    together = Runner(codec, "a", "b", batch=4).decode(some)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("media", ["audio", "video"])
def test_other_durations_decode_together(place: Place, media: str) -> None:
    codec = codeczoo.load(place.codec[media])
    if media == "audio":
        xs = [waves(1, n, RATE)[None] for n in (2400, 700, 711, 1500)]
    else:
        xs = [clip(n, 32, 32)[None] for n in (9, 14, 1, 5)]
    with torch.inference_mode():
        some = [codec.encode(x) for x in xs]
        alone = [codec.decode(one)[0] for one in some]
    together = Runner(codec, "a", "b", batch=3).decode(some)
    for a, b in zip(alone, together, strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    "target",
    [Target("psnr:28", 28.312), Target("mel:0.8", 0.91, met=False), Target("si_sdr:4", None, met=False), Target(200)],
)
def test_headers_keep_a_target(tiny_codec: Any, target: Target) -> None:
    with torch.no_grad():
        made = tiny_codec.encode(torch.rand(1, 3, 32, 32))
    data = tokens.dumps(made, codec="a", weights_hash="b", target=target)
    assert tokens.read(data).header.target == target
    plain = tokens.dumps(made, codec="a", weights_hash="b")
    assert tokens.read_header(plain).target is None and plain[4] == data[4] == tokens.PLAIN
    assert len(data) - len(plain) < 45


@pytest.mark.parametrize(
    "values",
    [{"target": 3}, {"target": "a:1", "value": "x"}, {"target": "a:1", "value": float("inf")}, {"max_bytes": 0},
     {"target": "a:1", "met": 1}, {"max_bytes": True}],
)  # fmt: skip
def test_unsound_targets_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="in the header is not sound"):
        Target.from_dict(values)
