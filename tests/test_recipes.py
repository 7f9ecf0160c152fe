"""Every recipe composes, checks, and builds on the meta device as its card says; every tiny one trains and loads."""

from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("lightning")
pytest.importorskip("hydra")

import codeczoo
from codeczoo import zoo
from codeczoo.cli.main import main
from codeczoo.core.base import Autoencoder, Codec
from codeczoo.engine.compose import compose, missing, recipes
from codeczoo.engine.parts import WarmStart
from codeczoo.engine.run import train

ROOT = Path(__file__).parents[1] / "recipes"
TINY = [name for name in recipes() if "_tiny" in name]
PUBLISHED = {  # millions of parameters, facts/image.md section 1.4 and 3 (counted on the authors' modules)
    "titok_s128_stage2": 83.67, "one_d_piece_s256_stage2": 83.87, "one_d_piece_b256_stage2": 205.26,
    "one_d_piece_l256_stage2": 641.74,
    # facts/audio.md section 12.3; DAC's projections are plain here, Mimi's training has weight norm
    "encodec_24khz": 14.85, "encodec_48khz": 14.86, "dac_44khz": 76.64, "dac_24khz": 74.68, "dac_16khz": 74.16,
    "mimi": 79.32,
    "cosmos_di8x8": 79.00, "cosmos_di16x16": 83.72,  # counted in the parity fixtures' key lists
}
STEPS = [
    "trainer.max_steps=3", "trainer.val_check_interval=3", "data.workers=0", "data.batch_size=4", "data.n_val=4",
    "logger=none",
]


def test_there_are_recipes_for_every_published_codec_and_a_tiny_twin_of_each() -> None:
    names = {name.partition("/")[2] for name in recipes()}
    assert {f"titok_{s}_stage{n}" for s in ("s128", "b64", "l32") for n in (1, 2)} <= names
    assert {f"one_d_piece_{s}256_stage{n}" for s in "sbl" for n in (1, 2)} <= names
    assert {"titok_bl64_vq8k", "titok_bl128_vq8k", "titok_sl256_vq8k"} <= names
    assert {"tatitok_bl32_vq", "tatitok_bl64_vq", "tatitok_bl128_vq", "maskgit_vqgan"} <= names
    assert {f"{s}_tiny" for s in ("titok", "tatitok", "one_d_piece", "maskgit_vqgan")} <= names
    assert {f"encodec_{s}khz" for s in (16, 24, 32, 48)} | {f"dac_{s}khz" for s in (16, 24, 44)} <= names
    assert {"mimi", "wavtokenizer_40", "wavtokenizer_75", "speechtokenizer", "dm_codec"} <= names
    assert {f"{s}_tiny" for s in ("encodec", "dac", "mimi", "wavtokenizer", "speechtokenizer")} <= names
    assert {"cosmos_di8x8", "cosmos_di16x16", "cosmos_di_tiny", "cosmos_dv_tiny"} <= names


