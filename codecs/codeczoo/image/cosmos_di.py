"""Cosmos discrete image tokenizers DI8x8 and DI16x16: a grid of codes of 64000 entries, between Haar wavelets.

Source: Cosmos (arXiv 2501.03575), github.com/NVIDIA/Cosmos-Tokenizer (Apache-2.0). The weights are under NVIDIA's Open
Model License; how they were trained was never released.
Differs: any size (padded by repeating the edge to a multiple of the stride, trimmed back); codes in float32 where the
original's are in bfloat16.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from codeczoo.backbones import cosmos
from codeczoo.backbones.cosmos2d import Decoder, Encoder
from codeczoo.core.base import Quantizer
from codeczoo.image.grid import SignedGridCodec


class CosmosDI(SignedGridCodec):
    """Encoder, a quantizer, Decoder.

    Args:
        encoder: image to a grid of latents.
        quantizer: of the latents.
        decoder: grid of latents to image.
    """

    decoder: Decoder

    def __init__(self, encoder: Encoder, quantizer: Quantizer, decoder: Decoder) -> None:
        super().__init__(encoder, quantizer, decoder, encoder.stride, (encoder.dim, decoder.dim))

    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution."""
        return self.decoder.conv_out.weight


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"\.(?:down|up)\.(\d+)\.block\.(\d+)\.", r".stages.\1.blocks.\2."),
    (r"\.(?:down|up)\.(\d+)\.attn\.(\d+)\.", r".stages.\1.attentions.\2."),
    (r"\.(?:down|up)\.(\d+)\.(?:down|up)sample\.conv\.", r".stages.\1.resize."),
    (r"\.mid\.block_1\.", ".middle.0."),
    (r"\.mid\.attn_1\.", ".middle.1."),
    (r"\.mid\.block_2\.", ".middle.2."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.proj_out\.", ".out."),
    (r"^quant_conv\.", "encoder.project."),
    (r"^post_quant_conv\.", "decoder.project."),
)
UNUSED = cosmos.UNUSED
PUBLISHED = cosmos.PUBLISHED | {"z_channels": 256}


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the arguments of the authors' tokenizer describe. Raises ConfigError.

    Only `spatial_compression` must be there: 8 for DI8x8, 16 for DI16x16; others are as published.
    """
    config = {**PUBLISHED, **config}
    cosmos.check_name(config, "DI")
    n_resize = cosmos.halvings(config, "spatial_compression")
    down, up = cosmos.attending(config, n_resize)
    shared = cosmos.shared_arguments(config) | {"n_resize": n_resize}
    backbone, hidden = "codeczoo.backbones.cosmos2d", config["z_channels"]
    return {
        "_target_": "codeczoo.image.cosmos_di.CosmosDI",
        "encoder": {
            "_target_": f"{backbone}.Encoder", **shared, "hidden": config["z_factor"] * hidden, "attention": down
        },
        "quantizer": cosmos.quantizer_tree(config),
        "decoder": {"_target_": f"{backbone}.Decoder", **shared, "hidden": hidden, "attention": up},
    }
