"""TiTok: an image as a short one-dimensional sequence of tokens.

Source: "An Image is Worth 32 Tokens for Reconstruction and Generation" (arXiv 2406.07550),
github.com/bytedance/1d-tokenizer (Apache-2.0).
Differs: no code of theirs; the published two-stage models' token-scrambling reshape is off unless asked for.
"""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from codeczoo.backbones.maskgit_cnn import CNNDecoder
from codeczoo.backbones.vit1d import Decoder1D, Encoder1D
from codeczoo.core.base import Codec, Quantizer
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Reconstruction, StreamSpec, Tokens, TokenSpec
from codeczoo.image import maskgit_vqgan
from codeczoo.quantizers.dropout import kept

MODULE = "codeczoo.image.titok"
SIZES = {  # width, depth, heads of the authors' named sizes
    "small": (512, 8, 8),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}


class PixelHead(nn.Module):
    """Features straight to pixels: one patch a feature, then a 3x3 convolution (the one-stage models).

    Args:
        width: feature channels.
        patch: side of a patch, pixels.
    """

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.fc1 = nn.Linear(width, 3 * patch**2)
        self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, features: Tensor, pixels: bool = True) -> tuple[Tensor | None, Tensor | None]:
        """features (B, width, h, w) to x_hat (B, 3, h*patch, w*patch), not clamped, and no logits."""
        y = self.fc1(features.permute(0, 2, 3, 1))  # (B, h, w, p*p*3)
        y = rearrange(y, "b h w (p q c) -> b c (h p) (w q)", p=self.patch, q=self.patch)
        return self.conv_out(y), None

    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        return self.conv_out.weight


class CodebookHead(nn.Module):
    """Features to logits over the codes of a MaskGIT-VQGAN, whose decoder paints them (the two-stage models).

    Pixels come from the expected code, softmax(logits) @ codebook, so gradients pass.

    Args:
        width: feature channels.
        vocab_size: V, entries of the pixel model's codebook.
        decoder: the pixel model's decoder.
    """

    def __init__(self, width: int, vocab_size: int, decoder: CNNDecoder) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, vocab_size)
        self.codebook = nn.Parameter(torch.empty(vocab_size, decoder.dim).uniform_(-1 / vocab_size, 1 / vocab_size))
        self.decoder = decoder

    def logits(self, features: Tensor) -> Tensor:
        """features (B, width, h, w) to logits (B, V, h, w)."""
        y = self.fc2(self.fc1(features.permute(0, 2, 3, 1)).tanh())  # (B, h, w, V)
        return y.permute(0, 3, 1, 2)

    def forward(self, features: Tensor, pixels: bool = True) -> tuple[Tensor | None, Tensor | None]:
        """features (B, width, h, w) to x_hat (B, 3, H, W) or None without `pixels`, and logits (B, V, h, w)."""
        logits = self.logits(features)
        if not pixels:
            return None, logits
        expected = logits.permute(0, 2, 3, 1).softmax(-1) @ self.codebook  # (B, h, w, D)
        return self.decoder(expected.permute(0, 3, 1, 2)), logits

    def last_layer(self) -> Tensor:
        """Weight of the pixel decoder's last convolution."""
        return self.decoder.conv_out.weight


