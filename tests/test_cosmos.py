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
from torch.utils._python_dispatch import TorchDispatchMode

import codeczoo
from codeczoo import zoo
from codeczoo.backbones import cosmos2d, cosmos3d
from codeczoo.core.errors import ConfigError, WeightsError
from codeczoo.io.weights import map_keys
from codeczoo.nn.attention3d import FrameAttention, TimeAttention
from codeczoo.nn.stream import Identity

PARITY = Path(os.environ.get("CODECZOO_PARITY", SHARED / "parity"))
SYSTEMS = [name for name in ("cosmos_di", "cosmos_dv") if (PARITY / name).is_dir()]
KEY_LISTS = [path for name in SYSTEMS for path in sorted((PARITY / name).glob("published_keys_*"))]
absent = pytest.mark.skipif(not SYSTEMS, reason=f"no parity fixtures at {PARITY} (set CODECZOO_PARITY)")


def config_of(name: str) -> dict[str, Any]:
    return json.loads((PARITY / name / "config.json").read_text())


def load(name: str) -> Any:
    return codeczoo.from_original(name, PARITY / name / "weights.safetensors", config_of(name))


def tolerance(name: str, what: str) -> float:
    found = re.search(rf"Tolerance:.*?{what} atol ([0-9.e+-]+)", (PARITY / name / "README.md").read_text())
    assert found
    return float(found.group(1).rstrip("."))


def latents(codec: Any, x: Tensor) -> Tensor:
    found = codec.latents(x)
    return found if isinstance(found, Tensor) else found[0]


@absent
@torch.no_grad()
@pytest.mark.parametrize("name", SYSTEMS)
def test_equal_codes_and_reconstructions(name: str) -> None:
    codec, io = load(name), load_file(PARITY / name / "io.safetensors")
    x = (io["input"] + 1) / 2
    assert (latents(codec, x) - io["z"]).abs().max() <= tolerance(name, "z")
    tokens = codec.encode(x)
    assert torch.equal(tokens.codes[:, 0], io["tokens"])
    assert torch.equal(codec.quantizer.decode(tokens.codes), io["codes"])
    x_hat = codec.render(io["codes"])
    assert (2 * x_hat - 1 - io["recon"]).abs().max() <= tolerance(name, "recon")
    torch.testing.assert_close(codec.decode(tokens), x_hat.clamp(0, 1), atol=1e-5, rtol=0)
    if name == "cosmos_dv":
        first = codec.encode(x[:, :, :1])
        assert torch.equal(first.codes[:, 0], io["tokens_single_frame"])
        assert torch.equal(first.codes, tokens.codes[:, :, :1])
        x_hat = codec.render(codec.quantizer.decode(first.codes))
        assert (2 * x_hat - 1 - io["recon_single_frame"]).abs().max() <= tolerance(name, "recon")


@absent
@pytest.mark.parametrize("path", KEY_LISTS or [None], ids=lambda p: p.name if p else "none")
def test_published_keys_map(path: Path) -> None:
    """The key list of the real checkpoint fills the full-size codec; what is left over are changes of size not done."""
    published = {key: shape for key, (shape, _) in json.loads(path.read_text()).items()}
    module, config = zoo._system(path.parent.name), published_config(path.stem)
    with torch.device("meta"):
        codec = zoo.original_skeleton(module, config)
        state = zoo.original_state(module, {key: torch.empty(shape) for key, shape in published.items()}, config)
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    places = map_keys({key: value.shape for key, value in state.items()}, wanted, module.RENAMES, module.UNUSED)
    assert len(places) == len(state) and set(places.values()) == set(wanted)
    time, rows, columns = ([*map(int, re.findall(r"\d+", path.stem))] * 2)[-3:]
    stride = codec.stride if isinstance(codec.stride, tuple) else (codec.stride,) * 3
    assert stride == (time, rows, columns)
    idle = {re.sub(r"\.(weight|bias)$", "", key.replace(".conv3d", "")) for key in published.keys() - state.keys()}
    assert idle == {
        f"{place}sample.conv{n}" for place, numbers in IDLE.get(path.stem[15:], {}).items() for n in numbers
    }


IDLE = {  # convolutions that the original has for changes of size which it does not do
    "DV4x8x8": {
        "encoder.down.0.down": "2", "encoder.down.1.down": "123", "decoder.up.1.up": "123", "decoder.up.2.up": "1"
    },
    "DV8x8x8": {"encoder.down.1.down": "123", "decoder.up.2.up": "123"},
    "DV8x16x16": {"encoder.down.1.down": "2", "decoder.up.2.up": "1"},
}  # fmt: skip


def published_config(name: str) -> dict[str, Any]:
    """What must be said of a published tokenizer, by its name (published_keys_DV8x16x16: time, rows, columns)."""
    *time, space, _ = map(int, re.findall(r"\d+", name))
    return {"spatial_compression": space} | ({"temporal_compression": time[0]} if time else {})


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


