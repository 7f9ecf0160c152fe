"""What the authors' configurations of Cosmos image and video tokenizers have in common."""

from collections.abc import Mapping
from typing import Any

from codeczoo.core.errors import ConfigError

# Tables of the Haar bands and of FSQ's levels, which TorchScript archives hold as well; the configuration tells both.
UNUSED = (r"\b(un)?patcher(3d)?\.", r"^(quantizer|inv_quant)\.")
PUBLISHED = {
    "attn_resolutions": [32], "channels": 128, "channels_mult": [2, 4, 4], "num_res_blocks": 2, "resolution": 1024,
    "patch_size": 4, "patch_method": "haar", "z_factor": 1, "quantizer": "FSQ", "embedding_dim": 6,
    "levels": [8, 8, 8, 5, 5, 5],
}  # fmt: skip


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


def check_name(config: Mapping[str, Any], known: str) -> None:
    """Raises ConfigError unless a configuration that has a name is of the `known` kind of tokenizer."""
    name = config.get("name", known)
    if name != known:
        raise ConfigError(f"name {name!r}: wanted {known!r} (CI and CV are continuous autoencoders, not tokenizers)")


def halvings(config: Mapping[str, Any], key: str) -> int:
    """How often the network halves what `key` compresses, behind the patches. Raises ConfigError."""
    total, patch, most = config[key], config["patch_size"], len(config["channels_mult"])
    times = total.bit_length() - patch.bit_length()
    if not 0 <= times <= most or total != patch * 2**times:
        raise ConfigError(f"{key} must be patch_size {patch} times 2, up to {most} times, got {total}")
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