def in_a_clip(stride: tuple[int, int, int]) -> int:
    """Positions of a clip of 17 frames of 256 px, which the cards of video are about."""
    f, h, w = stride
    return (1 + -(-16 // f)) * -(-256 // h) * -(-256 // w)


@pytest.mark.parametrize("name", recipes())
def test_recipe_composes_and_builds_as_its_card_says(name: str) -> None:
    text = (ROOT / f"{name}.yaml").read_text()
    card = yaml.safe_load(text)["card"]
    config = compose(name)
    assert config["name"] == Path(name).name and config["card"] == card
    assert set(card) == {"system", "paper", "media", "tokens", "bits", "params", "status", "note"}
    assert card["status"] in ("runs", "trained", "reproduced")
    for word in ("Paper:", "Command:", "Hardware:"):
        assert f"# {word}" in text, f"the header lacks {word}"
    assert "Not a reproduction" in text or card["status"] == "reproduced"
    with torch.device("meta"):
        codec = codeczoo.build(config["codec"])
    assert isinstance(codec, Autoencoder)
    assert sum(p.numel() for p in codec.parameters()) == card["params"]
    streams = codec.spec.streams
    units = config["data"].get("image_size", 1) ** 2 if codec.spec.unit == "pixel" else 1  # of a picture, or a second
    positions = [in_a_clip(stream.stride) if stream.stride else stream.rate * units for stream in streams]
    codes = sum(n * len(stream.vocab_sizes) for n, stream in zip(positions, streams, strict=True))
    bits = sum(n * stream.bits_per_position for n, stream in zip(positions, streams, strict=True))
    assert (card["tokens"], card["bits"]) == (round(codes), round(bits))
    if card["media"] == "image":
        assert codec.spec.input_size in (None, (config["data"]["image_size"],) * 2)
    elif card["media"] == "audio":
        data = config["data"]
        assert (codec.spec.sample_rate, codec.spec.channels) == (data["sample_rate"], data["channels"])
    known = PUBLISHED.get(config["name"])
    assert known is None or card["params"] / 1e6 == pytest.approx(known, abs=0.01)


def test_full_size_recipes_have_the_published_numbers() -> None:
    stage1, stage2 = compose("image/titok_b64_stage1"), compose("image/titok_b64_stage2")
    large = compose("image/one_d_piece_l256_stage1")
    assert stage1["trainer"]["max_steps"] == stage1["schedule"]["steps"] == 1_000_000
    assert stage2["trainer"]["max_steps"] == stage2["schedule"]["steps"] == 500_000
    assert (stage1["schedule"]["warmup"], stage2["schedule"]["warmup"]) == (10_000, 5_000)
    assert stage1["optimizer"]["lr"] == stage2["optimizer"]["lr"] == 1e-4
    assert (stage1["optimizer"]["betas"], stage2["optimizer"]["betas"]) == ([0.9, 0.99], [0.9, 0.999])
    assert (stage1["task"]["ema"], stage1["task"]["clip"]) == (0.999, 1.0)
    blur = stage2["adversaries"]["blur"]
    assert (blur["start"], blur["weight"]["value"], blur["adversary"]["lecam"]["weight"]) == (20_000, 0.01, 0.001)
    assert stage2["objective"]["weights"] == {"l2": 1.0, "perceptual": 0.1, "codebook": 0.0, "commitment": 0.0}
    assert large["data"]["batch_size"] * large["task"]["accumulate"] * 8 == 1024
    assert compose("image/one_d_piece_b256_stage2")["data"]["batch_size"] * 8 == 512
    assert missing(stage1) == ["objective.terms.proxy.teacher.name_or_path", "data.root"]


@pytest.mark.parametrize("name", TINY)
def test_tiny_recipe_trains_and_its_weights_load(name: str, tmp_path: Path) -> None:
    steps = 5  # residual quantizers start one codebook a batch
    config = compose(name, [*STEPS, f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}"])
    outcome = train(config, tmp_path)
    assert outcome.step == steps and not outcome.interrupted
    codec = zoo.load_autoencoder(outcome.folder)
    shape = {"image": (3, *(codec.spec.input_size or (32, 32))), "audio": (1, 5000), "video": (3, 5, 32, 32)}
    x = torch.rand(2, *shape[codec.spec.media])
    x_hat = codec.decode(codec.encode(x)) if isinstance(codec, Codec) else codec(x).x_hat
    assert x_hat.shape == x.shape


def test_two_stages_follow_each_other(tmp_path: Path) -> None:
    def stage(name: str, *overrides: str) -> Path:
        return train(compose(f"image/{name}", [*STEPS, *overrides]), tmp_path).folder

    teacher = f"objective.terms.proxy.teacher.name_or_path={stage('maskgit_vqgan_tiny')}"
    first = stage("titok_tiny_stage1", "objective=titok_stage1", teacher)
    start = f"{{_target_: {WarmStart.__module__}.WarmStart, path: {first}}}"
    second = stage("titok_tiny_stage2", f"+task.warm_start.stage1={start}", "adversaries.blur.start=1")
    before, after = codeczoo.load(first).state_dict(), codeczoo.load(second).state_dict()
    same = {name.split(".")[0] for name in before if torch.equal(before[name], after[name])}
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert {"encoder", "quantizer"} <= same and moved == {"decoder", "head"}


def test_check_refuses_data_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["train", "image/one_d_piece_small", "--check"]
    assert main([*recipe, f"data.root={tmp_path}"]) == 0
    assert main([*recipe, f"data.root={tmp_path / 'nowhere'}"]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
