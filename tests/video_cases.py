"""Small video codecs with random weights, one of each kind, for tests of what must hold whatever the weights."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

import codeczoo
from codeczoo.nn.conv3d import Conv3d, FrameConv

LEVELS = [8, 5, 5]
HALF = {"dim": 3, "width": 8, "multipliers": [1, 2, 2], "blocks": 1, "time_levels": [0, 1]}


def half(side: str, **changes: Any) -> dict[str, Any]:
    return {"_target_": f"codeczoo.backbones.causal3d.{side}", **HALF, **changes}


def vidtok(up: str = "repeat", **changes: Any) -> dict[str, Any]:
    """A tree of VidTok, both halves changed alike."""
    return {
        "_target_": "codeczoo.video.vidtok.VidTok", "encoder": half("Encoder", **changes),
        "quantizer": {"_target_": "codeczoo.quantizers.fsq.FSQ", "levels": LEVELS},
        "decoder": half("Decoder", up=up, **changes),
    }  # fmt: skip


def residual() -> dict[str, Any]:
    layer = {"_target_": "codeczoo.quantizers.vq.EMAVQ", "vocab_size": 24, "dim": 3}
    return vidtok() | {"quantizer": {"_target_": "codeczoo.quantizers.residual.Residual", "layers": [layer] * 2}}


def cosmos(**changes: Any) -> dict[str, Any]:
    """A tree of Cosmos, both halves changed alike; attention in time sees fewer latents than clips here have."""
    own = {"patch": 2, "width": 8, "multipliers": [1, 2, 2], "n_blocks": 1, "hidden": 8, "dim": 3}
    own |= {"space_levels": [0], "time_levels": [0], "context": 3, **changes}
    return {
        "_target_": "codeczoo.video.cosmos_dv.CosmosDV",
        "encoder": {"_target_": "codeczoo.backbones.cosmos3d.Encoder", **own},
        "quantizer": {"_target_": "codeczoo.quantizers.fsq.FSQ", "levels": LEVELS},
        "decoder": {"_target_": "codeczoo.backbones.cosmos3d.Decoder", **own},
    }


CAUSAL = {
    "vidtok": vidtok(),
    "vidtok, zeros in front": vidtok(pad="constant"),
    "vidtok, frames in groups": vidtok(norm="frame", width=32, multipliers=[1, 1, 1]),
    "vidtok, time once": vidtok(time_levels=[1]),
    "vidtok, two codebooks": residual(),
    "cosmos": cosmos(),
    "cosmos, attention in a level": cosmos(attention_levels=[1], space_levels=[1], time_levels=[1]),
    "cosmos, time by patches alone": cosmos(patch=4, space_levels=[], time_levels=[]),
}
ALL = CAUSAL | {"vidtok, blended": vidtok("blend")}


def build(name: str, seed: int = 0) -> Any:
    """The codec with weights large enough that every branch shows and latents meet many codes, in evaluation mode."""
    torch.manual_seed(seed)
    codec = codeczoo.build(ALL[name]).eval()
    with torch.no_grad():
        for p in codec.parameters():
            p.add_(torch.randn_like(p) * (0.1 if p.ndim > 1 else 0.2))
        for key, value in codec.named_buffers():
            if key.endswith("codebook"):
                value.copy_(torch.randn_like(value) * 0.3)
        z = codec.latents(clip(9, 16, 16))[0]
        last = [part for part in codec.encoder.modules() if isinstance(part, Conv3d | FrameConv)][-1]
        last.weight.mul_(0.7 / z.std())
        last.bias.sub_(z.mean((0, 2, 3, 4))).mul_(0.7 / z.std())
    return codec


def clip(frames: int, height: int, width: int, batch: int = 1, seed: int = 1) -> Tensor:
    """Noise in [0, 1], (B, 3, T, H, W)."""
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(seed))


def cut(x: Tensor, sizes: list[int]) -> Iterator[tuple[Tensor, bool]]:
    """Pieces of x with these sizes in time over and over, and whether each is the last; the last is empty."""
    at = i = 0
    while at < x.shape[2]:
        yield x[:, :, at : at + sizes[i % len(sizes)]], False
        at += sizes[i % len(sizes)]
        i += 1
    yield x[:, :, :0], True


def joined(pieces: Iterable[Tensor]) -> Tensor:
    """Pieces one after the other in time."""
    return torch.cat(list(pieces), 2)
