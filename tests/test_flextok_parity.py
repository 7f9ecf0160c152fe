"""The authors' FlexTok: equal codes, equal pictures from recorded noise, every published key in its place."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_parity import PARITY, tolerance

import codeczoo
from codeczoo import zoo
from codeczoo.core.errors import ConfigError, WeightsError
from codeczoo.core.types import Sampling
from codeczoo.image import flextok
from codeczoo.io.weights import map_keys

FOLDER = PARITY / "flextok"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no parity fixtures at {PARITY} (set CODECZOO_PARITY)")
KEY_LISTS = sorted(FOLDER.glob("published_keys_*"))
SAMPLERS = {
    "steps3": Sampling(3, 1.0),
    "steps2_cfg3": Sampling(2, 3.0, projected=False),
    "steps3_apg7.5": Sampling(3, 7.5),
    "steps2_keep3_9": Sampling(2, 1.0),
}


@pytest.fixture(scope="module")
def codec() -> Any:
    return codeczoo.from_original("flextok", FOLDER / "weights.safetensors", FOLDER / "config.json")


@pytest.fixture(scope="module")
def io() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "io.safetensors")


def config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "config.json").read_text())
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@torch.inference_mode()
def test_equal_codes(codec: Any, io: dict[str, torch.Tensor]) -> None:
    x, atol = (io["input"] + 1) / 2, tolerance(FOLDER, "z, velocity, vae_latents")
    latents = codec.vae.latents(x)
    assert apart(latents, io["vae_latents"]) <= atol
    assert apart(codec.encoder(latents).mT, io["z"]) <= atol
    tokens = codec.encode(x)
    assert torch.equal(tokens.codes[:, 0], io["tokens"])
    assert apart(codec.quantizer.decode(tokens.codes).mT, io["quantized"]) == 0


@torch.inference_mode()
def test_equal_velocity(codec: Any, io: dict[str, torch.Tensor]) -> None:
    told = codec.decoder.told(io["quantized"].mT)
    velocity = codec.decoder(io["noise"], io["velocity_timesteps"], told).velocity
    assert apart(velocity, io["velocity"]) <= tolerance(FOLDER, "z, velocity, vae_latents")


@torch.inference_mode()
@pytest.mark.parametrize("name", SAMPLERS)
def test_equal_pictures_from_the_recorded_noise(name: str, codec: Any, io: dict[str, torch.Tensor]) -> None:
    codec.sampling = SAMPLERS[name]
    atol = tolerance(FOLDER, r"latents_\* and recon_\*") * (1 if codec.sampling.guidance == 1 else 2)
    kept = re.fullmatch(r".*_keep(\d+)_(\d+)", name)
    lengths = torch.tensor([int(k) for k in kept.groups()]) if kept else torch.tensor([16, 16])
    z = io["quantized"].mT[:, :, : int(lengths.max())]
    latents = codec.sample(z, lengths, io["noise"])
    assert apart(latents, io[f"latents_{name}"]) <= atol
    assert apart(2 * codec.vae.pixels(latents) - 1, io[f"recon_{name}"]) <= atol


def test_the_configuration_in_the_weights_file_will_do(io: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(load_file(FOLDER / "weights.safetensors"), path, {key: repr(value) for key, value in config().items()})
    codec = codeczoo.from_original("flextok", path, path)
    with torch.inference_mode():
        assert torch.equal(codec.encode((io["input"] + 1) / 2).codes[:, 0], io["tokens"])
    save_file({"a": torch.zeros(1)}, path, {"vae": "__import__('os').system('true')"})
    with pytest.raises(WeightsError, match="not of Python literals"):
        codeczoo.from_original("flextok", path, path)


@pytest.mark.parametrize("path", KEY_LISTS or [None], ids=lambda p: p.name if p else "none")
def test_published_keys_map(path: Path) -> None:
    """The key list of the real checkpoint fills the full-size codec, nothing left over and nothing missing."""
    listed = json.loads(gzip.decompress(path.read_bytes()))
    published = {key: torch.empty(shape, device="meta") for key, (shape, _) in listed.items()}
    full = published_config(published)
    with torch.device("meta"):
        codec = zoo.original_skeleton(flextok, full)
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    state = zoo.original_state(flextok, published, full)
    places = map_keys({key: value.shape for key, value in state.items()}, wanted, flextok.RENAMES, flextok.UNUSED)
    assert len(places) == len(state) and set(places.values()) == set(wanted)
    assert sum(value.numel() for value in published.values()) == sum(shape.numel() for shape in wanted.values())


def published_config(keys: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The authors' configuration of a published checkpoint: the fixture's with the facts in its shapes."""
    full = config()
    del full["vae_overrides_of_VAE_BASE_CFG"]
    full["vae"]["latent_channels"] = 16
    full["encoder"]["module_dict"]["enc_register_module"]["n_max"] = 256
    for side, start in (("encoder", "enc"), ("decoder", "dec")):
        nodes = full[side]["module_dict"]
        patches = "enc_patch_emb" if start == "enc" else "dec_noise_patch_emb"
        table = "enc_posemb_module" if start == "enc" else "dec_patches_posemb_module"
        nodes[patches]["channels_in"], nodes[table]["max_sizes"] = 16, [16, 16]
        width = keys[f"{side}.module_dict.{patches}.patch_proj.weight"].shape[0]
        depth = len({key.split(".")[4] for key in keys if f".{start}_transformer.blocks." in key})
        nodes[f"{start}_transformer"] |= {"dim": width, "depth": depth, "head_dim": 64}
    return full


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        ("encoder.enc_seq_packer", {"mask_mode": "causal"}, "mask_mode must be 'causal_last', got 'causal'"),
        ("decoder.dec_to_patches", {"use_mup_readout": True}, "use_mup_readout must be False, got True"),
        ("decoder.dec_nested_dropout", {"size_sampling_mode": "odd"}, "one of uniform, pow2, uniform_pow2, got 'odd'"),
        ("encoder.enc_posemb_module", {"max_sizes": [8, 4]}, r"must be of a square, got \[8, 4\]"),
    ],
)
def test_a_configuration_it_does_not_know_is_named(node: str, change: dict[str, Any], message: str) -> None:
    other = config()
    side, name = node.split(".")
    other[side]["module_dict"][name] |= change
    with pytest.raises(ConfigError, match=message):
        flextok.original_tree(other)


def test_a_configuration_that_lacks_something_is_named() -> None:
    other = config()
    del other["vae"]["scaling_factor"]
    with pytest.raises(ConfigError, match="lacks 'scaling_factor'"):
        zoo.original_skeleton(flextok, other)


def test_the_configuration_says_how_it_was_trained(codec: Any) -> None:
    from codeczoo.nn.flow import LogitNormalTimes, ModeTimes
    from codeczoo.quantizers.dropout import PowerDepth

    assert isinstance(codec.times, ModeTimes) and codec.times.scale == 0.25
    assert isinstance(codec.dropout, PowerDepth) and codec.untold == 0.2
    other = config()
    other["flow_matching_noise_module"]["ln"] = True
    assert isinstance(zoo.original_skeleton(flextok, other).times, LogitNormalTimes)
    assert codec.sampling == replace(codec.sampling)
