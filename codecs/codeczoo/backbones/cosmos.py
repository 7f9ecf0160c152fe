"""What the authors' configurations of Cosmos image and video tokenizers have in common."""

from collections.abc import Mapping
from typing import Any

from codeczoo.core.errors import ConfigError

# Tables of the Haar bands and of FSQ's levels, which TorchScript archives hold as well; the configuration tells both.
UNUSED = (r"\b(un)?patcher(3d)?\.", r"^(quantizer|inv_quant)\.")
RENAMES = (
    (r"\b(?:down|up)\.(\d+)\.block\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\b(?:down|up)\.(\d+)\.attn\.(\d+)\.", r"stages.\1.attentions.\2."),
    (r"\b(?:down|up)\.(\d+)\.(?:down|up)sample\.", r"stages.\1.resize."),
    (r"\.mid\.block_1\.", ".middle.0."),
    (r"\.mid\.attn_1\.", ".middle.1."),
    (r"\.mid\.block_2\.", ".middle.2."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.proj_out\.", ".out."),
    (r"^quant_conv\.", "encoder.project."),
    (r"^post_quant_conv\.", "decoder.project."),
)


def quantizer_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the quantizer. Raises ConfigError for models that are not FSQ between Haar wavelets."""
    for key, known in (("quantizer", "FSQ"), ("patch_method", "haar")):
        if config[key] != known:
            raise ConfigError(f"{key} {config[key]!r}: only {known!r} is known, which all published tokenizers have")
    if len(config["levels"]) != config["embedding_dim"]:
        raise ConfigError(f"levels {config['levels']} do not fit embedding_dim {config['embedding_dim']}")
    return {"_target_": "codeczoo.quantizers.fsq.FSQ", "levels": list(config["levels"])}


def shared_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that encoder and decoder have in common."""
    return {
        "patch": config["patch_size"],
        "width": config["channels"],
        "multipliers": list(config["channels_mult"]),
        "n_blocks": config["num_res_blocks"],
        "dim": config["embedding_dim"],
    }


def halvings(config: Mapping[str, Any], key: str) -> int:
    """How often the network halves what `key` compresses, behind the patches. Raises ConfigError."""
    total, patch = config[key], config["patch_size"]
    times = total.bit_length() - patch.bit_length()
    if times < 0 or total != patch * 2**times:
        raise ConfigError(f"{key} must be patch_size {patch} times a power of 2, got {total}")
    return times


def attending(config: Mapping[str, Any], n_halved: int) -> tuple[list[int], list[int]]:
    """Stages with attention of the encoder and of the decoder, by the size they are nominally for.

    The encoder's size is halved behind its first n_halved stages; the decoder's is the smallest, then doubled in front
    of each larger stage that the encoder's halving matches, as the original counts.
    """
    stages, size = len(config["channels_mult"]), config["resolution"] // config["patch_size"]
    down = [size // 2 ** min(i, n_halved) for i in range(stages)]
    up = [size // 2 ** (stages - 1) * 2 ** min(stages - 1 - i, n_halved) for i in range(stages)]
    wanted = config["attn_resolutions"]
    return [i for i in range(stages) if down[i] in wanted], [i for i in range(stages) if up[i] in wanted]
