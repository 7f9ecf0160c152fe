"""Video data modules: generated films, clips by time stamps, one length a batch, exact resuming, damage, pictures."""

import inspect
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT

from codeczoo.core.config import build
from codeczoo.core.errors import InputError
from codeczoo.data.films import generated_film

pytest.importorskip("lightning", reason="data modules want codeczoo[train]")
pytest.importorskip("webdataset", reason="data modules want codeczoo[train]")

from batches import first

from codeczoo.data.generated_video import GeneratedVideo

# ---- generated films -------------------------------------------------------------------------------------------------


def test_generated_films_are_fixed_varied_and_move() -> None:
    reel = torch.stack([generated_film(0, i, 32, 9) for i in range(40)])
    assert reel.shape == (40, 3, 9, 32, 32) and reel.dtype == torch.float32
    assert 0 <= reel.min() < reel.max() <= 1
    assert torch.equal(reel[7], generated_film(0, 7, 32, 9))
    assert not torch.equal(reel[7], generated_film(1, 7, 32, 9))
    moved = (reel[:, :, 1:] - reel[:, :, :-1]).abs().mean((1, 2, 3, 4))
    assert (moved > 1e-3).all(), "every film moves"
    apart = (reel[1:] - reel[:-1]).abs().mean()
    assert moved.max() < apart and moved.mean() < apart / 4, "and its frames hang together"
    with pytest.raises(InputError, match="1 frame"):
        generated_film(0, 0, 32, 0)


def test_generated_films_are_alike_at_every_length_rate_and_size() -> None:
    for i in range(12):
        film = generated_film(0, i, 32, 9, rate=12)
        torch.testing.assert_close(generated_film(0, i, 32, 3, rate=12), film[:, :3], rtol=0, atol=1e-5)
        torch.testing.assert_close(generated_film(0, i, 32, 5, rate=6), film[:, ::2], rtol=0, atol=1e-3)
        large = torch.nn.functional.avg_pool3d(generated_film(0, i, 128, 9), (1, 4, 4))
        assert (large - film).abs().mean() < 0.03


def test_generated_module_keeps_training_and_validation_apart() -> None:
    module = GeneratedVideo(image_size=16, frames=5, batch_size=4, n_train=6, n_val=5, workers=0)
    module.setup()
    train = first(module, 6)
    assert train[0]["x"].shape == (4, 3, 5, 16, 16)
    keys = {key for batch in train for key in batch["key"]}
    val = [key for batch in module.val_dataloader() for key in batch["key"]]
    assert len(keys) == 6 and len(set(val)) == len(val) == 5 and not keys & set(val)


# ---- configuration ---------------------------------------------------------------------------------------------------


def test_configurations_build_and_name_every_argument() -> None:
    given: tuple[tuple[str, type, dict[str, Any]], ...] = (("generated_video", GeneratedVideo, {}),)
    for name, cls, required in given:
        tree = yaml.safe_load((ROOT / f"conf/data/{name}.yaml").read_text())
        assert {key for key, value in tree.items() if value == "???"} == set(required)
        assert isinstance(build(tree | required), cls)
        parameters = inspect.signature(cls).parameters
        assert list(tree) == ["_target_", *parameters]
        for key, parameter in parameters.items():
            assert key in required or parameter.default == tree[key], f"{name}: {key}"
