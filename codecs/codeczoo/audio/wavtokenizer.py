"""WavTokenizer: a SEANet encoder, one codebook, a Vocos decoder with attention; 40 or 75 tokens a second at 24 kHz.

Source: "WavTokenizer: an Efficient Acoustic Discrete Codec Tokenizer for Audio Language Modeling" (arXiv 2408.16532),
github.com/jishengpeng/WavTokenizer (MIT).
Differs: padded batches give exactly what single clips give; the encoder streams. The bandwidth id, which the authors
draw at random in training though all ids mean the same rate, is `condition` of the decoder's norms, fixed to 0.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from codeczoo.audio.encodec import SEANET_RENAMES, seanet_tree
from codeczoo.audio.waveform import WaveformCodec
from codeczoo.quantizers.originals import within


class WavTokenizer(WaveformCodec):
    """SEANet encoder, quantizer of one codebook, Vocos decoder. Arguments: see WaveformCodec."""

    def last_layer(self) -> Tensor:
        """Weight of the map to spectra."""
        return self.decoder.layers[-1].get_parameter("out.weight")


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"^feature_extractor\.encodec\.", ""),
    *SEANET_RENAMES,
    (r"^quantizer\.layers\.0\.", "quantizer."),
    (r"\.(scale|shift)\.weight$", r".\1"),
    (r"^backbone\.embed\.", "decoder.0."),
    (r"^backbone\.pos_net\.2\.norm\.", "decoder.1.2.branches.1.0."),
    (r"^backbone\.pos_net\.2\.", "decoder.1.2.branches.1.1."),
    (r"\.proj_out\.", ".out."),
    (r"^backbone\.pos_net\.5\.", "decoder.1.5."),
    (r"^backbone\.pos_net\.(\d)\.norm1\.", r"decoder.1.\1.branches.1.0."),
    (r"^backbone\.pos_net\.(\d)\.conv1\.", r"decoder.1.\1.branches.1.2."),
    (r"^backbone\.pos_net\.(\d)\.norm2\.", r"decoder.1.\1.branches.1.3."),
    (r"^backbone\.pos_net\.(\d)\.conv2\.", r"decoder.1.\1.branches.1.6."),
    (r"^backbone\.norm\.", "decoder.2.inner.0."),
    (r"^backbone\.convnext\.(\d+)\.dwconv\.", r"decoder.3.\1.branches.1.0."),
    (r"^backbone\.convnext\.(\d+)\.norm\.", r"decoder.3.\1.branches.1.1.inner.0."),
    (r"^backbone\.convnext\.(\d+)\.pwconv([12])\.", r"decoder.3.\1.branches.1.1.inner.1.fc\2."),
    (r"^backbone\.convnext\.(\d+)\.gamma$", r"decoder.3.\1.branches.1.1.inner.1.gain"),
    (r"^backbone\.final_layer_norm\.", "decoder.4.inner.0."),
    (r"^head\.", "decoder.5."),
)
UNUSED = (
    r"^feature_extractor\.encodec\.decoder\.",  # an EnCodec decoder that nothing calls
    r"^head\.istft\.window$",
    r"^(?:multiperioddisc|multiresddisc|dac|melspec_loss)\.",  # of training
)


def original_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' tensors with those of the quantizer as ours."""
    return within("encodec", state, "feature_extractor.encodec.quantizer.")


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' `init_args` describe.

    Args:
        config: their YAML file's content, or its `feature_extractor`, `backbone` and `head` alone, with `bandwidth_id`
            where it is not 0. What they hard-code is read where parity fixtures spell it out.
    """
    config = _arguments(config.get("model", config))
    features, backbone, head = (_arguments(config[part]) for part in ("feature_extractor", "backbone", "head"))
    fixed = config.get("parity", {}).get("hard_coded_in_original_EncodecFeatures", {})
    dim, ratios = backbone["input_channels"], list(features["dowmsamples"])
    seanet = {
        "channels": 1, "dimension": dim, "n_filters": fixed.get("n_filters", 32), "ratios": ratios,
        "norm": "weight_norm", "causal": False, "true_skip": False, "n_residual_layers": 1, "lstm": 2,
        "last_kernel_size": 7,
    }  # fmt: skip
    vocos = "codeczoo.backbones.vocos"
    norm = {
        "_target_": f"{vocos}.AdaLayerNorm", "_partial_": True,
        "conditions": backbone["adanorm_num_embeddings"], "condition": config.get("bandwidth_id", 0),
    }  # fmt: skip
    return {
        "_target_": "codeczoo.audio.wavtokenizer.WavTokenizer",
        "encoder": {"_target_": "codeczoo.backbones.seanet.Encoder", **seanet_tree(seanet)},
        "quantizer": {"_target_": "codeczoo.quantizers.vq.EMAVQ", "vocab_size": features["vq_bins"], "dim": dim},
        "decoder": {
            "_target_": f"{vocos}.Decoder",
            "dim": dim,
            "width": backbone["dim"],
            "hidden": backbone["intermediate_dim"],
            "layers": backbone["num_layers"],
            "n_fft": head["n_fft"],
            "hop": head["hop_length"],
            "padding": head["padding"],
            "norm": norm,
            "context": {"_target_": f"{vocos}.GlobalContext", "width": backbone["dim"]},
        },
        "sample_rate": 24000,
    }


def _arguments(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a class of their YAML files is called with."""
    return node.get("init_args", node)
