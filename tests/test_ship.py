"""tools/ship.py: what of a run is shipped."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image

import codeczoo
from codeczoo.engine.compose import compose
from codeczoo.io.weights import read_header

sys.path.insert(0, str(ROOT / "tools"))
import ship


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A weights file with averaged codebooks, as a run writes it."""
    torch.manual_seed(0)
    codec = codeczoo.build(compose("image/haar_grid_tiny")["codec"]).train()
    z = codec.latents(torch.rand(8, 3, 64, 64)).detach()
    while codec.quantizer.starting:
        codec.quantizer.initialize(z)
    started = {"task": {"warm_start": {"all": {"path": "/home/me/first.safetensors"}}}}
    recipe = yaml.safe_dump({"data": {"root": "/home/me/photos", "val_root": None}} | started)
    codeczoo.save(tmp_path / "best.safetensors", codec, recipe, {"step": 7, "ema": True})
    return tmp_path / "best.safetensors"


@torch.inference_mode()
def test_what_is_shipped_gives_the_same_codes_without_what_only_training_needs(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "shipped.safetensors"
    ship.store(trained, target, torch.float32, {"licence": "x"})
    before, after, header = codeczoo.load(trained), codeczoo.load(target), read_header(target)
    x = torch.rand(2, 3, 40, 56)
    assert torch.equal(before.encode(x).codes, after.encode(x).codes)
    assert torch.equal(before.decode(before.encode(x)), after.decode(after.encode(x)))
    assert not {key for key in after.state_dict() if key.endswith(("sums", "counts", "usage"))}
    assert header["extra"] == {"step": 7, "ema": True, "licence": "x"} and "/home" not in header["recipe"]


def test_a_file_that_is_too_large_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "LARGEST", 1000)
    with pytest.raises(SystemExit, match="1000 are allowed"):
        ship.store(trained, tmp_path / "shipped.safetensors", torch.float16, {})
    assert not (tmp_path / "shipped.safetensors").exists()


def test_lines_of_baselines_are_left_out() -> None:
    rows: list[dict[str, Any]] = [{"system": name} for name in ("own", "jpeg", "own", "jpeg")]
    picture = Image.new("RGB", (4, 50))
    for line in range(5):
        picture.paste((50 * line, 0, 0), (0, 10 * line, 4, 10 * line + 10))
    kept = ship.own_lines(picture, rows)
    assert kept.size == (4, 30) and [kept.getpixel((0, 10 * i + 5))[0] for i in range(3)] == [0, 50, 150]
