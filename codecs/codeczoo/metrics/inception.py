"""The Inception network of published FIDs: torchvision's layers with the pooling of the TensorFlow original."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception as tv

from codeczoo.io.weights import given, load_strict, read_tensors

SIZE = 299
HOW = (
    "Get it with `curl -LO https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth` and give its path."
)


class Inception(nn.Module):
    """uint8 pictures to the 2048 pooled features that FID compares.

    Source: torch-fidelity, FeatureExtractorInceptionV3 (same weights file, same features to float rounding).

    Args:
        weights: local file, `weights-inception-2015-12-05-6726825d.pth`. Nothing is ever downloaded.

    Raises:
        MissingError: the file is not there.
        WeightsError: it is not of this network.
    """

    def __init__(self, weights: str | Path | None) -> None:
        super().__init__()
        state = read_tensors(given(weights, "rFID needs Inception weights", HOW))
        self.network = network()
        load_strict(self.network, state, str(weights))
        self.network.fc = nn.Identity()
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x uint8 (B, 3, H, W) to (B, 2048)."""
        with torch.autocast(x.device.type, enabled=False):
            return self.network((resize(x.float()) - 128) / 128)


def network() -> nn.Module:
    """torchvision's Inception v3 with 1008 classes and the original's pooling, weights not set."""
    with torch.device("meta"):
        net = tv.inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        net.Mixed_5b, net.Mixed_5c, net.Mixed_5d = PooledA(192, 32), PooledA(256, 64), PooledA(288, 64)
        net.Mixed_6b, net.Mixed_6c = PooledC(768, 128), PooledC(768, 160)
        net.Mixed_6d, net.Mixed_6e = PooledC(768, 160), PooledC(768, 192)
        net.Mixed_7b, net.Mixed_7c = PooledE(1280), MaxPooledE(2048)
    return net.to_empty(device="cpu").eval()


class PooledA(tv.InceptionA):
    """With `average` for the pooling."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(average(x))]


class PooledC(tv.InceptionC):
    """With `average` for the pooling."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_2(self.branch7x7dbl_1(x))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(self.branch7x7dbl_3(double)))
        return [self.branch1x1(x), single, double, self.branch_pool(average(x))]


class PooledE(tv.InceptionE):
    """With `average` for the pooling."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1),
            torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1),
            self.branch_pool(self.pool(x)),
        ]

    def pool(self, x: Tensor) -> Tensor:
        """What the last branch pools with."""
        return average(x)


class MaxPooledE(PooledE):
    """The original's last block, which pools by maximum."""

    def pool(self, x: Tensor) -> Tensor:
        """What the last branch pools with."""
        return F.max_pool2d(x, 3, stride=1, padding=1)


def average(x: Tensor) -> Tensor:
    """3x3 means that leave the padding out of the count, as TensorFlow's."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def resize(x: Tensor) -> Tensor:
    """x (B, 3, H, W) to (B, 3, 299, 299), bilinear as TensorFlow 1 did it: corners at 0, no antialiasing."""
    for axis in (2, 3):
        n = x.shape[axis]
        place = torch.arange(SIZE, dtype=torch.float32, device=x.device) * (n / SIZE)
        low = place.long()
        part = (place - low).view([-1 if i == axis else 1 for i in range(4)])
        x = torch.lerp(x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=n - 1)), part)
    return x
