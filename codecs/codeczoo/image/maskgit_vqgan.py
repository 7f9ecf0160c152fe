"""MaskGIT's VQGAN: a 16x16 grid of 1024 codes for a 256 px image; the pixel model of two-stage TiTok.

Source: MaskGIT (arXiv 2202.04200), github.com/bytedance/1d-tokenizer modeling/modules/maskgit_vqgan.py (Apache-2.0).
Differs: any size (padded by repeating the edge to a multiple of the stride, trimmed back); the published weights' lost
shortcut is off unless asked for.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from codeczoo.backbones.maskgit_cnn import CNNDecoder, CNNEncoder
from codeczoo.core.base import Codec, Quantizer
from codeczoo.core.types import Reconstruction, StreamSpec, Tokens, TokenSpec


class MaskGITVQGAN(Codec):
    """CNNEncoder, a quantizer, CNNDecoder.

    Args:
        encoder: image to a grid of latents.
        quantizer: of the latents.
        decoder: grid of latents to image.
    """

    def __init__(self, encoder: CNNEncoder, quantizer: Quantizer, decoder: CNNDecoder) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        stream = StreamSpec(quantizer.vocab_sizes, ("row", "column"), (None, None), rate=encoder.stride**-2)
        self.spec = TokenSpec("image", "pixel", (stream,))

    def pad(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) with its last row and column repeated up to multiples of the stride."""
        bottom, right = (-side % self.encoder.stride for side in x.shape[2:])
        return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x

    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None, n_streams: int | None = None
    ) -> Tokens:
        """x (B, 3, H, W) in [0, 1] to codes (B, K, ceil(H/stride), ceil(W/stride))."""
        self.check_media(x)
        codes = self.quantizer.encode(self.encoder(self.pad(x)))
        return self.tokens([codes], x).prefix(n_positions, n_codebooks, n_streams)

    def decode(self, tokens: Tokens) -> Tensor:
        """Codes (B, K, h, w) to x_hat (B, 3, H, W) in [0, 1], trimmed to the largest size of the batch."""
        height, width = tokens.size.amax(0).tolist()
        x_hat = self.render(self.quantizer.decode(tokens.check_range().codes))
        return x_hat[:, :, :height, :width].clamp(0, 1)

    def render(self, z: Tensor) -> Tensor:
        """Quantized latents (B, D, h, w) to x_hat, not clamped."""
        return self.decoder(z)

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        """One training pass."""
        self.check_media(x)
        q = self.quantizer(self.encoder(self.pad(x)))
        x_hat = self.render(q.z)[:, :, : x.shape[2], : x.shape[3]] if pixels else None
        return Reconstruction(self.tokens([q.codes], x), x_hat, q.losses)

    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution."""
        return self.decoder.conv_out.weight


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"\bencoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.levels.\1.\2."),
    (r"\bdecoder\.up\.(\d+)\.block\.(\d+)\.", r"decoder.levels.\1.blocks.\2."),
    (r"\bdecoder\.up\.(\d+)\.upsample_conv\.", r"decoder.levels.\1.upsample."),
    (r"\b(encoder|decoder)\.mid\.", r"\1.middle."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"^quantize\.embedding\.weight$", "quantizer.codebook"),
)
UNUSED = ()
PUBLISHED = {"hidden_channels": 128, "channel_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "z_channels": 256}


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that a config with the original's field names describes."""
    return {
        "_target_": "codeczoo.image.maskgit_vqgan.MaskGITVQGAN",
        "encoder": cnn_tree("CNNEncoder", config),
        "quantizer": {
            "_target_": "codeczoo.quantizers.vq.VQ",
            "vocab_size": config.get("num_embeddings", 1024),
            "dim": config["z_channels"],
        },
        "decoder": cnn_tree("CNNDecoder", config),
    }


def cnn_tree(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of one half of the network, with the published model's lost shortcut."""
    return {
        "_target_": f"codeczoo.backbones.maskgit_cnn.{name}",
        "hidden": config["hidden_channels"],
        "multipliers": list(config["channel_mult"]),
        "n_blocks": config["num_res_blocks"],
        "dim": config["z_channels"],
        "lost_shortcut_bug": True,
    }
