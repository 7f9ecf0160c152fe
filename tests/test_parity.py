"""Authors' checkpoints of image codecs: equal codes, equal reconstructions, every published key in its place.

Those of Cosmos are in test_cosmos.py, FlexTok's in test_flextok_parity.py, autoencoders' in test_kl_vae.py.

Fixtures come from CODECZOO_PARITY (default ../shared/parity); every folder of a supported system found there is run.
"""

import gzip
import json
import os
import re
from pathlib import Path

import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file

import codeczoo
from codeczoo import zoo
from codeczoo.core.errors import ConfigError
from codeczoo.io.weights import map_keys

PARITY = Path(os.environ.get("CODECZOO_PARITY", SHARED / "parity"))


def system_of(folder: Path) -> str | None:
    """The supported image system with the longest name that the folder's name begins with."""
    elsewhere = ("cosmos_di", "flextok", "kl_vae")
    images = [name for name, module in zoo.systems().items() if ".image." in module and name not in elsewhere]
    known = [name for name in images if folder.name == name or folder.name.startswith(name + "_")]
    return max(known, key=len, default=None)


def is_discrete(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text())
    return config.get("model", {}).get("vq_model", {}).get("quantize_mode", "vq") == "vq"


FOLDERS = [f for f in sorted(PARITY.glob("*")) if (f / "config.json").is_file() and system_of(f)]
DISCRETE = [f for f in FOLDERS if is_discrete(f)]
KEY_LISTS = [path for folder in DISCRETE for path in sorted(folder.glob("published_keys_*"))]
absent = pytest.mark.skipif(not FOLDERS, reason=f"no parity fixtures at {PARITY} (set CODECZOO_PARITY)")


def tolerance(folder: Path, what: str) -> float:
    """The README's absolute tolerance of `what`."""
    found = re.search(rf"Tolerance:.*?{what} atol ([0-9.e+-]+)", (folder / "README.md").read_text())
    assert found, f"{folder}/README.md states no tolerance of {what}"
    return float(found.group(1).rstrip("."))


@absent
@pytest.mark.parametrize("folder", DISCRETE or [None], ids=lambda f: f.name if f else "none")
def test_equal_codes_and_reconstructions(folder: Path) -> None:
    codec = codeczoo.from_original(system_of(folder), folder / "weights.safetensors", folder / "config.json")
    io = load_file(folder / "io.safetensors")
    expected = io["tokens"]
    text = {"text": io["text_guidance"]} if "text_guidance" in io else {}
    with torch.no_grad():
        z = codec.encoder(io["input"])
        assert (z.flatten(2) - io["z"].flatten(2)).abs().max() <= tolerance(folder, "z")
        tokens = codec.encode(io["input"])
        differ = tokens.codes.flatten() != expected.flatten()
        assert not (differ & (io["margin"].flatten() > 1e-4)).any()
        codes = expected.reshape(tokens.codes.shape)
        atol = tolerance(folder, "recon")
        x_hat = codec.render(codec.quantizer.decode(codes), **text)
        assert (x_hat - io["recon"]).abs().max() <= atol
        assert (codec.decode(tokens, **text) - io["recon"].clamp(0, 1)).abs().max() <= atol
        for key in io:
            if key.startswith("recon_len"):
                n = int(key.removeprefix("recon_len"))
                part = codec.decode(tokens.prefix(positions=n))
                assert (part - io[key].clamp(0, 1)).abs().max() <= atol, key


@absent
@pytest.mark.parametrize("path", KEY_LISTS or [None], ids=lambda p: p.name if p else "none")
def test_published_keys_map(path: Path) -> None:
    """The key list of the real checkpoint fills the full-size codec, nothing left over and nothing missing."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    published = {key: shape for key, (shape, _) in json.loads(text).items()}
    module = zoo._system(system_of(path.parent))
    with torch.device("meta"):
        codec = zoo.original_skeleton(module, published_config(path.name, published))
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    places = map_keys(published, wanted, module.RENAMES, module.UNUSED)
    assert len(places) == len(published) and set(places.values()) == set(wanted)


def published_config(name: str, keys: dict[str, list[int]]) -> dict:
    """The authors' configuration of a published checkpoint, from its name and the facts in its shapes."""
    if "maskgit" in name:
        from codeczoo.image.maskgit_vqgan import PUBLISHED

        return PUBLISHED
    sizes = {512: "small", 768: "base", 1024: "large"}
    vocab, dim = keys["quantize.embedding.weight"]
    legacy = "pixel_quantize.embedding.weight" in keys
    model = {
        "codebook_size": vocab, "token_size": dim, "use_l2_norm": legacy, "is_legacy": legacy,
        "vit_enc_model_size": sizes[keys["encoder.class_embedding"][1]], "vit_enc_patch_size": 16,
        "vit_dec_model_size": sizes[keys["decoder.class_embedding"][1]], "vit_dec_patch_size": 16,
        "num_latent_tokens": keys["latent_tokens"][0], "finetune_decoder": legacy,
    }
    return {"model": {"vq_model": model}, "dataset": {"preprocessing": {"crop_size": 256}}}


@absent
@pytest.mark.parametrize("folder", [f for f in FOLDERS if f not in DISCRETE] or [None], ids=lambda f: f and f.name)
def test_continuous_models_are_refused(folder: Path | None) -> None:
    if folder is None:
        pytest.skip("no continuous fixture here")
    with pytest.raises(ConfigError, match="not a tokenizer"):
        codeczoo.from_original(system_of(folder), folder / "weights.safetensors", folder / "config.json")