class TiTok(Codec):
    """Encoder1D, a quantizer, Decoder1D and a head.

    Args:
        encoder: image to latents.
        quantizer: of the latents; its dim is the encoder's.
        decoder: latents to a grid of features.
        head: features to pixels: PixelHead or CodebookHead.
    """

    def __init__(
        self, encoder: Encoder1D, quantizer: Quantizer, decoder: Decoder1D, head: PixelHead | CodebookHead
    ) -> None:
        super().__init__()
        if (encoder.image_size, encoder.n_tokens) != (decoder.image_size, decoder.n_tokens):
            raise ConfigError("encoder and decoder must agree in image_size and n_tokens")
        self.encoder, self.quantizer, self.decoder, self.head = encoder, quantizer, decoder, head
        size, n = encoder.image_size, encoder.n_tokens
        stream = StreamSpec(quantizer.vocab_sizes, ("position",), (n,), rate=n)
        self.spec = TokenSpec("image", "image", (stream,), quantizer.prefixes, input_size=(size, size))

    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None, n_streams: int | None = None
    ) -> Tokens:
        """x (B, 3, H, W) in [0, 1] of the codec's size to codes (B, K, N), or a prefix where the codec has one."""
        self.check_media(x)
        codes = self.quantizer.encode(self.encoder(x))
        return self.tokens([codes], x).prefix(n_positions, n_codebooks, n_streams)

    def decode(self, tokens: Tokens) -> Tensor:
        """Codes (B, K, n) to x_hat (B, 3, H, W) in [0, 1]."""
        return self.render(*self.latents(tokens)).clamp(0, 1)

    def latents(self, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """The quantized latents (B, D, n), and where they are valid (B, n); None when everywhere."""
        codes = tokens.check_range().codes
        full = self.spec.streams[0].shape[0]
        if codes.shape[2] != full and "positions" not in self.spec.prefixes:
            raise InputError(f"{type(self).__name__} decodes all {full} positions, got {codes.shape[2]}")
        lengths = tokens.stream_lengths()
        longest = int(lengths.max())
        z = self.quantizer.decode(codes[:, :, :longest])
        if bool((lengths == longest).all()):
            return z, None
        return z, kept(lengths, longest)  # (B, n)

    def render(self, z: Tensor, valid: Tensor | None = None) -> Tensor:
        """Quantized latents (B, D, n) to x_hat (B, 3, H, W), not clamped."""
        x_hat, _ = self.head(self.decoder(z, valid))
        assert x_hat is not None
        return x_hat

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        """One training pass; logits where the head has them."""
        self.check_media(x)
        q = self.quantizer(self.encoder(x))
        x_hat, logits = self.head(self.decoder(*self.thin(q.z)), pixels)
        return Reconstruction(self.tokens([q.codes], x), x_hat, q.losses, logits=logits)

    def thin(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the decoder gets of the latents (B, D, N) in training, and what it sees of that; here all of them."""
        return z, None

    def last_layer(self) -> Tensor:
        """The head's last weight."""
        return self.head.last_layer()


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"^latent_tokens$", "encoder.latent_tokens"),
    (r"latent_token_positional_embedding", "latent_positional_embedding"),
    (r"\.ln_pre\.", ".transformer.norm_in."),
    (r"\.ln_post\.", ".transformer.norm_out."),
    (r"\.transformer\.(\d+)\.", r".transformer.blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attention.qkv."),
    (r"\.attn\.out_proj\.", ".attention.out."),
    (r"\.mlp\.c_fc\.", ".fc1."),
    (r"\.mlp\.c_proj\.", ".fc2."),
    (r"^encoder\.conv_out\.", "encoder.project."),
    (r"^decoder\.decoder_embed\.", "decoder.embed."),
    (r"^decoder\.ffn\.0\.", "head.fc1."),
    (r"^decoder\.ffn\.2\.", "head.fc2."),
    (r"^decoder\.conv_out\.", "head.conv_out."),
    (r"^quantize\.embedding\.weight$", "quantizer.codebook"),
    (r"^pixel_quantize\.embedding\.weight$", "head.codebook"),
    (r"^pixel_decoder\.", "head.decoder."),
    *maskgit_vqgan.RENAMES,
)
UNUSED = (r"^quantize\.embed_prob$",)  # a running statistic of training


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' `config.json` describes. Raises ConfigError."""
    model = config["model"]["vq_model"]
    if model.get("quantize_mode", "vq") != "vq":
        raise ConfigError(f"quantize_mode {model['quantize_mode']!r} is a continuous autoencoder, not a tokenizer: vq")
    legacy = model.get("is_legacy", True)
    if legacy and not model.get("finetune_decoder", True):
        raise ConfigError("a stage-1 checkpoint (finetune_decoder false) has no pixels: take the stage-2 checkpoint")
    shared = {
        "image_size": config["dataset"]["preprocessing"]["crop_size"],
        "n_tokens": model["num_latent_tokens"],
        "dim": model["token_size"],
    }
    encoder = shared | {"patch": model["vit_enc_patch_size"], **_size(config, "encoder", model["vit_enc_model_size"])}
    decoder = shared | {"patch": model["vit_dec_patch_size"], **_size(config, "decoder", model["vit_dec_model_size"])}
    quantizer = "CosineVQ" if model.get("use_l2_norm", False) else "VQ"
    head: dict[str, Any] = {"_target_": f"{MODULE}.PixelHead", "width": decoder["width"], "patch": decoder["patch"]}
    if legacy:
        head = {
            "_target_": f"{MODULE}.CodebookHead",
            "width": decoder["width"],
            "vocab_size": model.get("pixel_codebook_size", 1024),
            "decoder": maskgit_vqgan.cnn_tree("CNNDecoder", model.get("pixel_vqgan", maskgit_vqgan.PUBLISHED)),
        }
    return {
        "_target_": f"{MODULE}.TiTok",
        "encoder": {"_target_": "codeczoo.backbones.vit1d.Encoder1D", **encoder, "scrambled_reshape_bug": legacy},
        "quantizer": {
            "_target_": f"codeczoo.quantizers.vq.{quantizer}",
            "vocab_size": model["codebook_size"],
            "dim": model["token_size"],
        },
        "decoder": {"_target_": "codeczoo.backbones.vit1d.Decoder1D", **decoder},
        "head": head,
    }


def _size(config: Mapping[str, Any], side: str, name: str) -> dict[str, int]:
    """Width, depth and heads of a named size; parity fixtures spell out their own under "parity"."""
    if name in SIZES:
        return dict(zip(("width", "depth", "heads"), SIZES[name], strict=True))
    own = config.get("parity", {}).get(side)
    if own is None:
        raise ConfigError(f"unknown {side} size {name!r}; allowed: {', '.join(SIZES)}")
    return {"width": own["width"], "depth": own["num_layers"], "heads": own["num_heads"]}
