"""EnCodec, DAC and Mimi: the authors' checkpoints, in their layout and that of transformers, and transformers itself.

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

import codeczoo
from codeczoo import zoo
from codeczoo.audio.dac import unpadded
from codeczoo.core.errors import ConfigError, WeightsError
from codeczoo.io.weights import map_keys

PARITY = Path(os.environ.get("CODECZOO_PARITY", SHARED / "parity"))
FOLDERS = [
    PARITY / name
    for name in ("encodec_24khz_style", "encodec_48khz_style", "hf_encodec_24khz", "hf_encodec_48khz", "dac", "hf_dac",
                 "mimi", "hf_mimi")
]  # fmt: skip
PRESENT = [folder for folder in FOLDERS if folder.is_dir()]
absent = pytest.mark.skipif(not PRESENT, reason=f"no parity fixtures at {PARITY} (set CODECZOO_PARITY)")


def system(folder: Path) -> str:
    return folder.name.removeprefix("hf_").split("_")[0]


def load(folder: Path) -> Any:
    return codeczoo.from_original(system(folder), folder / "weights.safetensors", folder / "config.json")


def tolerance(folder: Path, what: str) -> float:
    """The README's absolute tolerance of `what`."""
    found = re.search(rf"Tolerance:.*?{what}(?: \([^)]*\))? atol ([0-9.e+-]+)", (folder / "README.md").read_text())
    assert found, f"{folder}/README.md states no tolerance of {what}"
    return float(found.group(1).rstrip("."))


def codes_of(io: dict[str, torch.Tensor]) -> torch.Tensor:
    """All codebooks, windows one after the other, (B, K, frames)."""
    frames = [io[key] for key in sorted(io) if key.startswith("tokens_frame")]
    if frames:
        return torch.cat(frames, 2)
    whole = max((v for k, v in io.items() if re.fullmatch(r"tokens(_bw.*)?", k)), key=lambda v: v.numel())
    return torch.cat(list(whole), 2) if whole.ndim == 4 else whole


@absent
@pytest.mark.parametrize("folder", PRESENT or [None], ids=lambda f: f.name if f else "none")
def test_equal_codes_and_reconstructions(folder: Path) -> None:
    codec, io = load(folder), load_file(folder / "io.safetensors")
    x, expected = io["input"], codes_of(io)
    with torch.no_grad():
        tokens = codec.encode(x)
        frames = tokens.codes.shape[2]  # transformers fills up the last window
        assert torch.equal(tokens.codes, expected[:, :, :frames])
        for key in (k for k in io if k.startswith("recon")):
            wanted = io[key].view(len(x), codec.spec.channels, -1)
            part = tokens.prefix(codebooks=k) if (k := codebooks_of(key, folder, codec)) else tokens
            if key in ("recon_nopadding", "recon_streaming"):  # other ways to run the originals; see READMEs
                continue
            got = codec.decode(part)
            n = min(got.shape[2], wanted.shape[2])
            assert n >= 0.9 * wanted.shape[2]
            error = (got[:, :, :n] - wanted[:, :, :n].clamp(-1, 1)).abs().max()
            assert error <= tolerance(folder, "recon"), (key, error)


def codebooks_of(key: str, folder: Path, codec: Any) -> int | None:
    """How many codebooks a reconstruction of the fixture is of; None: all."""
    if found := re.search(r"_nq(\d+)", key):
        return int(found[1])
    if key == "recon_semantic_only":
        return 1
    if found := re.search(r"_bw([\d.]+)", key):
        config = json.loads((folder / "config.json").read_text())
        known = config.get("parity", {}).get("n_q_for_bandwidth", {})
        shape = load_file(folder / "io.safetensors").get(f"tokens_bw{found[1]}")
        return known.get(found[1]) if shape is None else shape.shape[2]
    return None


@absent
@pytest.mark.parametrize("folder", PRESENT or [None], ids=lambda f: f.name if f else "none")
def test_latents(folder: Path) -> None:
    codec, io = load(folder), load_file(folder / "io.safetensors")
    key = next((k for k in ("encoder_out", "z") if k in io), None)
    if folder.name == "mimi":
        key = "z"
    if key is None:
        pytest.skip("this codec's latents are of windows")
    with torch.no_grad():
        z, _ = codec.latents(io["input"])
    assert (z - io[key]).abs().max() <= tolerance(folder, "z")


