"""MaskGIT's VQGAN: a 16x16 grid of 1024 codes for a 256 px image; the pixel model of two-stage TiTok.

Source: MaskGIT (arXiv 2202.04200), github.com/bytedance/1d-tokenizer modeling/modules/maskgit_vqgan.py (Apache-2.0).
Differs: any size (padded by repeating the edge to a multiple of the stride, trimmed back); the published weights' lost
shortcut is off unless asked for.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from codeczoo.backbones.maskgit_cnn import CNNDecoder, CNNEncoder
from codeczoo.core.base import Quantizer
from codeczoo.image.grid import GridCodec


class MaskGITVQGAN(GridCodec):
    """CNNEncoder, a quantizer, CNNDecoder.

    Args:
        encoder: image to a grid of latents.
        quantizer: of the latents.
        decoder: grid of latents to image.
    """

    decoder: CNNDecoder

    def __init__(self, encoder: CNNEncoder, quantizer: Quantizer, decoder: CNNDecoder) -> None:
        super().__init__(encoder, quantizer, decoder, encoder.stride, (encoder.dim, decoder.dim))

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
