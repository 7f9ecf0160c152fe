"""How decoders that sample are told to: the description, its noise, and the options of the commands."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from codeczoo import zoo
from codeczoo.cli import common, info
from codeczoo.cli.main import main
from codeczoo.core.errors import InputError
from codeczoo.core.types import Sampling
from codeczoo.io import image


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"guidance": -1.0}, "guidance .* at least 0, got -1"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"seed": -1}, "seed must be 0.."),
        ({"seed": 1 << 63}, "seed must be 0.."),
        ({"solver": "rk4"}, "solver must be euler or heun, got 'rk4'"),
    ],
)
def test_values_out_of_range_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**wrong)


def test_noise_depends_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one = Sampling(seed=3).noise(4, 8, 8)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(17)
    assert torch.equal(Sampling(seed=3, steps=2).noise(4, 8, 8), one)
    assert not torch.equal(Sampling(seed=4).noise(4, 8, 8), one)
    assert one.dtype == torch.float32 and abs(float(one.mean())) < 0.2 and abs(float(one.std()) - 1) < 0.2


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    common.add_sampling(parser)
    return parser.parse_args(given)


def test_options_change_what_they_name_and_nothing_else() -> None:
    codec: Any = SimpleNamespace(sampling=Sampling(steps=9, guidance=2.0, seed=5, solver="heun", projected=True))
    common.set_sampling(arguments(), codec)
    assert codec.sampling == Sampling(9, 2.0, 5, "heun", True)
    common.set_sampling(arguments("--guidance", "0", "--seed", "0"), codec)
    assert codec.sampling == Sampling(9, 0.0, 0, "heun", True)
    common.set_sampling(arguments("--steps", "3", "--solver", "euler", "--no-projection"), codec)
    assert codec.sampling == Sampling(3, 0.0, 0, "euler", False)
    with pytest.raises(InputError, match="seed"):
        common.set_sampling(arguments("--seed", "-1"), codec)


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a codec that samples and tokens of two pictures."""
    from flextok_cases import build
    from PIL import Image

    root = tmp_path_factory.mktemp("sampling")
    zoo.save(root / "codec.safetensors", build())
    for i in range(2):
        Image.new("RGB", (24, 24), (60 * i, 200, 90)).save(root / f"{i}.png")
    pictures = [str(root / f"{i}.png") for i in range(2)]
    assert main(["encode", *pictures, "-o", str(root / "cz"), "--codec", str(root / "codec.safetensors")]) == 0
    return root


def decoded(root: Path, out: Path, *options: str) -> list[bytes]:
    assert main(["decode", str(root / "cz"), "-o", str(out), *options]) == 0
    return [path.read_bytes() for path in sorted(out.glob("*.png"))]


def test_decode_samples_as_the_options_say(painter: Path, tmp_path: Path) -> None:
    plain = decoded(painter, tmp_path / "a")
    assert plain == decoded(painter, tmp_path / "b", "--guidance", "2")
    assert len(decoded(painter, tmp_path / "c", "--batch", "1")) == len(plain) == 2
    for one, other in zip(*(sorted((tmp_path / name).glob("*.png")) for name in "ac"), strict=True):
        assert (image.read(one).int() - image.read(other).int()).abs().max() <= 1  # sums round as the batch is large
    options = (["--seed", "1"], ["--steps", "5"], ["--guidance", "1"], ["--solver", "heun"], ["--no-projection"])
    others = [decoded(painter, tmp_path / f"o{i}", *option) for i, option in enumerate(options)]
    assert all(other != plain for other in others)
    assert len({bytes(other[0]) for other in others}) == len(others)


def test_eval_samples_as_the_options_say(painter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec = str(painter / "codec.safetensors")
    pictures = [str(painter / f"{i}.png") for i in range(2)]
    rows = []
    for options in ([], ["--seed", "0"], ["--seed", "1"]):
        capsys.readouterr()
        assert main(["eval", *pictures, "--codec", codec, "--positions", "2,16", "--json", *options]) == 0
        rows.append([row["psnr"] for row in json.loads(capsys.readouterr().out)["rows"]])
    assert rows[0] == rows[1] != rows[2] and len(rows[0]) == 2


def test_options_out_of_range_are_one_line(painter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"--steps": "0", "--guidance": "-1", "--seed": "-1", "--solver": "rk4"}
    for option, value in wrong.items():
        assert main(["decode", str(painter / "cz"), "-o", str(tmp_path / "out"), option, value]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and option.strip("-") in error, error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--steps", "4"), ("--no-projection",)])
@pytest.mark.parametrize("command", ["decode", "eval"])
def test_a_codec_that_samples_nothing_refuses(
    command: str, option: tuple[str, ...], tiny_codec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "codec.safetensors"
    zoo.save(weights, tiny_codec)
    (tmp_path / "a.cz").write_bytes(b"")
    assert main([command, str(tmp_path / "a.cz"), "-o", str(tmp_path / "out"), "--codec", str(weights), *option]) == 2
    assert capsys.readouterr().err == f"codeczoo: error: {option[0]}: the decoder of this codec does not sample\n"
    assert not (tmp_path / "out").exists()


def test_the_weights_file_says_how_the_decoder_samples(tiny_codec: Any, tmp_path: Path) -> None:
    zoo.save(tmp_path / "a.safetensors", tiny_codec)
    assert "sampling" not in info.about(str(tmp_path / "a.safetensors"))
    tiny_codec.sampling = Sampling(steps=7)
    zoo.save(tmp_path / "b.safetensors", tiny_codec)
    assert info.about(str(tmp_path / "b.safetensors"))["sampling"]["steps"] == 7