@absent
def test_streams_of_published_layouts() -> None:
    """Mimi's stream equals the whole past the attention's context, where the original's differs (see its README)."""
    folder = PARITY / "mimi"
    codec, io = load(folder), load_file(folder / "io.safetensors")
    x = io["input"][:, :, : io["tokens_streaming"].shape[2] * codec.hop]
    stream = codec.stream()
    codes = torch.cat([stream.encode(piece) for piece in x.split(codec.hop, 2)], 2)
    assert torch.equal(codes, codec.encode(x).codes)
    assert not torch.equal(codes, io["tokens_streaming"])


@absent
def test_windows_without_padding() -> None:
    """What DAC does with recordings that are longer than its --win_duration."""
    folder = PARITY / "dac"
    codec, io = load(folder), load_file(folder / "io.safetensors")
    with torch.no_grad():
        codes = codec.quantizer.encode(unpadded(codec.encoder, io["input_padded"]))
        x_hat = codec.decode_window(io["tokens_nopadding"])
    assert torch.equal(codes, io["tokens_nopadding"])
    torch.testing.assert_close(x_hat, io["recon_nopadding"], atol=tolerance(folder, "recon"), rtol=0)


PUBLISHED = {
    "encodec_24khz": {
        "seanet": {"channels": 1, "dimension": 128, "n_filters": 32, "ratios": [8, 5, 4, 2], "norm": "weight_norm",
                   "causal": True, "true_skip": False, "n_residual_layers": 1, "lstm": 2, "last_kernel_size": 7},
        "quant": {"n_q": 32, "bins": 1024, "dimension": 128}, "sample_rate": 24000,
    },
    "dac_44khz": {"encoder_dim": 64, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 1536, "decoder_rates": [8, 8, 4, 2],
                  "n_codebooks": 9, "codebook_size": 1024, "codebook_dim": 8, "sample_rate": 44100},
}  # fmt: skip
PUBLISHED["encodec_48khz"] = PUBLISHED["encodec_24khz"] | {
    "seanet": PUBLISHED["encodec_24khz"]["seanet"] | {"channels": 2, "norm": "time_group_norm", "causal": False},
    "quant": {"n_q": 16, "bins": 1024, "dimension": 128}, "sample_rate": 48000, "segment": 1.0, "normalize": True,
}  # fmt: skip
PUBLISHED["dac_24khz"] = PUBLISHED["dac_44khz"] | {
    "encoder_rates": [2, 4, 5, 8], "decoder_rates": [8, 5, 4, 2], "n_codebooks": 32, "sample_rate": 24000
}  # fmt: skip
PUBLISHED["dac_16khz"] = PUBLISHED["dac_24khz"] | {"n_codebooks": 12, "sample_rate": 16000}
PUBLISHED["dac_44khz-16kbps"] = PUBLISHED["dac_44khz"] | {"n_codebooks": 18, "latent_dim": 128}
KEY_LISTS = [path for folder in PRESENT for path in sorted(folder.glob("published_keys_*"))]


def published_config(path: Path) -> dict[str, Any]:
    name = path.name.removeprefix("published_keys_").removesuffix(".gz").removesuffix(".json")
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name.startswith("mimi"):
        return json.loads((path.parent / "published_config.json").read_text())
    transformers = pytest.importorskip("transformers")
    kind, other = re.fullmatch(r"hf_(encodec|dac|mimi)(.*)", name).groups()
    config = getattr(transformers, f"{kind.capitalize()}Config")
    if other == "_48khz":
        return config(
            audio_channels=2, normalize=True, use_causal_conv=False, norm_type="time_group_norm", chunk_length_s=1.0,
            overlap=0.01, target_bandwidths=[3.0, 6.0, 12.0, 24.0], sampling_rate=48000,
        ).to_dict()  # fmt: skip
    return config().to_dict()


