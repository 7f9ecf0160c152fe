"""Training a video codec: what is measured and shown; frames, adversaries, pictures among clips; exact resuming."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from video_recipe import joint_recipe

pytest.importorskip("lightning")
pytest.importorskip("hydra")

import codeczoo
from codeczoo.core.base import Codec
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Prefix, Reconstruction, StreamSpec, Tokens, TokenSpec
from codeczoo.data.films import generated_film
from codeczoo.engine.compose import compose
from codeczoo.engine.recorder import read_curve
from codeczoo.engine.run import Outcome, train
from codeczoo.engine.task import CodecTask
from codeczoo.engine.video_validation import VideoValidation
from codeczoo.metrics.image import psnr, ssim


class Rounding(Codec):
    """Stream k says the k-th two bits of each sample: more streams, less noise."""

    def __init__(self, prefixes: tuple[Prefix, ...] = ("streams",)) -> None:
        super().__init__()
        axes, shape = ("time", "row", "column"), (None, None, None)
        streams = tuple(StreamSpec((4,) * 3, axes, shape, 1.0, f"layer{k}", (1, 1, 1)) for k in range(3))
        self.spec = TokenSpec("video", "pixel", streams, prefixes)

    def encode(self, x: Tensor, *, lengths: Tensor | None = None, **no: Any) -> Tokens:  # type: ignore[override]
        level = (x.clamp(0, 1) * 63).round().long()
        tokens = self.tokens([level // 4 ** (2 - k) % 4 for k in range(3)], x)
        return Tokens(self.spec, tokens.streams, tokens.size, None if lengths is None else (lengths,) * 3)

    def decode(self, tokens: Tokens) -> Tensor:
        level = sum((4 ** (2 - k) * codes for k, codes in enumerate(tokens.streams)), torch.zeros(()))
        return torch.as_tensor(level) / 63

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        raise NotImplementedError


def test_validation_measures_frames_at_every_number_of_streams() -> None:
    codec, films = Rounding(), [generated_film(0, i, 16, n)[None] for i, n in enumerate((9, 5, 1))]
    validation = VideoValidation(codec.spec, clips=2, frames=3)
    padded = torch.cat([films[0], torch.nn.functional.pad(films[1], (0, 0, 0, 0, 0, 4), value=0.5)])
    validation.measure(codec, {"x": padded, "lengths": torch.tensor([9, 5]), "key": ["a", "b"]})
    validation.measure(codec, {"x": films[2], "key": ["c"]})
    picture = validation.picture()
    found = validation.results()
    assert set(found) == {"psnr_1", "psnr_2", "psnr", "ssim_1", "ssim_2", "ssim", "codebook_use", "perplexity"}
    assert found["psnr"] > found["psnr_2"] > found["psnr_1"] and found["ssim"] > found["ssim_1"]
    for suffix, n in (("_1", 1), ("_2", 2), ("", 3)):
        decoded = [codec.decode(codec.encode(x).prefix(streams=n)) for x in films]
        for name, measure in (("psnr", psnr), ("ssim", ssim)):
            pairs = [(x[0].transpose(0, 1), y[0].transpose(0, 1)) for x, y in zip(films, decoded, strict=True)]
            wanted = sum(float(measure(*pair).mean()) for pair in pairs) / 3
            assert found[name + suffix] == pytest.approx(wanted, rel=1e-4)
    # Two clips of three frames side by side; rows: the original, one, two and three streams.
    assert picture is not None and picture.shape == (3, 4 * 16, 2 * 3 * 16 + 4)
    for column, frame in enumerate((0, 2, 4)):  # of the second clip, which ends at its fifth frame
        left = 3 * 16 + 4 + column * 16
        assert torch.equal(picture[:, :16, left : left + 16], films[1][0, :, frame])
    assert validation.results()["psnr"] == 0 and validation.picture() is None


def test_a_single_stream_has_no_prefixes_and_pictures_are_clips_of_one_frame() -> None:
    validation = VideoValidation(Rounding(prefixes=()).spec)
    validation.measure(Rounding(()), {"x": torch.rand(2, 3, 1, 16, 16)})
    assert {"psnr", "ssim"} == set(validation.results()) - {"codebook_use", "perplexity"}
    picture = validation.picture()
    assert picture is not None and picture.shape == (3, 2 * 16, 2 * 16 + 4)


def test_other_media_are_told(tiny_codec: Any) -> None:
    with pytest.raises(ConfigError, match="this codec takes image: validation=pictures"):
        VideoValidation(tiny_codec.spec)
    with pytest.raises(ConfigError, match="at least 1, got 0 and 5"):
        VideoValidation(Rounding().spec, clips=0)


# ---- runs ------------------------------------------------------------------------------------------------------------


def weights(outcome: Outcome) -> dict[str, Tensor]:
    return codeczoo.load(outcome.folder / "last.safetensors").state_dict()


@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_run_of_clips_pictures_and_adversaries_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(joint_recipe(tmp_path))
    whole = train(config, tmp_path / "whole")
    step = CodecTask.step

    def step_and_interrupt(task: CodecTask, contests: Any) -> None:
        step(task, contests)
        if task.global_step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CodecTask, "step", step_and_interrupt)
    first = train(config, tmp_path / "parts")
    monkeypatch.setattr(CodecTask, "step", step)
    assert first.interrupted and first.step == 3
    second = train(config, tmp_path / "parts", resume="last")
    a, b = weights(whole), weights(second)
    assert second.step == 6 and all(torch.equal(a[name], b[name]) for name in a)
    curve = read_curve(whole.folder / "curve.csv")
    names = {name for _, name, _ in curve}
    assert {"val/psnr", "val/ssim", "train/frames", "train/frames.lecam", "train/clips.adversarial"} <= names
    assert all(value == value for _, _, value in curve)
    assert len(list((whole.folder / "pictures").iterdir())) == 2


@pytest.mark.filterwarnings("ignore")
def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    few = ["trainer.max_steps=2", "trainer.val_check_interval=2", "data.clips.n_val=1"]
    plain, less = (
        weights(train(compose(joint_recipe(tmp_path), [*few, f"task.checkpointing={on}"]), tmp_path / on))
        for on in ("false", "true")
    )
    for name in plain:
        torch.testing.assert_close(plain[name], less[name], rtol=0, atol=1e-6, msg=name)
