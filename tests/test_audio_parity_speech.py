"""WavTokenizer, SpeechTokenizer, DM-Codec out of the authors' checkpoints: equal codes, waveforms and features.

Fixtures come from CODECZOO_PARITY (default ../shared/parity); every folder of one of the three found there is run.
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
from torch import Tensor

import codeczoo
from codeczoo import zoo
from codeczoo.core.base import Codec
from codeczoo.core.errors import WeightsError
from codeczoo.io.weights import load_original, map_keys
from codeczoo.nn.stream import Chain
from codeczoo.quantizers.residual import Residual

PARITY = Path(os.environ.get("CODECZOO_PARITY", SHARED / "parity"))
SYSTEMS = ("wavtokenizer", "speechtokenizer", "dm_codec")
FOLDERS = [f for f in sorted(PARITY.glob("*")) if (f / "config.json").is_file() and f.name.startswith(SYSTEMS)]
WAV = [f for f in FOLDERS if f.name.startswith("wavtokenizer")]
RVQ = [f for f in FOLDERS if f not in WAV]
KEY_LISTS = [path for folder in FOLDERS for path in sorted(folder.glob("published_keys_*"))]
absent = pytest.mark.skipif(not FOLDERS, reason=f"no parity fixtures at {PARITY} (set CODECZOO_PARITY)")
PARAMETERS = {  # millions, facts/audio.md 13.1 (those of WavTokenizer count the EnCodec decoder that nothing calls)
    "wavtokenizer_frame75": 80.6, "wavtokenizer_frame40": 80.9, "speechtokenizer": 103.7, "dm_codec": 103.7,
}  # fmt: skip


def folders(found: list[Path]) -> Any:
    return pytest.mark.parametrize("folder", found or [None], ids=lambda f: f.name if f else "none")


def system_of(folder: Path) -> str:
    return next(name for name in SYSTEMS if folder.name.startswith(name))


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def loaded(folder: Path, **changes: Any) -> tuple[Any, dict[str, Tensor]]:
    codec = codeczoo.from_original(system_of(folder), folder / "weights.safetensors", config_of(folder) | changes)
    return codec, load_file(folder / "io.safetensors")


def check(folder: Path, found: Tensor, expected: Tensor, what: str = "recon") -> None:
    """Within the README's tolerance of `what`."""
    stated = re.search(rf"Tolerance:.*?{what} atol ([0-9.e+-]+)", (folder / "README.md").read_text())
    assert stated, f"{folder}/README.md states no tolerance of {what}"
    torch.testing.assert_close(found, expected, atol=float(stated.group(1).rstrip(".")), rtol=0)


def check_codes(codes: Tensor, expected: Tensor, margin: Tensor) -> None:
    """Codes (B, K, T) equal (K, B, T), but where a near tie came before."""
    unsure = (margin.movedim(0, 1) <= 1e-4).cummax(1).values
    assert not ((codes != expected.movedim(0, 1)) & ~unsure).any() and unsure.float().mean() < 0.02


@absent
@folders(WAV)
@torch.no_grad()
def test_wavtokenizer(folder: Path) -> None:
    codec, io = loaded(folder)
    x = io["input"][:, None]
    check(folder, codec.encoder(x), io["z"], "z")
    tokens = codec.encode(x)
    check_codes(tokens.codes, io["tokens"], io["margin"])
    z = codec.quantizer.decode(io["tokens"].movedim(0, 1))
    check(folder, z, io["features_from_codes"], "z")
    check(folder, codec(x).tokens.codes.float(), tokens.codes.float(), "z")
    check(folder, Chain(codec.decoder.layers[:-1])(z).mT, io["backbone_out"], "z")
    check(folder, codec.render(z)[:, 0], io["recon"])
    check(folder, codec.decode(tokens), io["recon"][:, None, : x.shape[2]].clamp(-1, 1))
    other, _ = loaded(folder, bandwidth_id=2)
    check(folder, other.render(z)[:, 0], io["recon_bandwidth_id2"])
    assert torch.equal(other.encode(x).codes, tokens.codes)


@absent
@folders(RVQ)
@torch.no_grad()
def test_speechtokenizer(folder: Path) -> None:
    codec, io = loaded(folder)
    x = io["input"]
    check(folder, codec.encoder(x), io["z"], "z")
    tokens = codec.encode(x)
    check_codes(tokens.codes, io["tokens"], io["margin"])
    check_codes(codec.encode(x, n_codebooks=3).codes, io["tokens_nq3"], io["margin"][:3])
    codes = io["tokens"].movedim(0, 1)
    z = codec.quantizer.decode(codes)
    check(folder, z, io["quantized"], "z")
    check(folder, codec.render(z), io["recon"])
    check(folder, codec.decode(tokens), io["recon"][:, :, : x.shape[2]].clamp(-1, 1))
    semantic = codec.decode(tokens.prefix(codebooks=1))
    check(folder, semantic, io["recon_sem_only"][:, :, : x.shape[2]].clamp(-1, 1))
    found = codec(x)
    check(folder, found.x_hat, io["forward_recon"][:, :, : x.shape[2]])
    check(folder, found.features.mT, io["feature"], "z")


