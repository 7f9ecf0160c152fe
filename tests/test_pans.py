"""tools/pans.py: clips of photographs."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from codeczoo.core.errors import InputError
from codeczoo.io import image, video

sys.path.insert(0, str(ROOT / "tools"))
import pans


def test_a_window_that_stays_shows_the_photograph_at_rest() -> None:
    photo = torch.rand(3, 40, 32)
    square = photo[:, 4:36]  # the middle
    whole = pans.seen(photo, torch.tensor([[0.0, 0.0, 1.0, 0.0]] * 3), 32)
    assert whole.shape == (3, 3, 32, 32) and torch.equal(whole[0], whole[2])
    quarter = pans.seen(photo, torch.tensor([[-0.5, 0.5, 0.5, 0.0]]), 32)[0]  # left half, lower half
    coarse = torch.nn.functional.avg_pool2d(quarter, 2)
    assert torch.corrcoef(torch.stack([coarse.flatten(), square[:, 16:, :16].flatten()]))[0, 1] > 0.9


def test_paths_stay_in_the_photograph_and_move() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        windows = pans.path(9, random)
        assert windows.shape == (9, 4)
        assert bool(((windows[:, :2].abs() + windows[:, 2:3]) <= 1 + 1e-6).all()) and bool((windows[:, 2] >= 0.4).all())
        assert not torch.equal(windows[0], windows[-1])


def test_things_fly_past() -> None:
    random = torch.Generator().manual_seed(0)
    white, black = torch.ones(3, 32, 32), torch.zeros(3, 32, 32)
    clips = [pans.clip(white, black, 5, 32, random) for _ in range(20)]
    crossed = [x for x in clips if x.min() < 0.1]
    assert 4 <= len(crossed) <= 16 and all(x.shape == (3, 5, 32, 32) for x in clips)
    assert all(not torch.allclose(x[:, 0], x[:, -1]) for x in crossed)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        image.write(tmp_path / f"{i}.png", torch.rand(3, 32, 48))
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        pans.main([str(tmp_path / "*.png"), "-o", str(out), "--count", "4", "--frames", "5", "--size", "32"])
    assert "4 clips of 5 frames of 32 px, of 3 photographs" in capsys.readouterr().out
    for name in ("00000.mp4", "00003.mp4"):
        x = [video.read(out / name) for out in outs]
        assert x[0].shape == (3, 5, 32, 32) and torch.equal(x[0], x[1])
    with pytest.raises(InputError):
        pans.main([str(tmp_path / "nothing"), "-o", str(tmp_path / "c")])
