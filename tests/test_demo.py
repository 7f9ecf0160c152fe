"""One file at every prefix beside a baseline, and the page that shows it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audio_cases import build as build_audio
from clip_codec import runner_of, smooth_clip
from PIL import Image
from test_cli import one_line, run
from test_hitvideo import CODECS

import codeczoo
from codeczoo import zoo
from codeczoo.core.errors import InputError
from codeczoo.export import trial
from codeczoo.export.batches import Prefix
from codeczoo.export.trial import Trial
from codeczoo.io import audio, image, tokens, video
from codeczoo.metrics.image import psnr


def photo(path: Path, size: tuple[int, int] = (50, 40)) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def test_a_picture_comes_back_in_its_size_and_is_measured_there(tiny_codec: Any, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    found = Trial(runner_of(tiny_codec), path, tmp_path / "out")
    most = tiny_codec.spec.streams[0].shape[0]
    assert found.rates == [Prefix(positions=n) for n in range(1, most + 1)]
    few, all_of_them = found.at(found.rates[0], "jpeg"), found.at(found.rates[-1], "webp")
    assert tokens.read(few.cz).tokens.codes.shape[2] == 1 and few.facts["file_bytes"] < all_of_them.facts["file_bytes"]
    assert few.facts["file_bytes"] == few.cz.stat().st_size and len(few.codes.split()) == 1
    x, x_hat = (image.read(p).float()[None] / 255 for p in (path, few.decoded))
    assert x_hat.shape == x.shape and few.facts["psnr"] == pytest.approx(float(psnr(x, x_hat)), abs=1e-4)
    beside = image.read(few.baseline).float()[None] / 255
    assert few.baseline_facts["psnr"] == pytest.approx(float(psnr(x, beside)), abs=0.2)  # rounded to bytes in the file


def test_sounds_and_clips(tmp_path: Path) -> None:
    sound = tmp_path / "s.wav"
    audio.write(sound, 0.5 * torch.randn(2, 4000).clamp(-1, 1), 8000)
    done = Trial(runner_of(build_audio("encodec causal zeros")), sound, tmp_path / "out").at(Prefix(codebooks=2), "mp3")
    assert audio.info(done.decoded)[:3] == (8000, 2, 4000) and len(done.codes.splitlines()) == 2
    assert {"mel", "si_sdr", "payload_kbps"} <= {*done.facts} and "mel" in done.baseline_facts
    film = tmp_path / "f.mkv"
    video.write(film, smooth_clip(9, 32, 48), 12)
    done = Trial(runner_of(CODECS["ResidualMerge"].eval()), film, tmp_path / "out").at(Prefix(streams=1), "h264")
    about = video.info(done.decoded)
    assert (about.frames, about.height, about.width, about.rate) == (9, 32, 48, 12)
    assert {"psnr", "ssim", "file_bpp"} <= {*done.facts}


def test_files_of_one_name_and_sound_of_clips_do_not_mix(tiny_codec: Any, tmp_path: Path) -> None:
    sizes = ((50, 40), (32, 32))
    first, second = (Trial(runner_of(tiny_codec), photo(tmp_path / "a.png", size), tmp_path) for size in sizes)
    kept = first.at(first.rates[0], "jpeg").decoded
    assert second.at(second.rates[0], "jpeg").decoded != kept and image.read(kept).shape == (3, 40, 50)
    film, out = tmp_path / "f.mp4", tmp_path / "out"
    video.write(film, smooth_clip(9, 32, 48), 12)
    loud = Trial(runner_of(CODECS["ResidualMerge"].eval()), film, out)
    mute = loud.at(Prefix(streams=1), "h264").facts["file_bytes"]
    loud.sample = replace(loud.sample, attachments={"sound.m4a": bytes(5000)})
    assert loud.at(Prefix(streams=1), "h264").facts["file_bytes"] < mute + 100, "what is compared is pictures"


def test_clips_that_do_not_say_how_long_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video.write(tmp_path / "f.mp4", smooth_clip(40, 32, 48), 12)
    x, rate = trial.film(tmp_path / "f.mp4", 20)
    assert x.shape == (3, 40, 32, 48) and rate == 12
    with pytest.raises(InputError, match=r"f\.mp4: more than can be looked at here, at most 2 s"):
        trial.film(tmp_path / "f.mp4", 2)
    monkeypatch.setattr(trial, "PIXELS", 30_000)
    with pytest.raises(InputError, match="0 megapixels"):
        trial.film(tmp_path / "f.mp4", 20)


def test_what_is_too_long_or_broken_is_told(
    tiny_codec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trial.SECONDS, "audio", 0.1)
    audio.write(tmp_path / "s.wav", torch.zeros(1, 4000), 8000)
    with pytest.raises(InputError, match=r"s\.wav: 0 s; at most 0 s"):
        Trial(runner_of(build_audio("encodec causal zeros")), tmp_path / "s.wav", tmp_path)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"b\.png"):
        Trial(runner_of(tiny_codec), tmp_path / "b.png", tmp_path)


def test_the_command_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_codec: Any, tmp_path: Path
) -> None:
    import codeczoo.cli.demo as command

    monkeypatch.setattr(command, "shipped", dict)
    assert run("demo") == 2
    assert "name a codec with --codec" in one_line(capsys)
    codeczoo.save(tmp_path / "c.safetensors", tiny_codec)
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "codeczoo.cli.demo_page", raising=False)
    assert run("demo", "--codec", tmp_path / "c.safetensors") == 2
    assert 'pip install "codeczoo[demo]"' in one_line(capsys)


def test_the_page_shows_a_file(tiny_codec: Any, tmp_path: Path) -> None:
    gradio = pytest.importorskip("gradio", reason="gradio is not installed")
    from codeczoo.cli.demo_page import Tab, page

    codeczoo.save(tmp_path / "tiny.safetensors", tiny_codec)
    name = str(tmp_path / "tiny.safetensors")
    runner = runner_of(zoo.load(name))
    runner = type(runner)(runner.codec, name, runner.weights_hash)
    assert "tiny" in str(page([runner]).get_config_file())
    tab = Tab("image", {"tiny": runner})
    decoded, beside, table, codes, file = tab.show(str(photo(tmp_path / "a.png")), "tiny", 3, "jpeg")
    assert all(Path(p).is_file() for p in (decoded, beside, file)) and len(codes.split()) == 3
    assert "| PSNR, dB |" in table and "| | tiny | jpeg |" in table
    assert tab.show(None, "tiny", 3, "jpeg") == (None, None, "", "", None)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(gradio.Error, match=r"b\.png"):
        tab.show(str(tmp_path / "b.png"), "tiny", 3, "jpeg")