@pytest.mark.parametrize("name", ["cosmos_di", "cosmos_dv"])
@pytest.mark.parametrize(("change", "message"), [
    ({"quantizer": "LFQ"}, "quantizer 'LFQ'"), ({"patch_method": "rearrange"}, "patch_method 'rearrange'"),
    ({"levels": [8, 8]}, r"levels \[8, 8\]"), ({"spatial_compression": 12}, "4 times 2, up to 3 times, got 12"),
    ({"spatial_compression": 64}, "got 64"), ({"spatial_compression": None}, "lacks 'spatial_compression'"),
    ({"name": "CI"}, "name 'CI'"),
])  # fmt: skip
def test_other_models_are_refused(name: str, change: dict[str, Any], message: str) -> None:
    config = {"spatial_compression": 8, "temporal_compression": 8, "channels": 32} | change
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        zoo.original_skeleton(zoo._system(name), config)


def test_other_video_models_are_refused() -> None:
    module = zoo._system("cosmos_dv")
    rates = {"spatial_compression": 8, "temporal_compression": 8}
    for change, message in (({"encoder": "BASE"}, "encoder 'BASE'"), ({"temporal_compression": 2}, "temporal"),
                            ({"temporal_compression": 16}, "agree in stride")):  # fmt: skip
        with pytest.raises(ConfigError, match=message), torch.device("meta"):
            zoo.original_skeleton(module, rates | change)


@absent
@torch.no_grad()
def test_pictures_of_any_size() -> None:
    codec, x = load("cosmos_di"), torch.rand(1, 3, 30, 41, generator=torch.Generator().manual_seed(0))
    tokens = codec.encode(x)
    assert tokens.codes.shape[2:] == (4, 6) and codec.decode(tokens).shape == x.shape
    rows, columns = (torch.arange(n).clamp(max=own - 1) for n, own in ((32, 30), (48, 41)))
    assert torch.equal(codec.encode(x[:, :, rows][..., columns]).codes, tokens.codes)


@pytest.mark.parametrize("name", ["cosmos_di", "cosmos_dv"])
def test_encoders_may_give_more_channels_than_decoders_take(name: str) -> None:
    config = {"spatial_compression": 8, "temporal_compression": 8, "z_factor": 2, "z_channels": 10}
    with torch.device("meta"):
        codec = zoo.original_skeleton(zoo._system(name), config)
    assert codec.encoder.project.weight.shape[:2] == (6, 20) and codec.decoder.project.weight.shape[:2] == (10, 6)


def test_where_older_decoders_change_time() -> None:
    """`legacy_mode` doubles time one level earlier."""
    module = zoo._system("cosmos_dv")
    for legacy, level in ((False, "1"), (True, "2")):
        config = {"spatial_compression": 8, "temporal_compression": 8, "legacy_mode": legacy}
        with torch.device("meta"):
            codec = zoo.original_skeleton(module, config)
        (resized,) = {key.split(".")[2] for key in codec.state_dict() if key.startswith("decoder") and "resize" in key}
        assert resized == level and codec.stride == (8, 8, 8)


@torch.no_grad()
def test_attention_in_time_looks_back_so_far() -> None:
    torch.manual_seed(0)
    whole, near = (TimeAttention(8, Identity(), context) for context in (100, 3))
    near.load_state_dict(whole.state_dict())
    x = torch.randn(2, 8, 7, 2, 3)
    torch.testing.assert_close(near(x[:, :, :3]), whole(x[:, :, :3]))
    for t in range(2, 7):  # as if the clip began two steps before
        torch.testing.assert_close(near(x)[:, :, t], whole(x[:, :, t - 2 : t + 1])[:, :, -1])
    state = near.begin()
    for t in range(7):
        near.step(x[:, :, t : t + 1], state)
        assert state.keys.shape[2] == state.values.shape[2] == min(t + 1, 2)
        assert state.keys.untyped_storage().nbytes() == 4 * state.keys.numel()
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        TimeAttention(8, Identity(), 0)


class Called(TorchDispatchMode):
    """Names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["picture", "frames", "time"])
def test_scores_of_attention_are_not_stored(kind: str) -> None:
    """A 4000 px picture would need terabytes."""
    layers = {
        "picture": (cosmos2d.Attention(32), (1, 32, 4, 5)), "frames": (FrameAttention(8, Identity()), (2, 8, 3, 4, 5)),
        "time": (TimeAttention(8, Identity(), 2), (2, 8, 3, 4, 5)),
    }  # fmt: skip
    layer, shape = layers[kind]
    with Called() as called:
        layer(torch.randn(shape)).sum().backward()
    assert any("flash_attention" in name and "backward" in name for name in called.names)


def test_changes_of_size_are_between_levels() -> None:
    half = {"patch": 2, "width": 8, "multipliers": [1, 2], "n_blocks": 1, "hidden": 4, "dim": 3}
    for places, message in (({"space_levels": [1], "time_levels": []}, "space_levels must be among 0..0"),
                            ({"space_levels": [], "time_levels": [0, 0]}, "time_levels .* each once")):  # fmt: skip
        for kind in (cosmos3d.Encoder, cosmos3d.Decoder):
            with pytest.raises(ConfigError, match=message):
                kind(**half, **places)
    flat = {key: value for key, value in half.items() if key != "width"} | {"width": 32, "n_resize": 3}
    for kind in (cosmos2d.Encoder, cosmos2d.Decoder):
        with pytest.raises(ConfigError, match=r"n_resize must be 0\.\.2"):
            kind(**flat)
