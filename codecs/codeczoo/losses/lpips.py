"""LPIPS on VGG16: how far apart two pictures look."""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from codeczoo.core.errors import InputError
from codeczoo.io.weights import load_original
from codeczoo.losses.base import MediaTerm
from codeczoo.losses.frozen import Frozen, pretrained

CONVS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # channels of VGG16's five stages
UNUSED = (r"^classifier\.", r"^lins\.", r"^scaling_layer\.")
HOW = (
    "Get the one file with `pip install lpips && python -c \"import lpips, torch; "
    "torch.save(lpips.LPIPS(net='vgg').state_dict(), 'lpips_vgg.pth')\"` and give its path as the term's `weights`, "
    "or train without it: objective=plain."
)


class LPIPS(MediaTerm):
    """Learned perceptual distance of pictures in [0, 1], averaged over the batch.

    Source: Zhang et al. 2018 (arXiv 1801.03924), github.com/richzhang/PerceptualSimilarity version 0.1, net "vgg".

    Args:
        weights: local file with either the whole of `lpips.LPIPS(net="vgg").state_dict()`, or torchvision's VGG16
            (`features.N.*`, classifier ignored; then `heads` too). Nothing is ever downloaded.
        heads: local file with the five linear heads (`linN.model.1.weight`): `vgg.pth` of the lpips, taming or
            torchmetrics packages. They win over heads in `weights`.

    Raises:
        MissingError: a file is not there.
        WeightsError: the files are not of these layouts or incomplete.
    """

    def __init__(self, weights: str | Path | None, heads: str | Path | None = None) -> None:
        super().__init__()
        state = pretrained(weights, "LPIPS", HOW)
        if heads is not None:
            state |= pretrained(heads, "LPIPS", HOW)
        network = LPIPSNetwork()
        load_original(network, state, vgg_renames(), UNUSED)
        self.network = Frozen(network)

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, 3, H, W) in [0, 1], H and W at least 16, to a scalar."""
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 16:
            raise InputError(f"LPIPS takes (B, 3, H, W) of at least 16x16, got {tuple(x.shape)}")
        return self.network.net(x, x_hat).mean()


class LPIPSNetwork(nn.Module):
    """VGG16 up to its last ReLU, and one linear head per stage."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *(stage[-1] for stage in CONVS))
        self.stages = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise((width, *stage)))
            for width, stage in zip(widths[:-1], CONVS, strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(stage[-1], 1, 1, bias=False) for stage in CONVS)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> list[Tensor]:
        """x (B, 3, H, W) in [0, 1] to the unit-length features after each stage, (B, C, H/2^i, W/2^i)."""
        h = (2 * x - 1 - self.shift) / self.scale
        found = []
        for i, stage in enumerate(self.stages):
            h = nn.functional.max_pool2d(h, 2) if i else h
            for conv in stage:  # type: ignore[attr-defined]
                h = conv(h).relu()
            found.append(h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + 1e-10))
        return found

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The distance of each pair, (B,)."""
        with torch.no_grad():
            wanted = self.features(x)
        stages = zip(self.heads, wanted, self.features(x_hat), strict=True)
        return sum((head((a - b).square()).mean((1, 2, 3)) for head, a, b in stages), x.new_zeros(len(x)))


def vgg_renames() -> list[tuple[str, str]]:
    """torchvision's `features.N`, which lpips calls `net.sliceI.N`, to our stages; the linear heads to our heads."""
    renames, n = [(r"^lin(\d)\.model\.1\.", r"heads.\1.")], 0
    for i, stage in enumerate(CONVS):
        for j in range(len(stage)):
            renames.append((rf"^(features|net\.slice{i + 1})\.{n}\.", f"stages.{i}.{j}."))
            n += 2  # a ReLU after every convolution
        n += 1  # a pooling after every stage
    return renames
