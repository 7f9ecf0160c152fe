"""codeczoo report: the page loads nothing, shows every rate of every system, and says what the JSON says."""

import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from math import log2
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from audio_cases import build as build_audio
from conftest import one_d_piece_tree
from PIL import Image
from test_cli import one_line, picture, run
from test_hitvideo import CODECS
from test_io_video import clip
from test_target import waves

import codeczoo
from codeczoo import zoo
from codeczoo.cli import svg
from codeczoo.cli.examples import told
from codeczoo.cli.page import pace
from codeczoo.cli.page_tables import bar, grid
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.export import speed as speed_module
from codeczoo.export.batches import Runner
from codeczoo.export.study import groups
from codeczoo.io import audio, image, video
from codeczoo.metrics.ngrams import TokenStatistics, ngrams

pytest.importorskip("av")
pytest.importorskip("soundfile")

RATE = 2400


class Made(NamedTuple):
    """A report on three media, and the files it is of."""

    root: Path
    page: str
    facts: dict[str, Any]


class Page(HTMLParser):
    """Addresses, elements and text of a page; complains of tags that do not match."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("report")
    (root / "in").mkdir()
    picture(0, (40, 50)).save(root / "in" / "a & b.png")
    picture(1, (32, 32)).save(root / "in" / "c.png")
    (root / "in" / "bad.png").write_bytes((root / "in" / "c.png").read_bytes()[:90])
    audio.write(root / "in" / "a.wav", waves(2, 2400, RATE), RATE)
    with video.Writer(root / "in" / "a.mkv", 24) as file:
        file.append(clip(9, 33, 48))
    torch.manual_seed(0)
    codecs = {"line": codeczoo.build(one_d_piece_tree()), "other": codeczoo.build(one_d_piece_tree())}
    codecs |= {"sound": build_audio("encodec causal reflect"), "layers": CODECS["ResidualMerge"]}
    for name, codec in codecs.items():
        zoo.save(root / f"{name}.safetensors", codec)
    named = [argument for name in codecs for argument in ("--codec", root / f"{name}.safetensors")]
    against = ("--against", "jpeg,opus,h264")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed_module, "LEAST", 0.0)
        assert run("report", root / "in", "-o", root / "out.html", *named, *against, "--title", "Mine <1>") == 1
    facts = json.loads((root / "out.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    return Made(root, (root / "out.html").read_text(encoding="utf-8"), facts)


def test_the_page_loads_nothing(made: Made) -> None:
    page = Page(made.page)
    names = ("src", "href", "data", "poster")
    addresses = [attrs[name] for _, attrs in page.elements for name in names if name in attrs]
    assert addresses and all(str(address).startswith("data:") for address in addresses)
    assert not re.search(r"https?:|url\(|@import|<link|<iframe", made.page)
    assert "Mine &lt;1&gt;" in made.page and "<1>" not in made.page and "a &amp; b.png" in made.page
    assert "bad.png" in page.text and len(page.all("script")) == 1


def test_every_system_is_shown_at_every_rate(made: Made) -> None:
    page = Page(made.page)
    rates = {"line": 5, "other": 5, "sound": 3, "layers": 3}
    rows = [(row["system"], row["rate"]) for codec in made.facts["codecs"] for row in codec["rows"]]
    for codec in made.facts["codecs"]:
        beside = {"line": "jpeg", "other": "jpeg", "sound": "opus", "layers": "h264"}[codec["name"]]
        systems = [row["system"] for row in codec["rows"]]
        assert systems.count(codec["name"]) == systems.count(beside) == rates[codec["name"]]
    assert len(rows) == 2 * sum(rates.values())
    pictures = 2 * (1 + 2 * 2 * 5)  # files, of each the original and two codecs and a baseline each
    sounds = 1 + 2 * 3
    assert len(page.all("audio")) == sounds and len(page.all("video")) == 1 + 2 * 3
    assert len(page.all("img")) == pictures + sounds  # spectrograms


def test_what_is_embedded_is_what_was_decoded(made: Made) -> None:
    data = re.findall(r'<img src="data:image/webp;base64,([^"]+)"', made.page)
    first = np.asarray(Image.open(BytesIO(b64decode(data[0]))))
    x, _ = image.fit(image.read(made.root / "in" / "a & b.png"), (32, 32), "crop")
    assert np.array_equal(first, (x[0] * 255).round().byte().permute(1, 2, 0).numpy())
    codec = codeczoo.load(made.root / "line.safetensors")
    with torch.no_grad():
        x_hat = codec.decode(codec.encode(x).prefix(positions=1))[0]
    second = np.asarray(Image.open(BytesIO(b64decode(data[1])))).astype(int)
    assert np.abs(second - (x_hat * 255).round().permute(1, 2, 0).numpy()).max() <= 1
    sound = re.search(r'src="data:audio/flac;base64,([^"]+)"', made.page)
    assert sound is not None
    heard, rate = audio.read(b64decode(sound[1]))
    assert rate == RATE and torch.allclose(heard[0], waves(2, 2400, RATE).mean(0), atol=2e-4)
    film = re.search(r'src="data:video/mp4;base64,([^"]+)"', made.page)
    assert film is not None
    frames = video.read(b64decode(film[1]))
    assert tuple(frames.shape) == (3, 9, 32, 48)


def test_the_numbers_are_those_of_eval(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("line", "sound"):
        what = {"line": ("*.png", "jpeg"), "sound": ("*.wav", "opus")}[name]
        paths = [path for path in sorted((made.root / "in").glob(what[0])) if path.name != "bad.png"]
        capsys.readouterr()
        assert run("eval", *paths, "--codec", made.root / f"{name}.safetensors", "--against", what[1], "--json") == 0
        found = next(codec for codec in made.facts["codecs"] if codec["name"] == name)
        for row, own in zip(json.loads(capsys.readouterr().out)["rows"], found["rows"], strict=True):
            assert row.keys() == own.keys() and (row["system"], row["rate"]) == (own["system"], own["rate"])
            assert all(row[key] == pytest.approx(own[key], rel=1e-4) for key in row.keys() - {"system", "rate"})


def test_bad_requests_get_one_line(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, sound = made.root / "line.safetensors", made.root / "sound.safetensors"
    for arguments, message in (
        (("-o", tmp_path / "a.txt", "--codec", line), "the page is a file that ends in .html"),
        (("-o", tmp_path / "a.html", "--codec", line, "--codec", line), "two codecs are called line"),
        (("-o", tmp_path / "a.html", "--codec", sound), "sound takes recordings, and there are none among the inputs"),
        (("-o", tmp_path / "a.html", "--codec", line, "--against", "gif"), "no baseline 'gif'"),
    ):
        assert run("report", made.root / "in" / "c.png", *arguments) == 2
        assert message in one_line(capsys)
    assert run("report", made.root / "in" / "bad.png", "-o", tmp_path / "a.html", "--codec", line) == 2
    assert "nothing measured" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_codecs_that_see_other_media_are_not_compared(made: Made, tmp_path: Path) -> None:
    spec = codeczoo.load(made.root / "line.safetensors").spec
    studies: Any = [SimpleNamespace(spec=replace(spec, input_size=size)) for size in ((32, 32), (64, 64), (32, 32))]
    assert groups(studies) == [[studies[0], studies[2]], [studies[1]]]
    assert made.page.count("<h2>Pictures: 32x32</h2>") == 1  # both codecs
    assert "<h2>Sound: 2400 Hz, mono</h2>" in made.page and "<h2>Clips: any size</h2>" in made.page


def test_what_is_told_in_words() -> None:
    assert pace({"seconds": 10.0, "encode_seconds": 2.0, "decode_seconds": 0.5, "memory_mib": 41.6}) == {
        "encode": "5 x real time", "decode": "20 x real time", "memory": "42 MiB"
    }  # fmt: skip
    assert pace({"frames": 9.0, "encode_seconds": 3.0, "decode_seconds": 1.0})["encode"] == "3 frames/s"
    assert told({"file_bytes": 120.2, "psnr": 21.456, "too_large": 1.0}) == "120 bytes, 21.46 dB, the smallest it can"
    assert grid([{"a": "<i>", "b": bar(0.5)}, {"a": 2}]).count("<td>") == 4
    assert "&lt;i&gt;" in grid([{"a": "<i>"}]) and "<meter" in grid([{"b": bar(0.5)}])


def test_rates_may_leave_out_the_longest(made: Made, tmp_path: Path) -> None:
    """Use and predictability are those of all codes, whatever rates were looked at."""
    sound = ("--codec", made.root / "sound.safetensors", "--against", "none")
    assert run("report", made.root / "in" / "a.wav", "-o", tmp_path / "a.html", *sound, "--rates", 1) == 0
    (found,) = json.loads((tmp_path / "a.json").read_text())["codecs"]
    (whole,) = [codec for codec in made.facts["codecs"] if codec["name"] == "sound"]
    assert len(found["codebooks"]) == len(found["ngrams"]) > 1 and found["codebooks"] == whole["codebooks"]


# --- its parts -------------------------------------------------------------------------------------------------------


def test_ngrams_of_known_sequences() -> None:
    rng = np.random.default_rng(0)
    even = ngrams("s", 0, [rng.integers(0, 4, 40_000)], 4)
    assert even.bits == pytest.approx((2, 2, 2), abs=2e-3) and even.distinct == (4, 16, 64)
    assert even.zipf == pytest.approx(0, abs=0.02) and even.codes == 40_000
    cycle = ngrams("s", 1, [np.tile([3, 1, 2, 0], 500)] * 2, 4)
    assert cycle.bits == pytest.approx((2, 0, 0), abs=1e-9) and cycle.distinct == (4, 4, 4)
    share = 1 / np.arange(1, 101)
    law = ngrams("s", 0, [np.repeat(np.arange(100), (share * 1e5).round().astype(int))], 100)
    assert law.zipf == pytest.approx(1, abs=0.01)
    assert law.curve[0] == (1, pytest.approx(share[0] / share.sum(), rel=1e-3)) and law.curve[-1][0] == 100
    p = share / share.sum()
    assert law.bits[0] == pytest.approx(-(p * np.log2(p)).sum(), rel=1e-3)


def test_contexts_do_not_reach_into_another_sample() -> None:
    pairs = [np.array([0, 1])] * 3 + [np.array([2, 3])] * 3  # the next code is certain within, not across
    assert ngrams("s", 0, pairs, 4).bits[1] == 0
    assert len(ngrams("s", 0, pairs, 2**40).bits) == 1  # their pairs have no numbers
    single = ngrams("s", 0, [np.array([7])], 9)
    assert single.bits == (0,) and single.distinct == (1,) and np.isnan(single.zipf)
    assert len(ngrams("s", 0, pairs, 4).bits) == 2  # nobody has three codes


def test_statistics_count_valid_positions_of_each_codebook() -> None:
    spec = TokenSpec("audio", "second", (StreamSpec((4, 8), ("time",), (None,), 1.0),), ("codebooks",), None, 8, 1)
    codes = torch.tensor([[[0, 1, 2], [7, 7, 7]], [[3, 3, 0], [1, 0, 0]]])
    tokens = Tokens(spec, (codes,), torch.tensor([[3], [1]]), (torch.tensor([3, 1]),))
    found = TokenStatistics(spec)
    found.update(tokens)
    first, second = found.result()
    assert (first.codes, second.codes) == (4, 4) and first.bits[0] == log2(4)
    assert second.distinct[0] == 2 and (second.stream, second.codebook) == ("codes", 1)
    cut = TokenStatistics(spec)
    cut.update(tokens.prefix(codebooks=1))
    assert len(cut.result()) == 1


def test_speed_tells_seconds_and_memory(tiny_codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_module, "LEAST", 0.0)
    found = speed_module.speed(Runner(tiny_codec, "a", "b"), torch.rand(1, 3, 32, 32))
    assert found["encode_seconds"] > 0 and found["decode_seconds"] > 0 and found["pictures"] == 1
    assert 0 <= found.get("memory_mib", 0) < 2000


def test_memory_is_the_most_at_any_time() -> None:
    taken = speed_module._peak(torch.device("cpu"), lambda: torch.ones(2**25).sum())
    assert taken is None or 100 * 2**20 < taken < 200 * 2**20


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.013, 9.7), (20, 31), (1, 1), (1e-5, 3e5), (0.5, 0.5001)])
def test_axes_have_a_few_round_ticks_within(low: float, high: float, log: bool) -> None:
    scale = svg.Scale([low, high], 50, 400, log)
    ticks = scale.ticks()
    assert len(ticks) <= 13 and all(49 <= scale.place(tick) <= 401 for tick in ticks)
    assert scale.place(high) >= scale.place(low) and (log or len(ticks) >= 2)


def test_charts_place_points_and_escape_labels() -> None:
    lines = [svg.Line("a<b", [(1, 10), (100, 20)]), svg.Line("jpeg", [(10, 15)], aside=True)]
    drawn = svg.chart(lines, "bits", "PSNR")
    Page(drawn + svg.legend(lines))
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in circles]
    assert x0 < x2 < x1 and y1 < y2 < y0 and x2 == pytest.approx((x0 + x1) / 2, abs=0.2)
    assert "a&lt;b: 20 at 100" in drawn and drawn.count("stroke-dasharray") == 1
