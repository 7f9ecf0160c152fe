"""EnCodec: SEANet around residual vector quantization; causal at 24 kHz, in stereo windows at 48 kHz; AudioCraft's too.

Source: "High Fidelity Neural Audio Compression" (arXiv 2210.13438), github.com/facebookresearch/encodec (MIT) and
github.com/facebookresearch/audiocraft (MIT); layouts of Hugging Face transformers.
Differs: streams; padded batches; correct gradients of the residual quantizer. A bandwidth is a number of codebooks here
(`n_codebooks`; the command `encode --kbps` works it out).
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from torch import Tensor

from codeczoo.audio.waveform import WaveformCodec
from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.originals import within


class EnCodec(WaveformCodec):
    """SEANet encoder, residual quantizer, SEANet decoder. Arguments: see WaveformCodec."""


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

# Places of layers in SEANet, of both the authors' layout and that of transformers.
SEANET_RENAMES = (
    (r"\b(encoder|decoder)\.(?:model|layers)\.", r"\1."),
    (r"\.(?:conv|convtr)\.(?=(?:conv|convtr|norm)\.)", "."),
    (r"\.(?:conv|convtr)\.(?=weight|bias|parametrizations)", "."),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    (r"\.shortcut\.", ".branches.0."),
    (r"\.block\.(\d)\.", r".branches.1.\1."),
)
RENAMES = SEANET_RENAMES
UNUSED = ()


def original_state(state: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' tensors with those of the quantizer as ours."""
    return within("encodec", state)


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' arguments or a transformers `config.json` describe."""
    own = _from_transformers(config) if config.get("model_type") == "encodec" else config
    seanet, quantizer, rate = own["seanet"], own["quant"], own["sample_rate"]
    shared = seanet_tree(seanet)
    tree: dict[str, Any] = {
        "_target_": "codeczoo.audio.encodec.EnCodec",
        "encoder": {"_target_": "codeczoo.backbones.seanet.Encoder", **shared},
        "quantizer": residual_tree(quantizer["n_q"], quantizer["bins"], quantizer["dimension"]),
        "decoder": {"_target_": "codeczoo.backbones.seanet.Decoder", **shared},
        "sample_rate": rate,
    }
    segment, normalize = own.get("segment"), bool(own.get("normalize"))
    if (segment is not None) != normalize:
        raise ConfigError(f"normalize {normalize} with segment {segment} is none of EnCodec's; both or neither are")
    if segment is None:
        return tree
    window = int(segment * rate)
    step = max(1, int((1 - own.get("overlap", 0.01)) * window))
    return tree | {"_target_": "codeczoo.audio.windowed.WindowedCodec", "window": window, "step": step}


def seanet_tree(seanet: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of both halves, from those of the authors' SEANet."""
    return {
        "channels": seanet["channels"],
        "dim": seanet["dimension"],
        "width": seanet["n_filters"],
        "ratios": list(seanet["ratios"]),
        "norm": seanet["norm"],
        "causal": seanet["causal"],
        "pad": seanet.get("pad_mode", "reflect"),
        "shortcut": "identity" if seanet["true_skip"] else "conv",
        "blocks": seanet["n_residual_layers"],
        "lstm": seanet["lstm"],
        "last_kernel": seanet["last_kernel_size"],
    }


def residual_tree(layers: int, vocab_size: int, dim: int) -> dict[str, Any]:
    """Configuration tree of a residual quantizer with codebooks of moving averages."""
    layer = {"_repeat_": layers, "_target_": "codeczoo.quantizers.vq.EMAVQ", "vocab_size": vocab_size, "dim": dim}
    return {"_target_": "codeczoo.quantizers.residual.Residual", "layers": layer}


def _from_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    rate, hop = config["sampling_rate"], prod(config["upsampling_ratios"])
    bits = (config["codebook_size"] - 1).bit_length()
    seanet = {
        "channels": config["audio_channels"],
        "dimension": config["hidden_size"],
        "n_filters": config["num_filters"],
        "ratios": config["upsampling_ratios"],
        "norm": config["norm_type"],
        "causal": config["use_causal_conv"],
        "pad_mode": config["pad_mode"],
        "true_skip": not config["use_conv_shortcut"],
        "n_residual_layers": config["num_residual_layers"],
        "lstm": config["num_lstm_layers"],
        "last_kernel_size": config["last_kernel_size"],
    }
    layers = int(1000 * config["target_bandwidths"][-1] // (-(-rate // hop) * bits))
    return {
        "seanet": seanet,
        "quant": {"n_q": layers, "bins": config["codebook_size"], "dimension": config["hidden_size"]},
        "sample_rate": rate,
        "normalize": config["normalize"],
        "segment": config["chunk_length_s"],
        "overlap": config["overlap"],
    }
