"""FlexTok: an image as up to 256 ordered tokens, coarse to fine, painted by a rectified flow from any first few.

Source: "FlexTok: Resampling Images into 1D Token Sequences of Flexible Length" (arXiv 2502.13967).
Differs: no code of theirs; encoding takes the mode of the VAE's posterior, never a draw, so that tokens are
reproducible; any number of tokens is computed as what it is (see backbones/flextok.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.backbones.flextok import FlowDecoder, RegisterEncoder
from codeczoo.core.base import Codec, Quantizer
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Reconstruction, Sampling, StreamSpec, Tokens, TokenSpec
from codeczoo.image import kl_vae
from codeczoo.image.kl_vae import KLVAE
from codeczoo.nn import flow
from codeczoo.quantizers.dropout import Depth, UniformDepth


class FlexTok(Codec):
    """A VAE, a RegisterEncoder of its latents, a quantizer, and a FlowDecoder that paints latents from the registers.

    Training draws a time, noise, how many registers are left (the tail is masked) and whether any are told at all. The
    loss is "flow": the mean squared error of the velocity. The VAE is never trained here: freeze it.

    Args:
        vae: image to scaled latents and back.
        encoder: latents to registers.
        quantizer: of the registers.
        decoder: registers and noise to latents.
        sampling: how `decode` samples.
        times: what times training draws.
        dropout: how many registers training leaves.
        untold: share of the training samples that are told no register, 0..1; guidance wants some.

    Raises:
        ConfigError: parts that do not fit together.
    """

    sampling: Sampling

    def __init__(
        self, vae: KLVAE, encoder: RegisterEncoder, quantizer: Quantizer, decoder: FlowDecoder,
        sampling: Sampling | None = None, times: flow.Times | None = None, dropout: Depth | None = None,
        untold: float = 0.1,
    ) -> None:
        super().__init__()
        shape, n = encoder.patches.shape, encoder.n_tokens
        if decoder.patches.shape != shape or decoder.n_tokens != n or vae.dim != shape[0]:
            raise ConfigError("FlexTok: vae, encoder and decoder must agree in channels, side, patch and n_tokens")
        if not encoder.dim == decoder.dim == quantizer.dim:
            raise ConfigError(f"FlexTok: dims differ: {encoder.dim}, quantizer {quantizer.dim}, {decoder.dim}")
        if not 0 <= untold <= 1:
            raise ConfigError(f"FlexTok: untold must be a share within 0..1, got {untold}")
        self.vae, self.encoder, self.quantizer, self.decoder = vae, encoder, quantizer, decoder
        self.sampling = sampling or Sampling()
        self.times, self.dropout, self.untold = times or flow.LogitNormalTimes(), dropout or UniformDepth(), untold
        stream = StreamSpec(quantizer.vocab_sizes, ("position",), (n,), rate=n)
        size = (shape[1] * vae.stride, shape[2] * vae.stride)
        self.spec = TokenSpec("image", "image", (stream,), ("positions", *quantizer.prefixes), input_size=size)

    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None, n_streams: int | None = None
    ) -> Tokens:
        """x (B, 3, H, W) in [0, 1] of the codec's size to codes (B, K, n); fewer positions take less time."""
        self.check_media(x)
        n = None if n_positions is None else max(1, n_positions)
        codes = self.quantizer.encode(self.encoder(self.vae.latents(x), n))  # (B, K, n)
        return self.tokens([codes], x).prefix(n_positions, n_codebooks, n_streams)

    def decode(self, tokens: Tokens) -> Tensor:
        """Codes (B, K, n) to x_hat (B, 3, H, W) in [0, 1], sampled as `self.sampling` says."""
        lengths = tokens.stream_lengths()
        z = self.quantizer.decode(tokens.check_range().codes[:, :, : int(lengths.max())])
        return self.vae.pixels(self.sample(z, lengths)).clamp(0, 1)

    def sample(self, z: Tensor, lengths: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Paints latents.

        Args:
            z: quantized registers (B, D, n).
            lengths: int64 (B,), how many of them count; None: all.
            noise: (B, c, h, w) to begin with; None: that of the seed.

        Shapes: gives (B, c, h, w), float32.
        """
        how, b = self.sampling, len(z)
        if noise is None:
            noise = how.noise(*self.decoder.patches.shape).to(z.device).expand(b, -1, -1, -1)
        told, nothing = self.decoder.told(z, lengths), self.decoder.told_nothing(b)
        times = self.decoder.at(flow.times_of(how).to(z.device))  # (steps + 1, vectors, width) each
        guide = (flow.ProjectedGuidance if how.projected else flow.Guidance)(how.guidance)

        def velocity(x: Tensor, i: int) -> Tensor:
            time = [values[i] for values in times]
            with_tokens = self.decoder.velocity(x, time, told).float()
            if how.guidance == 1:
                return with_tokens
            return guide(with_tokens, self.decoder.velocity(x, time, nothing).float())

        return flow.solve(velocity, noise, how)

    def forward(self, x: Tensor, *, pixels: bool = True, latents: Tensor | None = None) -> Reconstruction:
        """One training pass.

        Args:
            x: (B, 3, H, W) in [0, 1].
            pixels: whether to give x_hat, which is what the one velocity would lead to.
            latents: (B, c, h, w), those of x where they are known already.
        """
        self.check_media(x)
        if latents is None:
            with torch.no_grad():
                latents = self.vae.latents(x)
        clean = latents.float()
        b, device = len(x), x.device
        q = self.quantizer(self.encoder(clean))
        told = self.decoder.told(q.z, *self.left(b, device))
        s, noise = self.times(b, device), torch.randn_like(clean)
        noised = flow.noised(clean, noise, s)
        velocity, features = self.decoder(noised, s, told)
        losses = q.losses | {"flow": F.mse_loss(velocity.float(), noise - clean)}
        x_hat = self.vae.pixels(noised - s.view(-1, 1, 1, 1) * velocity.float()) if pixels else None
        return Reconstruction(self.tokens([q.codes], x), x_hat, losses, features=features)

    def left(self, batch: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """In training, how many registers each sample keeps, int64 (batch,), and which are told none, bool (batch,)."""
        if not self.training:
            return None, None
        kept = self.dropout(batch, self.decoder.n_tokens, device)
        return kept, torch.rand(batch, device=device) < self.untold


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

BACKBONE = "codeczoo.backbones.flextok"
RENAMES = (
    (r"^(encoder|decoder)\.module_dict\.", r"\1."),
    (r"\.(enc|dec_noise)_patch_emb\.patch_proj\.", ".patches.embed."),
    (r"\.(enc|dec_patches)_posemb_module\.posembs$", ".patches.positions"),
    (r"\.enc_register_module\.registers$", ".registers"),
    (r"\.enc_to_latents\.proj\.", ".project."),
    (r"\.(enc|dec)_transformer\.blocks\.", ".blocks."),
    (r"\.blocks\.(\d+)\.adaLN_modulation\.1\.", r".modulations.\1.linear."),
    (r"\.attn\.w([qkv])\.", r".\1."),
    (r"\.attn\.proj\.", ".out."),
    (r"\.mlp\.fc1\.", ".gate."),
    (r"\.mlp\.fc2\.", ".fc2."),
    (r"\.mlp\.fc3\.", ".value."),
    (r"\.dec_from_latents\.proj\.", ".embed."),
    (r"\.dec_registers_posemb_module\.posembs$", ".register_positions"),
    (r"\.dec_nested_dropout\.dropout_mask_token$", ".mask_token"),
    (r"\.dec_latent_dropout\.nullcond$", ".null_token"),
    (r"\.dec_time_embedder\.mlp\.", ".time."),
    (r"\.dec_to_patches\.adaLN_modulation\.1\.", ".last_modulation.linear."),
    (r"\.dec_to_patches\.proj\.", ".project."),
    (r"^vae\.vae\.", "vae."),
    *kl_vae.RENAMES,
)
UNUSED = kl_vae.UNUSED
DROPOUTS = {"uniform": "UniformDepth", "pow2": "PowerDepth", "uniform_pow2": "RoundedDepth"}


def original_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' tensors, tables of positions as (positions, width)."""
    state = kl_vae.original_state(state, config)
    return {key: _positions(value) if key.endswith(".posembs") else value for key, value in state.items()}


def _positions(table: Tensor) -> Tensor:
    """A table for a line, (1, 1, width, n), or for a grid, (1, width, rows, columns), to (positions, width)."""
    width = table.shape[2] if table.shape[1] == 1 else table.shape[1]
    return table.reshape(width, -1).T


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' configuration describes. Raises ConfigError."""
    vae, fsq, times = config["vae"], config["regularizer"], config["flow_matching_noise_module"]
    encoder, decoder = (config[side]["module_dict"] for side in ("encoder", "decoder"))
    _check(encoder, decoder)
    shared = {"n_tokens": encoder["enc_register_module"]["n_max"], "dim": len(fsq["levels"])}
    time_scale = 1000 / decoder["dec_time_embedder"]["max_timestep"]
    dropout = decoder["dec_nested_dropout"]["size_sampling_mode"]
    if dropout not in DROPOUTS:
        raise ConfigError(f"flextok: size_sampling_mode must be one of {', '.join(DROPOUTS)}, got {dropout!r}")
    return {
        "_target_": "codeczoo.image.flextok.FlexTok",
        "vae": kl_vae.original_tree({
            **config.get("vae_overrides_of_VAE_BASE_CFG", {}),
            "latent_channels": vae["latent_channels"],
            "scaling_factor": vae["scaling_factor"],
        }),
        "encoder": {
            "_target_": f"{BACKBONE}.RegisterEncoder",
            **_size(encoder["enc_patch_emb"], encoder["enc_posemb_module"], encoder["enc_transformer"]),
            **shared,
        },
        "quantizer": {"_target_": "codeczoo.quantizers.fsq.FSQ", "levels": list(fsq["levels"])},
        "decoder": {
            "_target_": f"{BACKBONE}.FlowDecoder",
            **_size(decoder["dec_noise_patch_emb"], decoder["dec_patches_posemb_module"], decoder["dec_transformer"]),
            **shared,
            "time_scale": time_scale,
        },
        "times": {"_target_": "codeczoo.nn.flow.LogitNormalTimes"}
        if times["ln"]
        else {"_target_": "codeczoo.nn.flow.ModeTimes", "scale": times["mode_scale"]},
        "dropout": {"_target_": f"codeczoo.quantizers.dropout.{DROPOUTS[dropout]}"},
        "untold": decoder["dec_latent_dropout"]["dropout_prob"],
    }


def _size(patches: Mapping[str, Any], positions: Mapping[str, Any], transformer: Mapping[str, Any]) -> dict[str, int]:
    """Arguments of a backbone out of three of its nodes."""
    return {
        "channels": patches["channels_in"],
        "side": positions["max_sizes"][0],
        "patch": patches["patch_sizes"][0],
        "width": transformer["dim"],
        "depth": transformer["depth"],
        "heads": transformer["dim"] // transformer["head_dim"],
    }


def _check(encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> None:
    """Raises ConfigError for a choice that this codec does not have."""
    nodes = {**encoder, **decoder}
    for node, field, wanted in (
        ("enc_seq_packer", "mask_mode", "causal_last"),
        ("dec_seq_packer", "mask_mode", "full"),
        ("enc_posemb_module", "posemb_type", "sincos"),
        ("dec_patches_posemb_module", "posemb_type", "sincos"),
        ("dec_registers_posemb_module", "posemb_type", "learnable_sum"),
        ("dec_transformer", "adaLN_expansion", 2),
        ("enc_to_latents", "use_mup_readout", False),
        ("dec_to_patches", "use_mup_readout", False),
    ):
        found = nodes[node].get(field, wanted)
        if found != wanted:
            raise ConfigError(f"flextok: {node}.{field} must be {wanted!r}, got {found!r}")
    for node, field in (
        ("enc_patch_emb", "patch_sizes"), ("dec_noise_patch_emb", "patch_sizes"),
        ("enc_posemb_module", "max_sizes"), ("dec_patches_posemb_module", "max_sizes"),
    ):
        if len({*nodes[node][field]}) != 1:
            raise ConfigError(f"flextok: {node}.{field} must be of a square, got {list(nodes[node][field])}")
