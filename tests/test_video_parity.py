"""VidTok, both versions: the authors' checkpoints give their codes and frames, and every published key has its place.

Fixtures come from CODECZOO_PARITY (default ../shared/parity).
"""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import SHARED
from safetensors.torch import load_file, save_file
from torch import Tensor

import codeczoo
from codeczoo import zoo
from codeczoo.core.errors import ConfigError, WeightsError
from codeczoo.io.weights import map_keys
from codeczoo.nn.conv3d import MixedConv3d
from codeczoo.nn.resample3d import Lead
from codeczoo.video import vidtok

PARITY = Path(os.environ.get("CODECZOO_PARITY", SHARED / "parity"))
FOLDERS = [f for f in (PARITY / "vidtok_fsq_causal", PARITY / "vidtok_fsq_causal_v1_1") if f.is_dir()]
KEY_LISTS = [path for folder in FOLDERS for path in sorted(folder.glob("published_keys_*"))]
absent = pytest.mark.skipif(not FOLDERS, reason=f"no parity fixtures at {PARITY} (set CODECZOO_PARITY)")


def load(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    codec = codeczoo.from_original("vidtok", folder / "weights.safetensors", folder / "config.json")
    return codec, load_file(folder / "io.safetensors")


def tolerance(folder: Path, what: str) -> float:
    """The README's absolute tolerance of `what`."""
    found = re.search(rf"Tolerance:.*?{what} atol ([0-9.e+-]+)", (folder / "README.md").read_text())
    assert found, f"{folder}/README.md states no tolerance of {what}"
    return float(found.group(1).rstrip("."))


def frames(x: Tensor) -> Tensor:
    """The fixture's [-1, 1] as our [0, 1]."""
    return (x + 1) / 2


@absent
@torch.no_grad()
@pytest.mark.parametrize("folder", FOLDERS or [None], ids=lambda f: f.name if f else "none")
def test_equal_codes_and_reconstructions(folder: Path) -> None:
    codec, io = load(folder)
    x, atol = frames(io["input"]), tolerance(folder, "recon")
    assert (codec.latents(x)[0] - io["z"]).abs().max() <= tolerance(folder, "z")
    tokens = codec.encode(x)
    differ = tokens.codes[:, 0] != io["tokens"]
    assert not (differ & (io["margin"] > 1e-4)).any()
    assert (codec.quantizer.decode(io["tokens"][:, None]) - io["z_quantized"]).abs().max() <= 1e-6
    x_hat = 2 * codec.render(codec.quantizer.decode(io["tokens"][:, None])) - 1
    for key in ("recon", "recon_from_indices"):  # 1.1 leaves the frames that it put in front
        assert (x_hat - io[key][:, :, -x.shape[2] :]).abs().max() <= atol, key
    image = codec.encode(x[:, :, :1])
    assert torch.equal(image.codes[:, 0], io["tokens_single_frame"])
    assert (codec.decode(image) - frames(io["recon_single_frame"][:, :, -1:]).clamp(0, 1)).abs().max() <= atol


@absent
@torch.no_grad()
@pytest.mark.parametrize("folder", FOLDERS or [None], ids=lambda f: f.name if f else "none")
def test_the_originals_other_rule_of_time(folder: Path) -> None:
    """Clips of f n frames are n latents there, with nothing in front of the first. The layers can do that too."""
    codec, io = load(folder)
    layers = [layer for layer in codec.encoder.layers if not isinstance(layer, Lead)]
    for part in codec.encoder.modules():
        if isinstance(part, MixedConv3d):
            part.left = 1
    z = io["input_divisible"]
    for layer in layers:
        z = layer(z)
    assert torch.equal(codec.quantizer.encode(z)[:, 0], io["tokens_divisible"])
    x_hat = 2 * codec.render(codec.quantizer.decode(io["tokens_divisible"][:, None])) - 1
    assert (x_hat - io["recon_divisible"][:, :, -x_hat.shape[2] :]).abs().max() <= tolerance(folder, "recon")


@absent
@pytest.mark.parametrize("path", KEY_LISTS or [None], ids=lambda p: p.name if p else "none")
def test_published_keys_map(path: Path) -> None:
    """The key list of the real checkpoint fills the full-size codec, nothing left over and nothing missing."""
    published = {key: shape for key, (shape, _) in json.loads(gzip.decompress(path.read_bytes())).items()}
    config = published_config(path.name)
    with torch.device("meta"):
        codec = zoo.original_skeleton(vidtok, config)
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    published["loss.discriminator.main.0.weight"] = [64, 3, 4, 4]  # real files hold the losses too
    places = map_keys(published, wanted, vidtok.RENAMES, vidtok.UNUSED)
    assert len(places) == len(published) - 1 and set(places.values()) == set(wanted)
    found = re.search(r"_(\d)(\d|\d\d)(?:8|16)_(\d+)", path.name)
    assert found and codec.stride == (int(found[1]), int(found[2]), int(found[2]))
    assert codec.spec.streams[0].vocab_sizes == (int(found[3]),)


def published_config(name: str) -> dict[str, Any]:
    """The authors' YAML of a published checkpoint, as facts in its name tell it, references and all."""
    later, levels = "v1_1" in name, [8] * {"4096": 4, "32768": 5, "262144": 6}[re.findall(r"\d{4,}", name)[-1]]
    module = "vidtok.modules.model_3dcausal" + "_v1_1" * later
    half = {
        "double_z": False, "z_channels": len(levels), "in_channels": 3, "out_ch": 3, "ch": 128, "num_res_blocks": 2,
        "interpolation_mode": "trilinear",  # which 1.0 does not read
        "ch_mult": [1, 2, 4, 4, 4] if "_41616_" in name else [1, 2, 4, 4], "norm_type": "layernorm",
    }  # fmt: skip
    if "_888_" in name:
        half |= {"tempo_ds": [0, 1, 2], "tempo_us": [1, 2, 3]}
    parts = {
        "encoder_config": {"target": f"{module}.EncoderCausal3DPadding", "params": half},
        "decoder_config": {"target": f"{module}.DecoderCausal3DPadding", "params": "${model.params.encoder_config...}"},
        "regularizer_config": {"target": "vidtok.modules.regularizers.FSQRegularizer", "params": {"levels": levels}},
    }
    return {"model": {"params": parts}}


@absent
def test_what_is_no_causal_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = FOLDERS[0]
    config = json.loads((folder / "config.json").read_text())
    other = config | {"regularizer_config": {"target": "vidtok.modules.regularizers.DiagonalGaussianRegularizer"}}
    (tmp_path / "kl.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(ConfigError, match="regularizer"):
        codeczoo.from_original("vidtok", folder / "weights.safetensors", tmp_path / "kl.yaml")
    state = load_file(folder / "weights.safetensors")
    save_file({key: value for key, value in state.items() if "attn" not in key}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match="lack"):
        codeczoo.from_original("vidtok", tmp_path / "part.safetensors", folder / "config.json")
