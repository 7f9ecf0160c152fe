"""The KL autoencoder of latent diffusion: pictures to a grid of continuous latents, the first stage of FlexTok.

Source: latent diffusion (arXiv 2112.10752); weights in the layout of `AutoencoderKL` of
github.com/huggingface/diffusers (Apache-2.0), which is not needed to read them.
Differs: any size (padded by repeating the edge to a multiple of the stride, trimmed back).
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from codeczoo.backbones.cosmos2d import Decoder, Encoder
from codeczoo.core.base import Autoencoder
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Reconstruction, TokenSpec
from codeczoo.image.grid import padded


class KLVAE(Autoencoder):
    """Encoder of a Gaussian for every position, Decoder of a draw from it.

    Attributes:
        dim: c, channels of the latents.
        stride: rows and columns that a position stands for.

    Args:
        encoder: image to the Gaussians' means and log variances, 2c channels.
        decoder: latents of c channels to image.
        scale: what latents are multiplied by, so that their spread is about 1.
        shift: what is taken from them first.

    Raises:
        ConfigError: parts that do not fit together.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        if encoder.dim != 2 * decoder.dim or encoder.stride != decoder.stride:
            found = f"{encoder.dim} channels at stride {encoder.stride}, {decoder.dim} at {decoder.stride}"
            raise ConfigError(f"KLVAE: the encoder must give 2 channels for each of the decoder's, got {found}")
        self.encoder, self.decoder, self.scale, self.shift = encoder, decoder, scale, shift
        self.dim, self.stride = decoder.dim, encoder.stride
        self.spec = TokenSpec("image", "pixel", ())

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 3, H, W) in [0, 1] to unscaled means and log variances (B, c, h, w), float32; h = ceil(H / stride)."""
        mean, variance = self.encoder(padded(2 * x - 1, self.stride)).float().chunk(2, 1)
        return mean, variance.clamp(-30, 20)

    def latents(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """x (B, 3, H, W) in [0, 1] to scaled latents (B, c, h, w): modes, or draws where there is `noise` ~ N(0, 1)."""
        self.check_media(x)
        mean, variance = self.posterior(x)
        z = mean if noise is None else mean + (variance / 2).exp() * noise
        return (z - self.shift) * self.scale

    def pixels(self, z: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) to x_hat (B, 3, h*stride, w*stride) about [0, 1], not clamped."""
        return (self.decoder(z / self.scale + self.shift) + 1) / 2

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        """One training pass through a draw, in evaluation through the mode.

        The loss "kl" is that of the posterior to N(0, 1) in nats a value of x: beside a mean error its weight is that
        of latent diffusion, which sums both.
        """
        self.check_media(x)
        mean, variance = self.posterior(x)
        kl = (mean.square() + variance.exp() - 1 - variance).sum() / 2 / x.numel()
        z = mean + (variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        x_hat = (self.decoder(z)[:, :, : x.shape[2], : x.shape[3]] + 1) / 2 if pixels else None
        return Reconstruction(None, x_hat, {"kl": kl})

    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution."""
        return self.decoder.conv_out.weight


# --- checkpoints in diffusers' layout -------------------------------------------------------------------------------

RENAMES = (
    (r"\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r".stages.\1.blocks.\2."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.conv\.", r".stages.\1.resize."),
    (r"\.up_stages\.(\d+)\.resnets\.(\d+)\.", r".stages.\1.blocks.\2."),  # up_blocks, see `original_state`
    (r"\.up_stages\.(\d+)\.upsamplers\.0\.conv\.", r".stages.\1.resize."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.middle\.1\.group_norm\.", ".middle.1.norm."),
    (r"\.middle\.1\.(?:to_q|query)\.", ".middle.1.q."),  # the second names are those of diffusers before 0.15
    (r"\.middle\.1\.(?:to_k|key)\.", ".middle.1.k."),
    (r"\.middle\.1\.(?:to_v|value)\.", ".middle.1.v."),
    (r"\.middle\.1\.(?:to_out\.0|proj_attn)\.", ".middle.1.out."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\bquant_conv\.", "encoder.project."),
    (r"\bpost_quant_conv\.", "decoder.project."),
)
UNUSED = ()
PUBLISHED = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32}
_UP = re.compile(r"\bdecoder\.up_blocks\.(\d+)\.")


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the autoencoder that diffusers' config.json describes. Raises ConfigError.

    `latent_channels` must be there; others are as in Stable Diffusion, the scale 1 where there is no `scaling_factor`.
    """
    config = {**PUBLISHED, **config}
    widths = list(config["block_out_channels"])
    if not widths or any(width % widths[0] for width in widths):
        raise ConfigError(f"kl_vae: block_out_channels must be multiples of the first, got {widths}")
    blocks = {*config.get("down_block_types", ()), *config.get("up_block_types", ())}
    if not blocks <= {"DownEncoderBlock2D", "UpDecoderBlock2D"} or not config.get("mid_block_add_attention", True):
        raise ConfigError("kl_vae: wants DownEncoderBlock2D, UpDecoderBlock2D and a middle with attention, no others")
    if not config.get("use_quant_conv", True) or not config.get("use_post_quant_conv", True):
        raise ConfigError("kl_vae: wants quant_conv and post_quant_conv; this autoencoder is without")
    shared = {
        "patch": 1,
        "width": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "n_blocks": config["layers_per_block"],
        "n_resize": len(widths) - 1,
        "groups": config["norm_num_groups"],
    }
    encoder, decoder = ({"hidden": n, "dim": n} for n in (2 * config["latent_channels"], config["latent_channels"]))
    return {
        "_target_": "codeczoo.image.kl_vae.KLVAE",
        "encoder": {"_target_": "codeczoo.backbones.cosmos2d.Encoder", **shared, **encoder},
        "decoder": {"_target_": "codeczoo.backbones.cosmos2d.Decoder", **shared, **decoder},
        "scale": config.get("scaling_factor") or 1.0,
        "shift": config.get("shift_factor") or 0.0,
    }


def original_state(state: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors, the decoder's levels numbered as ours, from the largest; diffusers begins with the smallest."""
    last = max((int(found[1]) for found in map(_UP.search, state) if found), default=0)
    ours = [_UP.sub(lambda found: f"decoder.up_stages.{last - int(found[1])}.", key) for key in state]
    return dict(zip(ours, state.values(), strict=True))
