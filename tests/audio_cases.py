"""Small audio codecs with random weights, one of each kind, for tests of what must hold whatever the weights."""

from typing import Any

import torch
from torch import nn

import codeczoo
from codeczoo.nn.conv1d import Conv1d

SEANET = {"channels": 1, "dim": 12, "width": 4, "ratios": [4, 3, 2]}
BLOCKS = {"channels": 1, "dim": 12, "width": 4, "norm": "weight_norm"}
PLAIN = {"lstm": 0, "norm": "none", "causal": True, "pad": "constant", "shortcut": "identity", "last_kernel": 3}


def seanet(side: str, **changes: Any) -> dict[str, Any]:
    return {"_target_": f"codeczoo.backbones.seanet.{side}", **SEANET, **changes}


def rvq(layers: int = 3, vocab_size: int = 24, dim: int = 12) -> dict[str, Any]:
    layer = {"_target_": "codeczoo.quantizers.vq.EMAVQ", "vocab_size": vocab_size, "dim": dim}
    return {"_target_": "codeczoo.quantizers.residual.Residual", "layers": [layer] * layers}


def encodec(**changes: Any) -> dict[str, Any]:
    """A tree of EnCodec, both halves changed alike."""
    return {
        "_target_": "codeczoo.audio.encodec.EnCodec", "encoder": seanet("Encoder", **changes), "quantizer": rvq(),
        "decoder": seanet("Decoder", **changes), "sample_rate": 2400,
    }  # fmt: skip


def dac(**changes: Any) -> dict[str, Any]:
    layer = {
        "_target_": "codeczoo.quantizers.projected.Projected", "dim": 12,
        "quantizer": {"_target_": "codeczoo.quantizers.projected.AngularVQ", "vocab_size": 24, "dim": 4},
    }  # fmt: skip
    half = {**BLOCKS, **changes}
    return {
        "_target_": "codeczoo.audio.dac.DAC",
        "encoder": {"_target_": "codeczoo.backbones.dacnet.Encoder", **half, "ratios": [2, 3, 4]},
        "quantizer": {"_target_": "codeczoo.quantizers.residual.Residual", "layers": [layer] * 3},
        "decoder": {"_target_": "codeczoo.backbones.dacnet.Decoder", **half, "width": 16, "ratios": [4, 3, 2]},
        "sample_rate": 2400,
    }


def mimi(fill: bool = True) -> dict[str, Any]:
    transformer = {
        "_target_": "codeczoo.nn.causal_transformer.CausalTransformer", "dim": 12, "depth": 2, "heads": 2, "hidden": 24,
        "context": 5, "scale": 0.5,
    }  # fmt: skip
    halves = [
        {"_target_": "codeczoo.quantizers.projected.Projected", "dim": 12, "bias": False, "quantizer": rvq(n, dim=6)}
        for n in (1, 2)
    ]
    return {
        "_target_": "codeczoo.audio.mimi.Mimi",
        "encoder": {
            "_target_": "codeczoo.audio.mimi.Encoder", "seanet": seanet("Encoder", **PLAIN), "transformer": transformer
        },
        "quantizer": {"_target_": "codeczoo.quantizers.split.Split", "parts": halves},
        "decoder": {
            "_target_": "codeczoo.audio.mimi.Decoder", "seanet": seanet("Decoder", **PLAIN), "transformer": transformer
        },
        "sample_rate": 2400,
        "fill": fill,
    }  # fmt: skip


def vocos(causal: bool = True, head: str = "CartesianISTFTHead", **options: Any) -> dict[str, Any]:
    half = {"dim": 12, "width": 64, "hidden": 96, "layers": 2, "n_fft": 72, "hop": 24, "causal": causal}
    return {
        "_target_": "codeczoo.audio.vocos.VocosCodec",
        "encoder": {"_target_": "codeczoo.backbones.vocos.Encoder", **half},
        "quantizer": rvq(),
        "decoder": {
            "_target_": "codeczoo.backbones.vocos.Decoder", **half,
            "head": {"_target_": f"codeczoo.nn.istft.{head}", "_partial_": True, **options},
        },
        "sample_rate": 2400,
    }


def windowed(channels: int = 2) -> dict[str, Any]:
    tree = encodec(norm="time_group_norm", channels=channels)
    return tree | {"_target_": "codeczoo.audio.windowed.WindowedCodec", "window": 500, "step": 480}


STREAMING = {
    "encodec causal reflect": encodec(causal=True),
    "encodec causal zeros": encodec(causal=True, pad="constant", norm="none", shortcut="identity"),
    "encodec causal replicate": encodec(causal=True, pad="replicate", lstm=0),
    "encodec look-ahead": encodec(),
    "encodec look-ahead, dilated": encodec(blocks=2, pad="constant", dilation_base=3, activation="snake"),
    "dac, odd stride": dac(),
    "dac, plain weights": dac(norm="none"),
    "mimi": mimi(),
    "mimi, not filled": mimi(fill=False),
    "vocos causal": vocos(),
    "vocos causal, noise": vocos(noise_from=12),
    "vocos look-ahead": vocos(False, "ISTFTHead"),
}
CAUSAL = ("encodec causal reflect", "encodec causal zeros", "encodec causal replicate", "mimi", "mimi, not filled")
WHOLE = {
    "encodec bidirectional": encodec() | {"encoder": seanet("Encoder", bidirectional=True)},
    "encodec group norm": encodec(norm="time_group_norm"),
    "windowed stereo": windowed(),
    "windowed mono": windowed(1),
}
ALL = STREAMING | WHOLE


def build(name: str, seed: int = 0) -> Any:
    """The codec with weights large enough that every branch shows and latents meet many codes, in evaluation mode."""
    torch.manual_seed(seed)
    codec = codeczoo.build(ALL[name]).eval()
    with torch.no_grad():
        for key, value in codec.named_parameters():
            if key.endswith(("weight_v", "weight", "alpha", "bias")):
                value.add_(torch.randn_like(value) * 0.1)
        for key, value in codec.named_buffers():
            if key.endswith("codebook"):
                value.copy_(torch.randn_like(value) * 0.3)
        x = signal(codec.spec.channels, 480)
        last = [part for part in codec.encoder.modules() if isinstance(part, Conv1d | nn.Linear)][-1]
        (last.weight_g if hasattr(last, "weight_g") else last.weight).mul_(0.5 / codec.latents(x)[0].std(2).mean())
        if last.bias is not None:
            last.bias.sub_(codec.latents(x)[0].mean((0, 2)))
    return codec


def signal(channels: int, samples: int, batch: int = 1, seed: int = 1) -> torch.Tensor:
    """Noise in [-1, 1], (B, C, T)."""
    return torch.rand(batch, channels, samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1
