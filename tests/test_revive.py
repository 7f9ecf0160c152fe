"""tools/revive.py: dead channels of an FSQ begin anew."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, one_d_piece_tree
from PIL import Image

import codeczoo
from codeczoo import zoo
from codeczoo.core.errors import InputError

sys.path.insert(0, str(ROOT / "tools"))
import revive


def test_dead_channels_begin_anew_and_what_is_decoded_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tree = one_d_piece_tree() | {"quantizer": {"_target_": "codeczoo.quantizers.fsq.FSQ", "levels": [8, 5, 8, 8]}}
    for half in ("encoder", "decoder"):
        tree[half] |= {"dim": 4, "init_std": 0.2}
    codec = codeczoo.build(tree).eval()
    with torch.no_grad():
        codec.encoder.project.bias[1] += 40  # both at one end
        codec.encoder.project.bias[3] -= 40
    x = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for i, one in enumerate(x):
        Image.fromarray((one * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    zoo.save(tmp_path / "dead.safetensors", codec)
    revive.main([str(tmp_path / "dead.safetensors"), str(tmp_path), "-o", str(tmp_path / "new.safetensors")])
    new = zoo.load(tmp_path / "new.safetensors")
    with torch.inference_mode():
        before, after = codec.encode(x), new.encode(x)
        torch.testing.assert_close(new.decode(after), codec.decode(before), atol=1e-4, rtol=0)
        z = new.encoder(x)
        assert z[:, [1, 3]].mean().abs() < 0.2 and 0.8 < z[:, 1].std() < 1.2 and 0.8 < z[:, 3].std() < 1.2
    assert after.codes.unique().numel() > 4 * before.codes.unique().numel()
    with pytest.raises(InputError, match="all channels spread"):
        revive.main([str(tmp_path / "new.safetensors"), str(tmp_path), "-o", str(tmp_path / "x.safetensors")])
    zoo.save(tmp_path / "vq.safetensors", codeczoo.build(one_d_piece_tree()))
    with pytest.raises(InputError, match="with an FSQ is wanted"):
        revive.main([str(tmp_path / "vq.safetensors"), str(tmp_path), "-o", str(tmp_path / "x.safetensors")])
    assert not (tmp_path / "x.safetensors").exists()
