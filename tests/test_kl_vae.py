"""The KL autoencoder: diffusers' weights, latents, training, and what it is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_parity import PARITY
from torch.distributions import Normal, kl_divergence

import codeczoo
from codeczoo import zoo
from codeczoo.cli.main import main
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.image import kl_vae
from codeczoo.io.weights import load_original

FLEXTOK = PARITY / "flextok"
CONFIG = {  # of diffusers; the decoder's levels differ, so that their order shows
    "block_out_channels": [8, 8, 16], "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 3,
    "scaling_factor": 0.5, "shift_factor": 0.25,
}


@pytest.fixture
def vae() -> Any:
    torch.manual_seed(0)
    found = zoo.skeleton(kl_vae.original_tree(CONFIG))
    for p in found.parameters():
        torch.nn.init.normal_(p, std=0.15) if p.ndim > 1 else None
    return found


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def test_flextoks_autoencoder_gives_the_originals_latents_and_pictures() -> None:
    if not FLEXTOK.is_dir():
        pytest.skip(f"no parity fixture at {FLEXTOK} (set CODECZOO_PARITY)")
    config = json.loads((FLEXTOK / "config.json").read_text())
    config = config["vae_overrides_of_VAE_BASE_CFG"] | config["vae"]
    weights = load_file(FLEXTOK / "weights.safetensors")
    state = {key.removeprefix("vae.vae."): value for key, value in weights.items() if key.startswith("vae.vae.")}
    vae = zoo.skeleton(kl_vae.original_tree(config))
    load_original(vae, kl_vae.original_state(state, config), kl_vae.RENAMES, kl_vae.UNUSED)
    io = load_file(FLEXTOK / "io.safetensors")
    with torch.no_grad():
        assert (vae.latents((io["input"] + 1) / 2) - io["vae_latents"]).abs().max() <= 3e-5
        for key in io:
            if key.startswith("latents_"):
                x_hat = 2 * vae.pixels(io[key]) - 1
                assert (x_hat - io[key.replace("latents_", "recon_")]).abs().max() <= 1e-4, key


# --- diffusers' layout ----------------------------------------------------------------------------------------------


def in_diffusers_names(state: dict[str, torch.Tensor], attention: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Our tensors as a file of diffusers with 3 levels, its attention of linear layers."""
    found = {}
    for key, value in state.items():
        half, *place = key.split(".")
        if place[0] == "project":
            place = [{"encoder": "quant_conv", "decoder": "post_quant_conv"}[half], *place[1:]]
        elif place[0] == "stages":
            down = half == "encoder"
            blocks = f"down_blocks.{place[1]}" if down else f"up_blocks.{2 - int(place[1])}"
            resize = ["downsamplers" if down else "upsamplers", "0", "conv", *place[3:]]
            place = [half, blocks, *(resize if place[2] == "resize" else ["resnets", *place[3:]])]
        elif place[:2] == ["middle", "1"]:
            name = dict(zip(("norm", "q", "k", "v", "out"), ("group_norm", *attention), strict=True))[place[2]]
            place = [half, "mid_block.attentions.0", name, *place[3:]]
            value = value.flatten(1) if value.ndim == 4 else value
        elif place[0] == "middle":
            place = [half, "mid_block.resnets", str(int(place[1]) // 2), *place[2:]]
        else:
            place = [half, *place]
        name = ".".join(place).replace(".shortcut.", ".conv_shortcut.").replace(".norm_out.", ".conv_norm_out.")
        found[name] = value
    return found


NEW, OLD = ("to_q", "to_k", "to_v", "to_out.0"), ("query", "key", "value", "proj_attn")


@pytest.mark.parametrize("attention", [NEW, OLD])
def test_files_of_old_and_new_diffusers_are_imported(
    vae: Any, x: torch.Tensor, attention: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    from safetensors.torch import save_file

    save_file(in_diffusers_names(vae.state_dict(), attention), tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"_class_name": "AutoencoderKL"}))
    out = tmp_path / "vae.safetensors"
    given = ["--weights", str(tmp_path / "w.safetensors"), "--config", str(tmp_path / "config.json")]
    assert main(["import", "kl_vae", *given, "-o", str(out)]) == 0
    assert torch.equal(zoo.load_autoencoder(out).latents(x), vae.latents(x))
    assert main(["info", str(out)]) == 0 and "none: continuous latents" in capsys.readouterr().out
    assert main(["encode", "x.png", "--codec", str(out), "-o", str(tmp_path / "tokens")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith("vae.safetensors: KLVAE is a continuous autoencoder, a stage of codecs: it gives no tokens")
    with pytest.raises(InputError, match="kl_vae: KLVAE is a continuous autoencoder"):
        codeczoo.from_original("kl_vae", tmp_path / "w.safetensors", CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": [8, 12]}, "multiples of the first, got .8, 12"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "DownEncoderBlock2D"),
        ({"mid_block_add_attention": False}, "middle with attention"),
        ({"use_quant_conv": False}, "autoencoder is without"),
    ],
)
def test_other_autoencoders_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kl_vae.original_tree(CONFIG | change)


def test_a_configuration_without_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match="lacks 'latent_channels'"):
        zoo.original_skeleton(kl_vae, {})


# --- latents and pictures -------------------------------------------------------------------------------------------


def test_latents_are_the_scaled_mode_or_a_draw(vae: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        mean, variance = vae.posterior(x)
        assert vae.latents(x).shape == (2, vae.dim, 16 // vae.stride, 24 // vae.stride)
        assert torch.allclose(vae.latents(x), (mean - 0.25) * 0.5)
        noise = torch.randn(mean.shape)
        assert torch.allclose(vae.latents(x, noise), (mean + variance.exp().sqrt() * noise - 0.25) * 0.5, atol=1e-5)
        assert torch.allclose(vae.pixels(vae.latents(x)), vae(x).x_hat, atol=1e-5)


def test_variances_are_bounded_as_in_diffusers(vae: Any, x: torch.Tensor) -> None:
    for bias, bound in ((-100.0, -30), (100.0, 20)):
        torch.nn.init.constant_(vae.encoder.project.bias[vae.dim :], bias)
        assert (vae.posterior(x)[1] == bound).all()


def test_pictures_of_any_size_come_back(vae: Any) -> None:
    x = torch.rand(1, 3, 13, 6)
    assert vae(x).x_hat.shape == x.shape and vae.latents(x).shape[2:] == (4, 2)
    with pytest.raises(InputError, match="KLVAE takes float"):
        vae.latents(torch.rand(3, 8, 8))


def test_halves_that_do_not_fit_are_refused() -> None:
    tree = kl_vae.original_tree(CONFIG)
    with pytest.raises(ConfigError, match="got 6 channels at stride 4, 2 at 4"):
        codeczoo.build(tree | {"decoder": tree["decoder"] | {"dim": 2}})


# --- training -------------------------------------------------------------------------------------------------------


def test_kl_is_that_of_the_posterior_a_value_of_x(vae: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        mean, variance = vae.posterior(x)
        expected = kl_divergence(Normal(mean, variance.exp().sqrt()), Normal(0, 1)).sum() / x.numel()
        assert torch.allclose(vae(x).losses["kl"], expected, rtol=1e-4)


def test_training_goes_through_a_draw_and_reaches_every_weight(vae: Any, x: torch.Tensor) -> None:
    assert torch.equal(vae(x).x_hat, vae(x).x_hat)
    vae.train()
    assert not torch.equal(vae(x).x_hat, vae(x).x_hat)
    assert vae(x, pixels=False).x_hat is None
    found = vae(x)
    ((found.x_hat - x).square().mean() + found.losses["kl"]).backward()
    without = {name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {name for name in without if not name.endswith("middle.1.k.bias")}  # softmax takes it out
    assert vae.last_layer() is vae.decoder.conv_out.weight
