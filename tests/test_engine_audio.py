"""Training an audio codec: what is measured, shown, heard and kept as the best."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from audio_cases import encodec
from torch import Tensor

pytest.importorskip("lightning")
pytest.importorskip("hydra")
pytest.importorskip("soundfile")

import codeczoo
from codeczoo.core.base import Codec
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Reconstruction, StreamSpec, Tokens, TokenSpec
from codeczoo.data.sounds import generated_sound
from codeczoo.engine.audio_validation import AudioValidation
from codeczoo.engine.checkpoints import Checkpoints
from codeczoo.engine.compose import compose
from codeczoo.engine.recorder import draw, read_curve
from codeczoo.engine.run import train
from codeczoo.io.audio import info, read
from codeczoo.io.image import read as read_picture
from codeczoo.metrics.audio import mel_distance, si_sdr

RATE = 8000


class Rounding(Codec):
    """Codebook k says the k-th three bits of each sample: more codebooks, less noise."""

    def __init__(self, codebooks: int = 4) -> None:
        super().__init__()
        stream = StreamSpec((8,) * codebooks, ("time",), (None,), RATE)
        self.spec = TokenSpec("audio", "second", (stream,), ("codebooks",), sample_rate=RATE, channels=1)

    def encode(self, x: Tensor, *, lengths: Tensor | None = None, **no: Any) -> Tokens:  # type: ignore[override]
        level = ((x.clamp(-1, 1) + 1) / 2 * (8**4 - 1)).round().long()
        codes = torch.cat([level // 8 ** (3 - k) % 8 for k in range(4)], 1)
        size = torch.full((len(x), 1), x.shape[2])
        return Tokens(self.spec, (codes,), size, None if lengths is None else (lengths,), RATE)

    def decode(self, tokens: Tokens) -> Tensor:
        weights = torch.tensor([8 ** (3 - k) for k in range(tokens.codes.shape[1])])
        return (tokens.codes * weights[:, None]).sum(1, keepdim=True) / (8**4 - 1) * 2 - 1

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        raise NotImplementedError


def test_validation_measures_clips_one_by_one_at_each_prefix() -> None:
    codec, sounds = Rounding(), [generated_sound(0, i, RATE, n)[None] for i, n in enumerate((8000, 6000, 5000))]
    validation = AudioValidation(codec.spec, shares=(0.25, 0.5, 1.0), clips=2)
    padded = torch.cat([torch.nn.functional.pad(x, (0, 8000 - x.shape[2])) for x in sounds])
    validation.measure(codec, {"x": padded[:2], "lengths": torch.tensor([8000, 6000]), "key": ["a", "b"]})
    validation.measure(codec, {"x": sounds[2], "key": ["c"]})
    clips = validation.clips()
    picture = validation.picture()
    found = validation.results()
    assert {"mel_1", "mel_2", "mel", "si_sdr_1", "si_sdr", "codebook_use", "perplexity"} <= set(found)
    assert found["mel"] < found["mel_2"] < found["mel_1"] and found["si_sdr"] > found["si_sdr_2"] > found["si_sdr_1"]
    for suffix, k in (("_1", 1), ("", 4)):
        pairs = [(x, codec.decode(codec.encode(x).prefix(codebooks=k))) for x in sounds]
        mel = sum(float(mel_distance(*pair, RATE)) for pair in pairs) / 3
        assert found[f"mel{suffix}"] == pytest.approx(mel, rel=1e-4)
        assert found[f"si_sdr{suffix}"] == pytest.approx(sum(float(si_sdr(*p)) for p in pairs) / 3, abs=1e-2)
    assert [(c.name, c.original, c.x.shape[1]) for c in clips] == [
        ("0", True, 8000), ("0", False, 8000), ("1", True, 6000), ("1", False, 6000)
    ]  # fmt: skip
    assert torch.equal(clips[2].x, sounds[1][0])
    assert picture is not None and picture.shape[1] == 4 * 96 and 150 < picture.shape[2] < 200
    assert validation.results()["mel"] == 0 and validation.picture() is None


def test_clips_without_a_value_do_not_count() -> None:
    validation = AudioValidation(Rounding().spec, shares=(1.0,))
    x = torch.cat([generated_sound(0, 0, RATE, 8000)[None], torch.zeros(1, 1, 8000)])
    validation.measure(Rounding(), {"x": x})
    pair = x[:1], Rounding().decode(Rounding().encode(x[:1]))
    assert validation.results()["si_sdr"] == pytest.approx(float(si_sdr(*pair)), abs=1e-2)


def test_a_codec_of_pictures_is_told(tiny_codec: Any) -> None:
    with pytest.raises(ConfigError, match="this codec takes image: validation=pictures"):
        AudioValidation(tiny_codec.spec)


def recipe(folder: Path) -> str:
    """A recipe file with the smallest audio codec."""
    codec = encodec(causal=True, lstm=0)
    tree = {
        "defaults": [
            "/train", {"/data": "generated_audio"}, {"override /trainer": "cpu"},
            {"override /validation": "audio"}, {"override /logger": "none"}, "_self_",
        ],
        "name": "audio_test",
        "codec": codec | {"sample_rate": RATE},
        "objective": {
            "_target_": "codeczoo.engine.objective.Objective",
            "terms": {"l2": {"_target_": "codeczoo.losses.pixel.L2"}}, "weights": {"l2": 1.0, "commitment": 0.1},
        },
        "data": {"sample_rate": RATE, "segment": 0.6, "batch_size": 4, "n_train": 8, "n_val": 6, "workers": 0},
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup": 0, "steps": 6},
        "trainer": {"max_steps": 6, "val_check_interval": 2, "log_every_n_steps": 1, "precision": "32-true"},
    }  # fmt: skip
    path = folder / "audio_test.yaml"
    path.write_text("# @package _global_\n" + yaml.safe_dump(tree, sort_keys=False))
    return str(path)


@pytest.mark.filterwarnings("ignore")
def test_a_run_keeps_the_least_mel_spectrograms_and_sounds(tmp_path: Path) -> None:
    config = compose(recipe(tmp_path))
    assert config["run"] == {"monitor": "val/mel", "mode": "min", "checkpoint_every": 1000}
    outcome = train(config, tmp_path)
    curve = read_curve(outcome.folder / "curve.csv")
    mel = {step: value for step, name, value in curve if name == "val/mel"}
    assert len(mel) == 3 and {"val/mel_2", "val/si_sdr"} <= {name for _, name, _ in curve}
    best = codeczoo.load(outcome.folder / "best.safetensors")
    last = torch.load(outcome.folder / "last.ckpt", weights_only=True)
    kept = next(v for k, v in last["callbacks"].items() if "Checkpoints" in k)
    assert kept["best"] == pytest.approx(min(mel.values()), rel=1e-5) and best.spec.sample_rate == RATE
    files = sorted(path.name for path in (outcome.folder / "audio").iterdir())
    assert [name for name in files if name.startswith("original")] == [f"original_{i}.wav" for i in range(4)]
    assert len(files) == 4 + 3 * 4
    assert info(outcome.folder / "audio" / "original_0.wav")[:3] == (RATE, 1, 4800)
    assert read(outcome.folder / "audio" / "original_0.wav")[0].abs().max() > 0.05
    pictures = sorted((outcome.folder / "pictures").iterdir())
    assert len(pictures) == 3 and read_picture(pictures[0]).shape[0] == 3
    assert (outcome.folder / "curve.png").stat().st_size > 10_000


def test_the_best_may_be_the_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        sanity_checking = False
        callback_metrics: dict[str, float]

    saved: list[float] = []
    monkeypatch.setattr(Checkpoints, "_save_weights", lambda self, trainer, task, name: saved.append(self.best))
    monkeypatch.setattr("codeczoo.engine.checkpoints.CodecTask", object)
    for mode, wanted in (("min", [3.0, 2.0, 1.0]), ("max", [3.0, 4.0])):
        checkpoints = Checkpoints(tmp_path, "", 1, "val/mel", mode)
        for value in (3.0, 2.0, 4.0, 1.0):
            trainer = Trainer()
            trainer.callback_metrics = {"val/mel": value}
            checkpoints.on_validation_end(trainer, object())  # type: ignore[arg-type]
        assert saved == wanted
        saved.clear()
    with pytest.raises(ConfigError, match=r"run\.mode must be max or min, got 'least'"):
        Checkpoints(tmp_path, "", 1, "val/mel", "least")


def test_curves_of_audio_have_panels_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text: titles.append(text))
    names = ("train/loss", "train/mel", "val/mel", "val/mel_2", "val/stoi", "train/lr", "val/perplexity")
    (tmp_path / "curve.csv").write_text("".join(f"{step},{name},1.0\n" for name in names for step in (1, 2)))
    draw(tmp_path / "curve.csv", tmp_path / "curve.png")
    assert titles == ["loss", "mel", "stoi", "lr"]
