"""Cosmos discrete video tokenizers DV4x8x8, DV8x8x8 and DV8x16x16: one code of 64000 entries a patch of space and time.

Source: Cosmos (arXiv 2501.03575), github.com/NVIDIA/Cosmos-Tokenizer (Apache-2.0). The weights are under NVIDIA's Open
Model License; how they were trained was never released.
Differs: one rule of time for every clip (see video/codec.py), where the original cuts clips into 17 frames that know
nothing of each other; streams; padded batches; any frame size; codes in float32 where the original's are in bfloat16.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from codeczoo.backbones import cosmos
from codeczoo.core.errors import ConfigError
from codeczoo.video.codec import VideoCodec


class CosmosDV(VideoCodec):
    """Encoder, quantizer, decoder. Arguments: see VideoCodec."""


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"\.conv3d\.", "."),
    (r"\.norm\.norm\.", ".norm."),
    (r"\.(down\.(\d+)\.downsample\.conv1|up\.(\d+)\.upsample\.conv2)\.", r".levels.\2\3.resize.space.branches.1."),
    (r"\.(down\.(\d+)\.downsample\.conv2|up\.(\d+)\.upsample\.conv1)\.", r".levels.\2\3.resize.time.branches.1."),
    (r"\.(?:down|up)\.(\d+)\.(?:down|up)sample\.conv3\.", r".levels.\1.resize.mix."),
    (r"\.(norm[12]|conv[12])\.", r".branches.1.\1."),
    (r"\.nin_shortcut\.", ".branches.0."),
    (r"\.(?:down|up)\.(\d+)\.block\.(\d+)\.", r".levels.\1.blocks.\2.block."),
    (r"\.(?:down|up)\.(\d+)\.attn\.(\d+)\.", r".levels.\1.blocks.\2.attention."),
    (r"\.mid\.block_([12])\.", r".middle.block\1."),
    (r"\.mid\.attn_1\.", ".middle.attention."),
    (r"\.proj_out\.", ".out."),
    (r"^quant_conv\.", "encoder.project."),
    (r"^post_quant_conv\.", "decoder.project."),
)
UNUSED = cosmos.UNUSED
PUBLISHED = cosmos.PUBLISHED | {
    "z_channels": 16, "legacy_mode": False, "encoder": "FACTORIZED", "decoder": "FACTORIZED"
}  # fmt: skip
PART = re.compile(r"(encoder|decoder)\.(?:down|up)\.(\d+)\.(?:down|up)sample\.conv([123])\.")


def original_state(state: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' tensors less those of changes of size that never run; kernels of one step lose that axis."""
    runs, config = set(), {**PUBLISHED, **config}
    for side, places in _resized(config).items():
        for axis, levels in zip(("space", "time"), places, strict=True):
            number = "1" if (side, axis) in (("encoder", "space"), ("decoder", "time")) else "2"
            for level in levels:
                place = str(level + (side == "decoder"))  # the decoder's are at the smaller level
                runs |= {(side, place, number), (side, place, "3")}
    kept = {}
    for key, value in state.items():
        part = PART.match(key)
        if part is None or part.groups() in runs:
            kept[key] = value.squeeze(2) if value.ndim == 5 and value.shape[2] == 1 else value
    return kept


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the arguments of the authors' tokenizer describe. Raises ConfigError.

    Only `temporal_compression` and `spatial_compression` must be there, e.g. 8 and 16 for DV8x16x16; others are as
    published.
    """
    config = {**PUBLISHED, **config}
    cosmos.check_name(config, "DV")
    for part in ("encoder", "decoder"):
        if config[part] != "FACTORIZED":
            raise ConfigError(f"{part} {config[part]!r}: only FACTORIZED is known, which all published tokenizers have")
    places, attending = _resized(config), cosmos.attending(config, len(config["channels_mult"]) - 1)
    hidden = {"encoder": config["z_factor"] * config["z_channels"], "decoder": config["z_channels"]}
    halves = {
        side: {
            "_target_": f"codeczoo.backbones.cosmos3d.{side.capitalize()}",
            **cosmos.shared_arguments(config),
            "hidden": hidden[side],
            "space_levels": places[side][0],
            "time_levels": places[side][1],
            "attention_levels": own,
        }
        for side, own in zip(("encoder", "decoder"), attending, strict=True)
    }
    return {"_target_": "codeczoo.video.cosmos_dv.CosmosDV", **halves, "quantizer": cosmos.quantizer_tree(config)}


def _resized(config: Mapping[str, Any]) -> dict[str, tuple[list[int], list[int]]]:
    """For either half the places where space and time change: i is between levels i and i + 1, level 0 the largest.

    The decoder's are the encoder's from the other end, those of time one further; in `legacy_mode` they are not.
    """
    space, time = (cosmos.halvings(config, f"{kind}_compression") for kind in ("spatial", "temporal"))
    places = range(len(config["channels_mult"]) - 1)
    late = 0 if config["legacy_mode"] else 1
    longer = [len(places) - 1 - n for n in range(late, time + late)]
    larger = [len(places) - 1 - n for n in range(space)] if space > time else []
    return {
        "encoder": (list(places)[:space], list(places)[:time]),
        "decoder": (sorted({*longer, *larger} & {*places}), sorted({*longer} & {*places})),
    }
