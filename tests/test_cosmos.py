"""Cosmos image and video tokenizers: the authors' checkpoints, in archives too, and what they refuse.

Fixtures come from CODECZOO_PARITY (default ../shared/parity).
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file
from torch import Tensor, nn

import codeczoo
from codeczoo import zoo
from codeczoo.core.errors import ConfigError, WeightsError
from codeczoo.io.weights import map_keys

PARITY = Path(os.environ.get("CODECZOO_PARITY", SHARED / "parity"))
SYSTEMS = [name for name in ("cosmos_di",) if (PARITY / name).is_dir()]
KEY_LISTS = [path for name in SYSTEMS for path in sorted((PARITY / name).glob("published_keys_*"))]
absent = pytest.mark.skipif(not SYSTEMS, reason=f"no parity fixtures at {PARITY} (set CODECZOO_PARITY)")
PUBLISHED = {
    "attn_resolutions": [32], "channels": 128, "channels_mult": [2, 4, 4], "num_res_blocks": 2, "resolution": 1024,
    "patch_size": 4, "patch_method": "haar", "z_factor": 1, "quantizer": "FSQ", "embedding_dim": 6,
    "levels": [8, 8, 8, 5, 5, 5],
}  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    return json.loads((PARITY / name / "config.json").read_text())


def load(name: str) -> Any:
    return codeczoo.from_original(name, PARITY / name / "weights.safetensors", config_of(name))


def tolerance(name: str, what: str) -> float:
    found = re.search(rf"Tolerance:.*?{what} atol ([0-9.e+-]+)", (PARITY / name / "README.md").read_text())
    assert found
    return float(found.group(1).rstrip("."))


@absent
@pytest.mark.parametrize("name", SYSTEMS)
def test_equal_codes_and_reconstructions(name: str) -> None:
    codec, io = load(name), load_file(PARITY / name / "io.safetensors")
    x = (io["input"] + 1) / 2
    with torch.no_grad():
        assert (codec.latents(x) - io["z"]).abs().max() <= tolerance(name, "z")
        tokens = codec.encode(x)
        assert torch.equal(tokens.codes[:, 0], io["tokens"])
        assert torch.equal(codec.quantizer.decode(tokens.codes), io["codes"])
        x_hat = codec.render(io["codes"])
        assert (2 * x_hat - 1 - io["recon"]).abs().max() <= tolerance(name, "recon")
        torch.testing.assert_close(codec.decode(tokens), x_hat.clamp(0, 1), atol=1e-5, rtol=0)


@absent
@pytest.mark.parametrize("path", KEY_LISTS or [None], ids=lambda p: p.name if p else "none")
def test_published_keys_map(path: Path) -> None:
    """The key list of the real checkpoint fills the full-size codec, nothing left over and nothing missing."""
    published = {key: shape for key, (shape, _) in json.loads(path.read_text()).items()}
    module = zoo._system(path.parent.name)
    with torch.device("meta"):
        codec = zoo.original_skeleton(module, published_config(path.stem))
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    places = map_keys(published, wanted, module.RENAMES, module.UNUSED)
    assert len(places) == len(published) and set(places.values()) == set(wanted)


def published_config(name: str) -> dict[str, Any]:
    """The arguments of a published tokenizer, by its name (published_keys_DV8x16x16: time, rows, columns)."""
    *time, space, _ = map(int, re.findall(r"\d+", name))
    if not time:
        return PUBLISHED | {"z_channels": 256, "spatial_compression": space}
    video = {"z_channels": 16, "temporal_compression": time[0], "legacy_mode": False}
    return PUBLISHED | video | {"spatial_compression": space}


def archives(name: str, folder: Path) -> None:
    """The fixture's weights as the pair that Cosmos is published as, with the tables that archives hold besides."""
    state = load_file(PARITY / name / "weights.safetensors")
    tables = {"wavelets": torch.ones(2), "_arange": torch.arange(2)}
    halves = {
        "encoder": ("encoder.", "quant_conv.", "quantizer."), "decoder": ("decoder.", "post_quant_conv.", "inv_quant.")
    }  # fmt: skip
    patcher = {"encoder": "encoder.patcher", "decoder": "decoder.unpatcher"}
    dimensions = "3d" if name == "cosmos_dv" else ""
    for half, parts in halves.items():
        own = {key: value for key, value in state.items() if key.startswith(parts)}
        own |= {f"{patcher[half]}{dimensions}.{key}": value for key, value in tables.items()}
        own[f"{parts[2]}implicit_codebook"] = torch.rand(8, 6)
        module = Holder(own)
        torch.jit.save(torch.jit.trace(module, torch.rand(1)), folder / f"{half}.jit")


class Holder(nn.Module):
    """Modules within modules that hold tensors of given names."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for key, value in state.items():
            part, (*parents, leaf) = self, key.split(".")
            for parent in parents:
                if not hasattr(part, parent):
                    part.add_module(parent, nn.Module())
                part = getattr(part, parent)
            part.register_buffer(leaf, value)

    def forward(self, x: Tensor) -> Tensor:
        return x


@absent
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SYSTEMS)
def test_pairs_of_archives(name: str, tmp_path: Path) -> None:
    archives(name, tmp_path)
    codec = codeczoo.from_original(name, tmp_path, config_of(name))
    wanted = load(name).state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in codec.state_dict().items())
    with pytest.raises(WeightsError, match="lack"):
        codeczoo.from_original(name, tmp_path / "encoder.jit", config_of(name))


@absent
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(("change", "message"), [
    ({"quantizer": "LFQ"}, "quantizer 'LFQ'"), ({"patch_method": "rearrange"}, "patch_method 'rearrange'"),
    ({"levels": [8, 8]}, r"levels \[8, 8\]"), ({"spatial_compression": 12}, "spatial_compression"),
    ({"spatial_compression": 64}, "n_resize"), ({"channels": None}, "lacks .channels"),
])  # fmt: skip
def test_other_models_are_refused(name: str, change: dict[str, Any], message: str) -> None:
    config = {key: value for key, value in (config_of(name) | change).items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        codeczoo.from_original(name, PARITY / name / "weights.safetensors", config)
