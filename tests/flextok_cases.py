"""A tiny FlexTok for tests."""

from typing import Any

import torch

import codeczoo

CHANNELS, SIDE, N, WIDTH = 4, 3, 16, 32


def vae_tree() -> dict[str, Any]:
    """A KL autoencoder of stride 4."""
    shared = {"patch": 1, "width": 8, "multipliers": [1, 1, 2], "n_blocks": 1, "n_resize": 2, "groups": 4}
    backbone = "codeczoo.backbones.cosmos2d"
    return {
        "_target_": "codeczoo.image.kl_vae.KLVAE",
        "encoder": {"_target_": f"{backbone}.Encoder", **shared, "hidden": 2 * CHANNELS, "dim": 2 * CHANNELS},
        "decoder": {"_target_": f"{backbone}.Decoder", **shared, "hidden": CHANNELS, "dim": CHANNELS},
    }


def flextok_tree(**more: Any) -> dict[str, Any]:
    """16 tokens of 24 px pictures."""
    size = {"channels": CHANNELS, "side": SIDE, "patch": 2, "width": WIDTH, "heads": 2, "n_tokens": N, "dim": 4}
    backbone = "codeczoo.backbones.flextok"
    return {
        "_target_": "codeczoo.image.flextok.FlexTok",
        "vae": vae_tree(),
        "encoder": {"_target_": f"{backbone}.RegisterEncoder", **size, "depth": 2},
        "quantizer": {"_target_": "codeczoo.quantizers.fsq.FSQ", "levels": [8, 5, 5, 5]},
        "decoder": {"_target_": f"{backbone}.FlowDecoder", **size, "depth": 3},
        "sampling": {"_target_": "codeczoo.core.types.Sampling", "steps": 3, "guidance": 2.0},
        **more,
    }


def build(seed: int = 0, **more: Any) -> Any:
    """One whose every tensor matters: nothing begins with zeros."""
    torch.manual_seed(seed)
    codec = codeczoo.build(flextok_tree(**more)).eval()
    for name, p in codec.named_parameters():
        if not name.startswith("vae."):
            torch.nn.init.normal_(p, std=0.15)
    return codec
