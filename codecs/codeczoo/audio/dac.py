"""DAC: Snake convolutions around residual quantization of few channels; 16, 24 and 44.1 kHz.

Source: "High-Fidelity Audio Compression with Improved RVQGAN" (arXiv 2306.06546),
github.com/descriptinc/descript-audio-codec (MIT); layout of Hugging Face transformers.
Differs: streams, with the look-ahead of its convolutions; padded batches; correct gradients of the residual quantizer;
decode fills up the few samples that odd strides lose. Loudness is the caller's: `.dac` files are made at -16 LUFS.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from codeczoo.audio.waveform import WaveformCodec
from codeczoo.nn.conv1d import Conv1d, ConvTranspose1d
from codeczoo.nn.stream import Chain, Layer, Length, Sum
from codeczoo.quantizers.originals import within


class DAC(WaveformCodec):
    """DAC encoder, residual quantizer, DAC decoder. Arguments: see WaveformCodec."""

    def whole(self, n: Length) -> Length:
        """Samples up to the end of the last hop."""
        return -(-n // self.hop) * self.hop

    @torch.no_grad()
    def decode_window(self, codes: Tensor) -> Tensor:
        """Codes of one window (B, K, frames) to (B, C, t) in [-1, 1], as DAC decodes recordings window by window."""
        return unpadded(self.decoder, self.quantizer.decode(codes)).clamp(-1, 1)

    def window_samples(self, frames: int) -> int:
        """Samples that `decode_window` gives of so many frames; below 1 where they are too few for it."""
        for layer in self.decoder.modules():  # in their order; units with a shortcut lose what their convolutions lose
            if isinstance(layer, Conv1d):
                frames -= layer.reach - 1
            elif isinstance(layer, ConvTranspose1d):
                frames = (frames - 1) * layer.stride + layer.kernel
            if frames < 1:
                return frames
        return frames


def unpadded(layer: Layer, x: Tensor) -> Tensor:
    """What a layer gives of x (B, C, T) when no convolution pads, (B, C', T'): DAC's `padding = False`.

    Shortcuts are cut at both ends to the length of what they go around; transposed convolutions are not cut at all.
    """
    if isinstance(layer, Chain):
        for inner in layer.layers:
            x = unpadded(inner, x)
        return x
    if isinstance(layer, Sum):
        parts = [unpadded(branch, x) for branch in layer.layers]
        shortest = min(part.shape[2] for part in parts)
        return torch.stack([part.narrow(2, (part.shape[2] - shortest) // 2, shortest) for part in parts]).sum(0)
    if isinstance(layer, Conv1d):
        return layer.convolve(x)
    return layer.spread(x, None) if isinstance(layer, ConvTranspose1d) else layer(x)


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"^(encoder)\.block\.|^(decoder)\.model\.", r"\1\2."),
    (r"^((?:encoder|decoder)\.\d+)\.block\.(\d+)\.block\.", r"\1.\2.branches.1."),
    (r"^((?:encoder|decoder)\.\d+)\.block\.", r"\1."),
)
UNUSED = ()


def original_state(state: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' tensors, or those of transformers under the authors' names, with those of the quantizer as ours."""
    if config.get("model_type") == "dac":
        state = {_from_transformers(key, len(config["downsampling_ratios"])): value for key, value in state.items()}
    return within("dac", state)


def _from_transformers(key: str, n: int) -> str:
    """A name of transformers as the authors', for n strides."""
    places = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
    unit = re.fullmatch(r"(encoder|decoder)\.block\.(\d+)\.res_unit(\d)\.(\w+)\.(\w+)", key)
    if unit:
        side, block, number, part, leaf = unit.groups()
        first = -1 if side == "encoder" else 1
        return f"{_stack(side)}.{int(block) + 1}.block.{int(number) + first}.block.{places[part]}.{leaf}"
    stride = re.fullmatch(r"(encoder|decoder)\.block\.(\d+)\.(snake1|conv1|conv_t1)\.(\w+)", key)
    if stride:
        side, block, part, leaf = stride.groups()
        place = {"snake1": 3, "conv1": 4} if side == "encoder" else {"snake1": 0, "conv_t1": 1}
        return f"{_stack(side)}.{int(block) + 1}.block.{place[part]}.{leaf}"
    end = re.fullmatch(r"(encoder|decoder)\.(conv1|snake1|conv2)\.(\w+)", key)
    if end:
        side, part, leaf = end.groups()
        return f"{_stack(side)}.{ {'conv1': 0, 'snake1': n + 1, 'conv2': n + 2}[part] }.{leaf}"
    return key


def _stack(side: str) -> str:
    return "encoder.block" if side == "encoder" else "decoder.model"


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' arguments or a transformers `config.json` describe."""
    if config.get("model_type") == "dac":
        width, ratios, norm = config["encoder_hidden_size"], config["downsampling_ratios"], "none"
        up_width, up_ratios, rate = config["decoder_hidden_size"], config["upsampling_ratios"], config["sampling_rate"]
        dim = config["hidden_size"]
    else:
        width, ratios, norm = config["encoder_dim"], config["encoder_rates"], "weight_norm"
        up_width, up_ratios, rate = config["decoder_dim"], config["decoder_rates"], config["sample_rate"]
        dim = config.get("latent_dim") or width * 2 ** len(ratios)
    backbone = "codeczoo.backbones.dacnet"
    shared = {"channels": 1, "dim": dim, "norm": norm}
    layers = {
        "_repeat_": config["n_codebooks"],
        "_target_": "codeczoo.quantizers.projected.Projected",
        "quantizer": {
            "_target_": "codeczoo.quantizers.projected.AngularVQ",
            "vocab_size": config["codebook_size"],
            "dim": config["codebook_dim"],
        },
        "dim": dim,
    }
    return {
        "_target_": "codeczoo.audio.dac.DAC",
        "encoder": {"_target_": f"{backbone}.Encoder", **shared, "width": width, "ratios": list(ratios)},
        "quantizer": {"_target_": "codeczoo.quantizers.residual.Residual", "layers": layers},
        "decoder": {"_target_": f"{backbone}.Decoder", **shared, "width": up_width, "ratios": list(up_ratios)},
        "sample_rate": rate,
    }
