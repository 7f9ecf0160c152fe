"""Mimi: a causal SEANet, transformers around a split quantizer; 24 kHz speech at 12.5 frames/s, streaming.

Source: Moshi (arXiv 2410.00037), github.com/kyutai-labs/moshi (MIT); layout of Hugging Face transformers.
Differs: streaming attends exactly as whole signals do, past the attention's context too.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from codeczoo.audio.encodec import SEANET_RENAMES, residual_tree, seanet_tree
from codeczoo.audio.waveform import WaveformCodec
from codeczoo.core.base import Quantizer
from codeczoo.nn.causal_transformer import CausalTransformer
from codeczoo.nn.conv1d import Conv1d, ConvTranspose1d, Padding
from codeczoo.nn.stream import Coder, Length
from codeczoo.quantizers.originals import within


class Encoder(Coder):
    """Waveform to latents: SEANet, a transformer, and a convolution that takes `stride` steps to one.

    Args:
        seanet: waveform to steps.
        transformer: over the steps.
        stride: steps a latent.
    """

    def __init__(self, seanet: Coder, transformer: CausalTransformer, stride: int = 2) -> None:
        padding = Padding.same(2 * stride, stride, causal=True, mode="replicate")
        down = Conv1d(seanet.dim, seanet.dim, 2 * stride, stride, padding=padding, bias=False)
        super().__init__([seanet, transformer, down])
        self.hop, self.dim, self.channels = seanet.hop * stride, seanet.dim, seanet.channels
        self.widest = seanet.widest


class Decoder(Coder):
    """Latents to waveform: each channel spread over `stride` steps, a transformer, SEANet. Arguments: see Encoder."""

    def __init__(self, seanet: Coder, transformer: CausalTransformer, stride: int = 2) -> None:
        dim = seanet.dim
        up = ConvTranspose1d(dim, dim, 2 * stride, stride, right=stride, groups=dim, bias=False)
        super().__init__([up, transformer, seanet])
        self.hop, self.dim, self.channels = seanet.hop * stride, dim, seanet.channels
        self.widest = seanet.widest


class Mimi(WaveformCodec):
    """Encoder, split quantizer (one semantic codebook, then acoustic ones), Decoder.

    Args:
        encoder, quantizer, decoder, sample_rate: see WaveformCodec.
        fill: fill up the last frame with zeros, as moshi does; else each convolution pads its own input, as in
            transformers. Only codes of a last frame that is not full differ.
    """

    def __init__(
        self, encoder: Coder, quantizer: Quantizer, decoder: Coder, sample_rate: int, fill: bool = True
    ) -> None:
        super().__init__(encoder, quantizer, decoder, sample_rate)
        self.fill = fill

    def whole(self, n: Length) -> Length:
        """Samples up to the end of the last frame, where it is filled up."""
        return -(-n // self.hop) * self.hop if self.fill else n


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"^(encoder|decoder)\.(?:model|layers|\1_seanet\.layers)\.", r"\1.seanet.layers."),
    (r"^(?:\w+\.)?(encoder|decoder)_transformer\.(?:transformer\.)?layers\.", r"\1.1.blocks."),
    (r"^(?:encoder\.)?downsample\.(?:conv\.)+", "encoder.2."),
    (r"^(?:decoder\.)?upsample\.(?:convtr\.|conv\.)+", "decoder.0."),
    (r"^encoder\.seanet\.", "encoder.0."),
    (r"^decoder\.seanet\.", "decoder.2."),
    (r"\.layers\.(?=\d+\.)(?=.*(?:conv|block|shortcut))", "."),
    *SEANET_RENAMES,
    (r"\.self_attn\.(?:in_proj_weight|in_projs\.0\.weight)$", ".attention.qkv.weight"),
    (r"\.self_attn\.(?:out_projs\.0|out_proj|o_proj)\.", ".attention.out."),
    (r"\.input_layernorm\.", ".norm1."),
    (r"\.post_attention_layernorm\.", ".norm2."),
    (r"\.(?:mlp\.fc|linear)([12])\.", r".fc\1."),
    (r"\.(?:layer_scale_1|self_attn_layer_scale)\.scale$", ".scale1"),
    (r"\.(?:layer_scale_2|mlp_layer_scale)\.scale$", ".scale2"),
)
UNUSED = ()


def original_state(state: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' tensors with those of the quantizer as ours, and transformers' queries, keys and values as one."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        part = re.fullmatch(r"(.*\.self_attn)\.([qkv])_proj\.weight", key)
        if part is None:
            joined[key] = value
        elif part[2] == "q":
            q, k, v = (state[f"{part[1]}.{name}_proj.weight"] for name in "qkv")
            heads = config["num_attention_heads"]
            joined[f"{part[1]}.in_proj_weight"] = torch.cat([_paired(q, heads), _paired(k, heads), v])
    return within("moshi", joined)


def _paired(weight: Tensor, heads: int) -> Tensor:
    """Rows (D, D'), from pairs that lie half a head apart to neighbouring pairs."""
    return rearrange(weight, "(h two d) i -> (h d two) i", h=heads, two=2)


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that moshi's arguments or a transformers `config.json` describe."""
    own = _from_transformers(config) if config.get("model_type") == "mimi" else config
    seanet, transformer, quantizer = seanet_tree(own["seanet"] | {"lstm": 0}), own["transformer"], own["quantizer"]
    stride = own["sample_rate"] / prod(seanet["ratios"]) / own["frame_rate"]
    shared = {
        "transformer": {
            "_target_": "codeczoo.nn.causal_transformer.CausalTransformer",
            "dim": transformer["d_model"],
            "depth": transformer["num_layers"],
            "heads": transformer["num_heads"],
            "hidden": transformer["dim_feedforward"],
            "context": transformer["context"],
            "scale": transformer["layer_scale"],
            "base": transformer["max_period"],
        },
        "stride": round(stride),
    }
    halves = [
        {
            "_target_": "codeczoo.quantizers.projected.Projected",
            "quantizer": residual_tree(n, quantizer["bins"], quantizer["dimension"]),
            "dim": quantizer["input_dimension"],
            "bias": False,
        }
        for n in (1, quantizer["n_q"] - 1)
    ]
    coder = "codeczoo.backbones.seanet"
    return {
        "_target_": "codeczoo.audio.mimi.Mimi",
        "encoder": {
            "_target_": "codeczoo.audio.mimi.Encoder", "seanet": {"_target_": f"{coder}.Encoder", **seanet}, **shared
        },
        "quantizer": {"_target_": "codeczoo.quantizers.split.Split", "parts": halves},
        "decoder": {
            "_target_": "codeczoo.audio.mimi.Decoder", "seanet": {"_target_": f"{coder}.Decoder", **seanet}, **shared
        },
        "sample_rate": own["sample_rate"],
        "fill": own is config,
    }  # fmt: skip


def _from_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    dim, rope = config["hidden_size"], config.get("rope_parameters") or config
    return {
        "sample_rate": config["sampling_rate"],
        "frame_rate": config.get("_frame_rate") or config.get("frame_rate") or 12.5,  # the model's default
        "seanet": {
            "channels": config["audio_channels"], "dimension": dim, "n_filters": config["num_filters"],
            "ratios": config["upsampling_ratios"], "norm": "none", "causal": config["use_causal_conv"],
            "pad_mode": config["pad_mode"], "true_skip": not config["use_conv_shortcut"],
            "n_residual_layers": config["num_residual_layers"], "last_kernel_size": config["last_kernel_size"],
        },
        "transformer": {
            "d_model": dim, "num_layers": config["num_hidden_layers"], "num_heads": config["num_attention_heads"],
            "dim_feedforward": config["intermediate_size"], "context": config["sliding_window"],
            "layer_scale": config["layer_scale_initial_scale"], "max_period": rope["rope_theta"],
        },
        "quantizer": {
            "n_q": config["num_quantizers"], "bins": config["codebook_size"], "dimension": config["codebook_dim"],
            "input_dimension": dim,
        },
    }  # fmt: skip