@absent
@pytest.mark.parametrize("path", KEY_LISTS or [None], ids=lambda p: p.name if p else "none")
def test_published_keys_map(path: Path) -> None:
    """The key list of the real checkpoint fills the full-size codec, nothing left over and nothing missing."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    published = {key: shape for key, (shape, _) in json.loads(text).items()}
    module, config = zoo._system(system(path.parent)), published_config(path)
    with torch.device("meta"):
        codec = zoo.original_skeleton(module, config)
        state = zoo.original_state(module, {key: torch.empty(shape) for key, shape in published.items()}, config)
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    places = map_keys({key: value.shape for key, value in state.items()}, wanted, module.RENAMES, module.UNUSED)
    assert len(places) == len(state) and set(places.values()) == set(wanted)


@absent
def test_old_and_new_names_of_normed_weights(tmp_path: Path) -> None:
    folder = PARITY / "encodec_24khz_style"
    state = load_file(folder / "weights.safetensors")
    new = {
        key.replace("weight_g", "parametrizations.weight.original0")
        .replace("weight_v", "parametrizations.weight.original1"): value
        for key, value in state.items()
    }  # fmt: skip
    assert set(new) != set(state)
    save_file(new, tmp_path / "new.safetensors")
    torch.save({"state_dict": state}, tmp_path / "old.th")
    x = load_file(folder / "io.safetensors")["input"]
    codes = [
        codeczoo.from_original("encodec", tmp_path / name, folder / "config.json").encode(x).codes
        for name in ("new.safetensors", "old.th")
    ]
    assert torch.equal(*codes)
    del new["encoder.model.0.conv.conv.bias"]
    save_file(new, tmp_path / "new.safetensors")
    with pytest.raises(WeightsError, match="lack"):
        codeczoo.from_original("encodec", tmp_path / "new.safetensors", folder / "config.json")


@absent
def test_configurations_are_json_or_yaml(tmp_path: Path) -> None:
    folder = PARITY / "dac"
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    x = load_file(folder / "io.safetensors")["input"]
    codec = codeczoo.from_original("dac", folder / "weights.safetensors", tmp_path / "config.yaml")
    assert torch.equal(codec.encode(x).codes, load(folder).encode(x).codes)
    for text in ("a: [", "- 1\n- 2"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match="neither JSON nor YAML"):
            codeczoo.from_original("dac", folder / "weights.safetensors", tmp_path / "config.yaml")


def test_loudness_without_windows_is_refused() -> None:
    config = PUBLISHED["encodec_24khz"] | {"normalize": True}
    with pytest.raises(ConfigError, match="segment"):
        zoo.original_skeleton(zoo._system("encodec"), config)
    with pytest.raises(ConfigError, match="lacks"):
        zoo.original_skeleton(zoo._system("dac"), {"encoder_dim": 8})


# --- beside transformers, in this process ---------------------------------------------------------------------------


def peer(kind: str) -> Any:
    """A small model of transformers with random weights, its empty codebooks filled."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "encodec":
        config = transformers.EncodecConfig(
            num_filters=4, hidden_size=16, codebook_dim=16, upsampling_ratios=[4, 3, 2], sampling_rate=2400,
            codebook_size=32, target_bandwidths=[1.0, 2.0],
        )
        model = transformers.EncodecModel(config)
    elif kind == "dac":
        config = transformers.DacConfig(
            encoder_hidden_size=4, downsampling_ratios=[2, 3, 4], decoder_hidden_size=32, n_codebooks=3,
            codebook_size=32, codebook_dim=4, sampling_rate=2400,
        )
        model = transformers.DacModel(config)
    else:
        config = transformers.MimiConfig(
            num_filters=4, hidden_size=16, vector_quantization_hidden_dimension=8, codebook_dim=8, codebook_size=32,
            upsampling_ratios=[4, 3, 2], num_quantizers=4, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
            num_key_value_heads=2, intermediate_size=32, sliding_window=6, sampling_rate=2400, frame_rate=50.0,
            upsample_groups=16,
        )
        model = transformers.MimiModel(config)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith(("codebook.embed", "embed_sum")):
                value.normal_()
            elif key.endswith("cluster_usage"):
                value.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("kind", ["encodec", "dac", "mimi"])
@pytest.mark.parametrize("samples", [2400, 1777])
def test_same_as_transformers(kind: str, samples: int, tmp_path: Path) -> None:
    model = peer(kind)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    codec = codeczoo.from_original(kind, tmp_path / "model.safetensors", model.config.to_dict())
    x = torch.randn(2, 1, samples) * 0.3
    with torch.no_grad():
        if kind == "encodec":
            codes = model.encode(x, bandwidth=2.0, return_dict=True).audio_codes
            wave = model.decode(codes, [None]).audio_values
            codes = codes[0]
        elif kind == "dac":
            filled = torch.nn.functional.pad(x, (0, -samples % codec.hop))
            codes = model.encode(filled).audio_codes
            wave = model.decode(audio_codes=codes).audio_values[:, None]
        else:
            codes = model.encode(x).audio_codes
            wave = model.decode(codes).audio_values
        tokens = codec.encode(x)
        assert torch.equal(tokens.codes, codes)
        ours = codec.render(codec.quantizer.decode(codes))
    scale = wave.abs().max().clamp(min=1)  # random weights may be far louder than full scale
    torch.testing.assert_close(ours / scale, wave / scale, atol=1e-5, rtol=0)