@absent
@folders(RVQ)
@torch.no_grad()
def test_layers_after_the_first(folder: Path) -> None:
    """The authors' `st=1`: layers from the second on, quantizing latents that nothing was taken from."""
    codec, io = loaded(folder)
    rest = Residual(codec.quantizer.inner[1:]).eval()
    assert torch.equal(rest.encode(io["z"]), io["tokens_st1"].movedim(0, 1))
    check(folder, codec.render(rest.decode(io["tokens"][1:].movedim(0, 1))), io["recon_from1"])


@absent
@folders(FOLDERS)
def test_newer_names_of_weight_norm_load_too(folder: Path) -> None:
    module, config = zoo._system(system_of(folder)), config_of(folder)
    state = load_file(folder / "weights.safetensors")
    new = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    renamed = {re.sub(r"weight_[gv]$", lambda m: new[m.group()], key): value for key, value in state.items()}
    assert renamed.keys() != state.keys()
    old, later = zoo.original_skeleton(module, config), zoo.original_skeleton(module, config)
    for codec, tensors in ((old, state), (later, renamed)):
        load_original(codec, zoo.original_state(module, tensors, config), module.RENAMES, module.UNUSED)
    assert zoo.weights_hash(old) == zoo.weights_hash(later)


@absent
@folders(FOLDERS)
def test_what_lacks_or_is_left_over_is_refused(folder: Path) -> None:
    module, config = zoo._system(system_of(folder)), config_of(folder)
    state = zoo.original_state(module, load_file(folder / "weights.safetensors"), config)
    codec = zoo.original_skeleton(module, config)
    with pytest.raises(WeightsError, match="which this codec has not"):
        load_original(codec, state | {"encoder.odd": torch.zeros(1)}, module.RENAMES, module.UNUSED)
    for key in ("transform.bias", "head.out.bias"):
        if state.pop(key, None) is not None:
            with pytest.raises(WeightsError, match="weights lack 1 tensors"):
                load_original(codec, state, module.RENAMES, module.UNUSED)


@absent
@pytest.mark.parametrize("path", KEY_LISTS or [None], ids=lambda p: p.name if p else "none")
def test_published_keys_map(path: Path) -> None:
    """The key list of the real checkpoint fills the full-size codec, nothing left over and nothing missing."""
    shapes = {key: shape for key, (shape, _) in json.loads(path.read_text()).items()}
    module = zoo._system(system_of(path.parent))
    with torch.device("meta"):
        config = published_config(path.name, shapes)
        codec = zoo.original_skeleton(module, config)
        state = zoo.original_state(module, {key: torch.empty(shape) for key, shape in shapes.items()}, config)
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    places = map_keys({key: value.shape for key, value in state.items()}, wanted, module.RENAMES, module.UNUSED)
    assert set(places.values()) == set(wanted)
    left = {key for key in state if key not in places}
    assert all(key.startswith(("feature_extractor.encodec.decoder.", "head.istft.window")) for key in left)
    unused = sum(state[key].numel() for key in left if "decoder" in key)
    known = next(value for name, value in PARAMETERS.items() if name in path.name)
    assert (parameters(codec) + unused) / 1e6 == pytest.approx(known, abs=0.06)


def parameters(codec: Codec) -> int:
    return sum(p.numel() for p in codec.parameters())


def published_config(name: str, keys: dict[str, list[int]]) -> dict[str, Any]:
    """The authors' configuration of a published checkpoint, from its name and the facts in its shapes."""
    if "wavtokenizer" in name:
        ratios = {"frame40": [6, 5, 5, 4], "frame75": [8, 5, 4, 2]}[name.split("_")[3]]
        conditions, width = keys["backbone.norm.scale.weight"]
        vocab, dim = keys["feature_extractor.encodec.quantizer.vq.layers.0._codebook.embed"]
        n_fft = keys["head.istft.window"][0]
        return {
            "feature_extractor": {"dowmsamples": ratios, "vq_bins": vocab},
            "backbone": {
                "input_channels": dim, "dim": width, "num_layers": 12, "adanorm_num_embeddings": conditions,
                "intermediate_dim": keys["backbone.convnext.0.pwconv1.weight"][0],
            },
            "head": {"n_fft": n_fft, "hop_length": n_fft // 4, "padding": "same"},
        }  # fmt: skip
    return {
        "n_filters": 64, "strides": [8, 5, 4, 2], "dimension": 1024, "bidirectional": True, "dilation_base": 2,
        "semantic_dimension": keys["transform.weight"][0], "residual_kernel_size": 3, "n_residual_layers": 1,
        "lstm_layers": 2, "activation": "ELU", "codebook_size": 1024, "n_q": 8, "sample_rate": 16000,
    }  # fmt: skip
