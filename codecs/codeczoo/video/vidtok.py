"""VidTok: a causal encoder and decoder of convolutions around finite scalar quantization, versions 1.0 and 1.1.

Source: VidTok (arXiv 2412.13061), github.com/microsoft/VidTok (MIT).
Differs: one rule of time for every clip (see video/codec.py). The original puts copies of the first frame in front, as
many as make T a multiple of f: the same where T = 1 + f n; elsewhere its latent 0 is not the first frame alone.
Streams; padded batches; any frame size; no entropy term over all codes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from codeczoo.core.errors import ConfigError
from codeczoo.video.codec import VideoCodec


class VidTok(VideoCodec):
    """Encoder, quantizer, decoder. Arguments: see VideoCodec."""


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"\.(?:conv|norm)\.(weight|bias)$", r".\1"),
    (r"\.norm(1|2|_out)\.", r".norm\1.norm."),
    (r"\.(norm[12]|conv[12])\.", r".branches.1.\1."),
    (r"\.nin_shortcut\.", ".branches.0."),
    (r"\.(?:down|up)\.(\d+)\.block\.(\d+)\.", r".levels.\1.blocks.\2.frame."),
    (r"\.(?:down|up)_temporal\.(\d+)\.block\.(\d+)\.", r".levels.\1.blocks.\2.time."),
    (r"\.(?:down|up)\.(\d+)\.(?:down|up)sample\.", r".levels.\1.frame."),
    (r"\.(?:down|up)_temporal\.(\d+)\.(?:down|up)sample\.(?:conv\.)?", r".levels.\1.time."),
    (r"\.time\.mix_factor$", ".time.mix"),
    (r"\.mid\.block_([12])\.", r".middle.block\1."),
    (r"\.mid\.attn_1\.", ".middle.attention."),
    (r"\.attention\.proj_out\.", ".attention.out."),
)
UNUSED = (r"^loss\.",)  # LPIPS and the discriminator


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' YAML, or its `model.params`, describes. Raises ConfigError."""
    parts = config.get("model", {}).get("params", config)
    for part, wanted in (("encoder", "Causal3DPadding"), ("decoder", "Causal3DPadding"), ("regularizer", "FSQ")):
        kind = parts[f"{part}_config"]["target"]
        if wanted not in kind:
            raise ConfigError(f"{kind} is none of VidTok's causal FSQ tokenizers: its {part} is a {wanted}...")
    encoder, decoder = parts["encoder_config"]["params"], parts["decoder_config"]["params"]
    decoder = encoder if isinstance(decoder, str) else decoder  # the YAML files refer to it by its place
    later = "v1_1" in parts["encoder_config"]["target"]
    blends = later and decoder.get("interpolation_mode") == "trilinear"
    smallest = len(encoder["ch_mult"]) - 1
    halved = encoder.get("tempo_ds") or (smallest - 2, smallest - 1)
    doubled = [level - 1 for level in decoder.get("tempo_us") or (1, 2)]
    return {
        "_target_": "codeczoo.video.vidtok.VidTok",
        "encoder": _half("Encoder", encoder, later, encoder["num_res_blocks"], halved),
        "quantizer": {
            "_target_": "codeczoo.quantizers.fsq.FSQ",
            "levels": list(parts["regularizer_config"]["params"]["levels"]),
        },
        "decoder": _half("Decoder", decoder, later, decoder["num_res_blocks"] + 1, doubled)
        | {"up": "blend" if blends else "repeat"},
    }


def _half(name: str, own: Mapping[str, Any], later: bool, blocks: int, time_levels: Iterable[int]) -> dict[str, Any]:
    return {
        "_target_": f"codeczoo.backbones.causal3d.{name}",
        "dim": own["z_channels"],
        "width": own["ch"],
        "multipliers": list(own["ch_mult"]),
        "blocks": blocks,
        "time_levels": sorted(time_levels),
        "norm": {"layernorm": "position", "groupnorm": "frame"}[own.get("norm_type", "groupnorm")],
        "pad": "replicate" if later else "constant",
    }
