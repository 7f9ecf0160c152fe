"""Audio data modules: exact order and resuming, every rate and channel count, silence, damage, levels, shards."""

import inspect
import io
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, SHARED

from codeczoo.core.config import build
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.data.audio_transforms import Loudness, PeakLevel, PhaseShift, Polarity, RandomGain, RMSLevel
from codeczoo.data.sampling import generator
from codeczoo.data.sounds import generated_sound
from codeczoo.io.audio import read, write
from codeczoo.io.channels import to_channels
from codeczoo.metrics.loudness import _highpass, _shelf, loudness

pytest.importorskip("soundfile")
pytest.importorskip("lightning", reason="data modules want codeczoo[train]")
pytest.importorskip("webdataset", reason="data modules want codeczoo[train]")

from batches import first, same

from codeczoo.data.audio_folder import AudioFolder
from codeczoo.data.audio_webdataset import AudioWebDataset
from codeczoo.data.clips import TrainingClips
from codeczoo.data.generated_audio import GeneratedAudio

RATE = 8000


def ramp(seconds: float, rate: int, channels: int) -> torch.Tensor:
    """A slow tone under noise, so that every segment is its own, float (C, T)."""
    n = round(seconds * rate)
    t = torch.arange(n) / rate
    noise = torch.rand(channels, n, generator=torch.Generator().manual_seed(n)) - 0.5
    return 0.4 * torch.sin(2 * torch.pi * 50 * t) + 0.1 * noise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight clips of several rates, channels, lengths and formats; one is silent, one corrupt."""
    for i, (seconds, rate, channels, suffix) in enumerate((
        (2.0, 8000, 1, "wav"), (0.3, 16000, 2, "flac"), (1.0, 11025, 1, "ogg"), (3.0, 8000, 6, "wav"),
        (1.5, 44100, 2, "mp3"), (1.0, 8000, 1, "opus"),
    )):  # fmt: skip
        write(tmp_path / f"{i}.{suffix}", ramp(seconds, rate, channels), rate)
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep/silent.wav", torch.zeros(1, 8000), 8000)
    (tmp_path / "corrupt.wav").write_bytes((tmp_path / "0.wav").read_bytes()[:999])
    return tmp_path


def module_of(root: Path, **changes: Any) -> AudioFolder:
    given = {"root": str(root), "sample_rate": RATE, "segment": 0.5, "batch_size": 5, "workers": 0, "seed": 3}
    module = AudioFolder(**(given | changes))
    module.setup()
    return module


# ---- order, resuming, damage -----------------------------------------------------------------------------------------


def test_batches_do_not_depend_on_workers_and_resume_exactly(folder: Path) -> None:
    whole = first(module_of(folder), 6)
    assert all(b["x"].shape == (5, 1, 4000) and b["x"].dtype == torch.float32 and "lengths" not in b for b in whole)
    assert same(first(module_of(folder, workers=2), 6), whole)
    assert not same(first(module_of(folder, seed=4), 6), whole)
    again = module_of(folder, workers=1)
    again.load_state_dict({"draws": 3 * 5, "seed": 3, "samples": len(again.train_set)})
    assert same(first(again, 3), whole[3:])
    cuts = [x for b in whole for key, x in zip(b["key"], b["x"], strict=True) if key == "3.wav"]
    assert len(cuts) > 2 and not any(torch.equal(cuts[0], other) for other in cuts[1:])


def test_long_files_are_drawn_more_often(folder: Path) -> None:
    module = module_of(folder)
    assert len(module.train_set) == 4 + 1 + 2 + 6 + 3 + 2 + 2 + 1
    one_pass = [module.train_set.ends.searchsorted(i, side="right") for i in range(len(module.train_set))]
    assert np.bincount(one_pass).tolist() == [4, 1, 2, 6, 3, 2, 1, 2]  # in the order of names, "corrupt" before "deep"
    assert len(module_of(folder, by_duration=False).train_set) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_silence_is_drawn_again_and_damage_skipped(
    folder: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    module = module_of(folder, workers=workers)
    with caplog.at_level(logging.WARNING):
        batches = first(module, 8)
        module.train_set.report()
    keys = {key for batch in batches for key in batch["key"]}
    assert keys == {"0.wav", "1.flac", "2.ogg", "3.wav", "4.mp3", "5.opus"}
    assert module.skipped == 1 and module.silent >= 8 and module.silent % 8 == 0
    assert "skipped 1 of 8 clips" in caplog.text and "corrupt.wav" in caplog.text
    kept = module_of(folder, silence=None, by_duration=False)
    assert "deep/silent.wav" in {key for batch in first(kept, 3) for key in batch["key"]} and kept.silent == 0
    (folder / "only").mkdir()
    write(folder / "only/a.wav", torch.zeros(1, 8000), 8000)
    with pytest.raises(InputError, match=r"1 files in a row .* silent, below -60"):
        first(module_of(folder / "only"), 1)


def test_a_segment_is_that_part_of_the_file(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 4 * RATE)[None]  # every sample says where it is
    write(tmp_path / "a.wav", x, RATE)
    clips = TrainingClips(RATE, 1, 1000, None, False, None, 0)
    starts = []
    for i in range(300):
        cut = clips(tmp_path / "a.wav", generator(i))[0]
        start = round(float((cut[0] + 1) / 2 * (4 * RATE - 1)))
        assert torch.allclose(cut, x[0, start : start + 1000], atol=1e-4)
        starts.append(start)
    assert min(starts) < 0.03 * 4 * RATE and max(starts) > 0.97 * (4 * RATE - 1000)


def test_short_files_are_filled_up_and_loud_ones_turned_down(tmp_path: Path) -> None:
    write(tmp_path / "short.wav", torch.full((1, 300), 0.5), RATE)
    x = TrainingClips(RATE, 2, 1000, None, False, -60, 0)(tmp_path / "short.wav", generator(0))
    assert x.shape == (2, 1000) and torch.equal(x[0], x[1])
    assert torch.allclose(x[:, :300], torch.tensor(0.5)) and not x[:, 300:].any()
    x = TrainingClips(RATE, 1, 200, RandomGain(12, 12), False, -60, 0)(tmp_path / "short.wav", generator(0))
    assert x.abs().max() == 1


def test_channels(tmp_path: Path) -> None:
    x = torch.stack([torch.full((500,), 0.2), torch.full((500,), 0.6)])
    write(tmp_path / "a.wav", x, RATE)
    mean = TrainingClips(RATE, 1, 100, None, False, None, 0)(tmp_path / "a.wav", generator(0))
    assert torch.allclose(mean, torch.tensor(0.4), atol=1e-4)
    one = TrainingClips(RATE, 1, 100, None, True, None, 0)
    levels = {round(float(one(tmp_path / "a.wav", generator(i))[0, 0]), 2) for i in range(20)}
    assert levels == {0.2, 0.6}
    assert torch.equal(to_channels(torch.arange(12.0).view(6, 2), 2), torch.tensor([[0.0, 1], [2, 3]]))
    with pytest.raises(InputError, match="2 channels cannot become 6"):
        to_channels(x, 6)


# ---- validation ------------------------------------------------------------------------------------------------------


def test_validation_pads_clips_of_like_length(folder: Path) -> None:
    module = module_of(folder, val_root=str(folder), batch_size=3)
    batches = list(module.val_dataloader())
    keys = [key for b in batches for key in b["key"]]
    assert len(keys) == len(set(keys)) == 7  # all but the corrupt one; silence is validated on
    seconds = []
    for batch in batches:
        lengths = batch.get("lengths", torch.full((len(batch["x"]),), batch["x"].shape[2]))
        assert lengths.dtype == torch.int64 and int(lengths.max()) == batch["x"].shape[2]
        for x, n, key in zip(batch["x"], lengths, batch["key"], strict=True):
            whole = read(folder / key, RATE)[0]
            assert int(n) == whole.shape[1] and not x[:, n:].any()
            assert torch.allclose(x[:, :n], to_channels(whole, 1), atol=1e-6)
        seconds += (lengths / RATE).tolist()
    assert seconds == sorted(seconds, reverse=True)
    assert any("lengths" in b for b in batches)
    module = module_of(folder, val_root=str(folder), val_seconds=0.3)
    assert all(b["x"].shape[2] == 2400 and "lengths" not in b for b in module.val_dataloader())


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_manifests_name_files_and_save_a_look_at_them(
    folder: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"path": "3.wav", "duration": 3.0, "kind": "x"}\n\n{"path": "deep/silent.wav", "duration": 1}\n'
    if suffix == "csv":
        text = "kind,path,duration\nx,3.wav,3.0\ny,deep/silent.wav,1\n"
    (folder / f"list.{suffix}").write_text(text)
    monkeypatch.setattr("codeczoo.data.audio_folder._seconds", lambda path: 1 / 0)
    module = module_of(folder / f"list.{suffix}", val_root=str(folder / f"list.{suffix}"))
    assert len(module.train_set) == 8
    assert {key for b in first(module, 2) for key in b["key"]} == {"3.wav"}
    assert [b["key"] for b in module.val_dataloader()] == [["3.wav", "deep/silent.wav"]]
    (folder / "bad.jsonl").write_text('{"path": "a.wav"}\n{"file": "b.wav"}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl: entry 2 has no path"):
        module_of(folder / "bad.jsonl")
    with pytest.raises(InputError, match="neither a folder nor a manifest"):
        module_of(folder / "0.wav")


def test_held_out_files_are_not_trained_on(folder: Path) -> None:
    module = module_of(folder, val_fraction=0.25)
    train, val = set(module.train_set.keys), set(module.val_set.keys)
    assert len(val) == 2 and not train & val and len(train | val) == 8
    with pytest.raises(ConfigError, match="val_root or a val_fraction"):
        AudioFolder(str(folder), val_root="x", val_fraction=0.5)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        AudioFolder(str(folder), segment=0.0)


# ---- levels ----------------------------------------------------------------------------------------------------------


def test_loudness_is_the_standards() -> None:
    # The filters that BS.1770 prints for 48 kHz, and its calibration: a full-scale 997 Hz sine is -3.01 LUFS.
    top, below = _shelf(48000)
    assert np.allclose(np.array(top) / below[0], [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-7)
    assert np.allclose(np.array(below) / below[0], [1, -1.69065929318241, 0.73248077421585], atol=1e-7)
    assert np.allclose(_highpass(48000)[1], [1, -1.99004745483398, 0.99007225036621], atol=1e-7)
    for rate in (16000, 24000, 48000):
        sine = torch.sin(2 * torch.pi * 997 * torch.arange(3 * rate, dtype=torch.float64) / rate).float()[None, None]
        assert abs(float(loudness(sine, rate)) + 3.01) < 0.05
        assert abs(float(loudness(sine.expand(1, 2, -1) / 10, rate)) + 20) < 0.05
        # Silence is gated out: half of the clip silent changes nothing but the blocks on its edge.
        half = torch.cat([sine, torch.zeros_like(sine)], 2)
        assert abs(float(loudness(half, rate) - loudness(sine, rate))) < 0.3
    assert float(loudness(torch.zeros(1, 1, 9000), 24000)) == -70
    torchaudio = pytest.importorskip("torchaudio")
    noise = torch.randn(2, 1, 72000, generator=torch.Generator().manual_seed(0)) / 10
    theirs = torch.stack([torchaudio.functional.loudness(x, 24000) for x in noise])  # rounded filter parameters
    assert torch.allclose(loudness(noise, 24000), theirs, atol=0.15)


def test_levels() -> None:
    x, random = 0.03 * torch.randn(2, 48000, generator=torch.Generator().manual_seed(0)), generator(0)
    assert float(PeakLevel(0.5)(x, random).abs().max()) == pytest.approx(0.5)
    assert float(RMSLevel(-30.0)(x, random).square().mean().log10() * 10) == pytest.approx(-30, abs=1e-3)
    assert float(loudness(Loudness(24000, -16.0)(x, random)[None], 24000)) == pytest.approx(-16, abs=1e-3)
    for level in (PeakLevel(), RMSLevel(), Loudness(24000)):
        assert not level(torch.zeros(1, 48000), random).any()
    gains = [20 * np.log10(float((RandomGain(-10, 6)(x, random) / x).mean())) for _ in range(200)]
    assert -10 <= min(gains) < -9 and 5 < max(gains) <= 6
    assert sum(torch.equal(Polarity()(x, random), -x) for _ in range(200)) in range(70, 130)
    turned = PhaseShift()(x, random)
    # Phases change, magnitudes do not (but for the two bins that have no phase).
    assert torch.allclose(torch.fft.rfft(turned).abs()[:, 1:-1], torch.fft.rfft(x).abs()[:, 1:-1], rtol=1e-3, atol=1e-2)
    assert (turned - x).abs().max() > 0.01
    assert torch.allclose(PhaseShift(0.0)(x, random), x, atol=1e-6)


# ---- shards and generated sounds -------------------------------------------------------------------------------------


def test_audio_shards(folder: Path) -> None:
    for s in range(2):
        with tarfile.open(folder / f"set-{s}.tar", "w") as tar:
            for i, path in enumerate(sorted(folder.glob("*.*[!r]"))):
                data = path.read_bytes()
                entry = tarfile.TarInfo(f"{s}{i:02}{path.suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    urls = str(folder / "set-{0..1}.tar")
    given = {"sample_rate": RATE, "segment": 0.25, "batch_size": 3, "val_urls": urls, "shuffle": 3}
    modules = [AudioWebDataset(urls, workers=w, **given) for w in (0, 2)]  # type: ignore[arg-type]
    for module in modules:
        module.setup()
        batches = first(module, 5)
        assert all(b["x"].shape == (3, 1, 2000) and "lengths" not in b for b in batches)
        assert module.skipped > 0
        assert len({key for b in batches for key in b["key"]}) >= 12
        validated = list(module.val_dataloader())
        assert sum(len(b["key"]) for b in validated) == 12 and any("lengths" in b for b in validated)
    assert same(first(modules[0], 3), first(modules[0], 3))


def test_generated_sounds_are_fixed_varied_and_audible() -> None:
    tape = torch.stack([generated_sound(0, i, 16000, 8000) for i in range(40)])
    assert tape.dtype == torch.float32 and tape.abs().max() <= 1 and tape.isfinite().all()
    assert torch.equal(tape[7], generated_sound(0, 7, 16000, 8000))
    assert not torch.equal(tape[7], generated_sound(1, 7, 16000, 8000))
    assert (tape.square().mean((1, 2)) > 1e-5).all()
    flatness = torch.fft.rfft(tape[:, 0]).abs().clamp_min(1e-9)
    flatness = flatness.log().mean(1).exp() / flatness.mean(1)
    assert flatness.min() < 0.1 and flatness.max() > 0.25, "tones and noises"
    stereo = generated_sound(0, 3, 24000, 5000, 2)
    assert stereo.shape == (2, 5000) and not torch.equal(stereo[0], stereo[1])
    for samples in (1, 50, 1000):
        assert all(generated_sound(0, i, 48000, samples).shape == (1, samples) for i in range(12))
    with pytest.raises(InputError, match="at least 2000 Hz"):
        generated_sound(0, 0, 100, 10)


def test_generated_module_keeps_training_and_validation_apart() -> None:
    module = GeneratedAudio(sample_rate=RATE, segment=0.1, batch_size=4, n_train=6, n_val=5, workers=0)
    module.setup()
    train = first(module, 6)
    assert train[0]["x"].shape == (4, 1, 800)
    keys = {key for batch in train for key in batch["key"]}
    val = [key for batch in module.val_dataloader() for key in batch["key"]]
    assert len(keys) == 6 and len(set(val)) == len(val) == 5 and not keys & set(val)


# ---- configuration and real data -------------------------------------------------------------------------------------


def test_configurations_build_and_name_every_argument(folder: Path) -> None:
    for name, cls, required in (
        ("audio_folder", AudioFolder, {"root": str(folder)}),
        ("audio_webdataset", AudioWebDataset, {"urls": "a.tar"}),
        ("generated_audio", GeneratedAudio, {}),
    ):
        tree = yaml.safe_load((ROOT / f"conf/data/{name}.yaml").read_text())
        assert {key for key, value in tree.items() if value == "???"} == set(required)
        assert isinstance(build(tree | required), cls)
        parameters = inspect.signature(cls).parameters
        assert list(tree) == ["_target_", *parameters]
        for key, parameter in parameters.items():
            assert key in required or parameter.default == tree[key], f"{name}: {key}"
    for path in (ROOT / "conf/audio_transform").iterdir():
        assert build(yaml.safe_load(path.read_text()))(0.1 * torch.ones(1, 24000), generator(0)).shape == (1, 24000)


def test_real_audio() -> None:
    root = SHARED / "data" / "audio"
    if not root.is_dir():
        pytest.skip(f"no audio at {root}")
    module = module_of(root / "train.jsonl", sample_rate=24000, segment=1.0, val_root=str(root / "val"), workers=0)
    batches = first(module, 4)
    assert all(0.01 < b["x"].abs().max() <= 1 for b in batches)
    assert len({key.split("/")[1] for b in batches for key in b["key"]}) >= 2
    assert module.skipped == 0
