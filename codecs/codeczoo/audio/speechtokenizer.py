"""SpeechTokenizer: SEANet with a bidirectional LSTM, residual quantization whose first codebook learns from a teacher.

Source: "SpeechTokenizer: Unified Speech Tokenizer for Speech Language Models" (arXiv 2308.16692),
github.com/ZhangXInFD/SpeechTokenizer (Apache-2.0).
Differs: padded batches give exactly what single clips give; correct gradients of the residual quantizer. What the
authors call `st` is not here: `Residual(codec.quantizer.inner[st:])` has the layers from `st` on.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from codeczoo.audio.encodec import SEANET_RENAMES, EnCodec, residual_tree, seanet_tree
from codeczoo.core.base import Quantizer
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Quantized
from codeczoo.nn.stream import Coder
from codeczoo.quantizers.originals import within


class SpeechTokenizer(EnCodec):
    """SEANet encoder, residual quantizer, SEANet decoder, and a map from the first codebook to a teacher's features.

    Args:
        encoder, quantizer, decoder, sample_rate: see WaveformCodec.
        semantic_dim: channels of the teacher's features.
    """

    def __init__(
        self, encoder: Coder, quantizer: Quantizer, decoder: Coder, sample_rate: int, semantic_dim: int = 768
    ) -> None:
        super().__init__(encoder, quantizer, decoder, sample_rate)
        self.transform = nn.Linear(encoder.dim, semantic_dim)

    def features(self, z: Tensor, q: Quantized) -> Tensor:
        """See WaveformCodec: the first codebook's latent, mapped to the teacher's channels; gradients pass to z."""
        first = self.quantizer.decode(q.codes[:, :1])
        return self.transform((z + (first - z).detach()).mT).mT  # (B, semantic_dim, frames)


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = SEANET_RENAMES
UNUSED = ()


def original_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' tensors with those of the quantizer as ours."""
    return within("encodec", state)


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' `config.json` describes."""
    if config["residual_kernel_size"] != 3:
        raise ConfigError(f"SpeechTokenizer: residual_kernel_size must be 3, got {config['residual_kernel_size']}")
    seanet = {
        "channels": 1, "dimension": config["dimension"], "n_filters": config["n_filters"],
        "ratios": config["strides"], "norm": "weight_norm", "causal": False, "true_skip": False,
        "n_residual_layers": config["n_residual_layers"], "lstm": config["lstm_layers"], "last_kernel_size": 7,
    }  # fmt: skip
    own = {"dilation_base": config["dilation_base"], "activation": config["activation"].lower()}
    shared = seanet_tree(seanet) | own
    backbone = "codeczoo.backbones.seanet"
    return {
        "_target_": "codeczoo.audio.speechtokenizer.SpeechTokenizer",
        "encoder": {"_target_": f"{backbone}.Encoder", **shared, "bidirectional": config["bidirectional"]},
        "quantizer": residual_tree(config["n_q"], config["codebook_size"], config["dimension"]),
        "decoder": {"_target_": f"{backbone}.Decoder", **shared},
        "sample_rate": config["sample_rate"],
        "semantic_dim": config["semantic_dimension"],
    }
