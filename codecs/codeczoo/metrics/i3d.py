"""The I3D network of published FVDs: clips to the logits of the 400 Kinetics classes."""

import zipfile
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import InputError, WeightsError
from codeczoo.io.weights import given, load_original, read_tensors

SIZE, CLASSES, SHORTEST = 224, 400, 9  # pixels a side; features; frames, fewer leave nothing to average
HOW = (
    "Get i3d_pretrained_400.pt (49 MB; VideoGPT's port of the Kinetics-400 weights, as most PyTorch FVD code uses) or "
    "i3d_torchscript.pt (StyleGAN-V's) and give its path; nothing is ever downloaded."
)
UNUSED = (r"\.num_batches_tracked$",)
# Channels of the six convolutions of each block: 1x1; 1x1, 3x3; 1x1, 3x3; pooled 1x1.
MIXED = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32), "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64), "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64), "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128), "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


class ClipFeatures(nn.Module):
    """uint8 clips to the 400 logits that FVD compares.

    Frames are brought to 224 pixels at the shorter side (bilinear, no antialiasing) and cut to the middle, values to
    [-1, 1].
    Source: the PyTorch FVD code of VideoGPT and StyleGAN-V. The original in TensorFlow squeezes frames to a square,
    which is the same for square clips.

    Args:
        weights: local file. A state dict of the layout below (`i3d_pretrained_400.pt`), or a TorchScript archive of a
            whole network that is called with (x, rescale, resize, return_features) (`i3d_torchscript.pt`); the code in
            that archive is run by TorchScript's interpreter.

    Raises:
        MissingError: the file is not there.
        WeightsError: it is not of this network.
    """

    def __init__(self, weights: str | Path | None) -> None:
        super().__init__()
        path = given(weights, "FVD needs I3D weights", HOW)
        self.network: nn.Module = _scripted(path) if _is_script(path) else _loaded(path)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x uint8 (B, 3, T, H, W), T at least 9, to (B, 400). Raises InputError for shorter clips."""
        if x.shape[2] < SHORTEST:
            raise InputError(f"FVD takes clips of at least {SHORTEST} frames, got {x.shape[2]}")
        with torch.autocast(x.device.type, enabled=False):
            return self.network(fitted(x))


class I3D(nn.Module):
    """Inception v1 inflated to three dimensions, batch norms frozen.

    Source: Carreira and Zisserman 2017 (arXiv 1705.07750); names of the modules and the epsilon as in the state dict of
    VideoGPT's `i3d_pretrained_400.pt`, whose keys load without a change.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, channels in MIXED.items():
            self.add_module(name, Mixed(*channels))
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, CLASSES, 1)})

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, T, 224, 224) in [-1, 1] to logits (B, 400), averaged over time."""
        x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name == "Mixed_4b":
                x = pool(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = pool(x, (2, 2, 2), (2, 2, 2))
            x = self.get_submodule(name)(x)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)  # (B, 1024, T / 8 - 1, 1, 1)
        return self.logits["conv3d"](x).mean((2, 3, 4))


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, out, kernel, stride, bias=False)
        self.bn = FrozenNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, out, T / stride, H / stride, W / stride), rounded up."""
        return self.bn(self.conv3d(same(x, self.conv3d.kernel_size, self.conv3d.stride))).relu()


class FrozenNorm(nn.Module):
    """Batch norm with fixed statistics; no count of batches, which some files have and some have not."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to the same."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-5)


class Mixed(nn.Module):
    """Four branches side by side. Arguments: channels in, then those of MIXED."""

    def __init__(self, channels: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = Unit(channels, b0)
        self.b1a, self.b1b = Unit(channels, b1a), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(channels, b2a), Unit(b2a, b2b, 3)
        self.b3b = Unit(channels, b3b)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, b0 + b1b + b2b + b3b, T, H, W)."""
        pooled = pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Maxima, padded as TensorFlow's SAME; the zeros of the padding are no larger than anything after a ReLU."""
    return F.max_pool3d(same(x, kernel, stride), kernel, stride)


def same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """x (B, C, T, H, W) with the zeros around it that TensorFlow's SAME puts there: an odd one behind."""
    around: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(0, (ceil(size / s) - 1) * s + k - size)
        around += [total // 2, total - total // 2]
    return F.pad(x, around)


def fitted(x: Tensor) -> Tensor:
    """uint8 (B, 3, T, H, W) to float (B, 3, T, 224, 224) in [-1, 1]."""
    batch, _, frames, height, width = x.shape
    scale = SIZE / min(height, width)
    size = [SIZE if n == min(height, width) else ceil(n * scale) for n in (height, width)]
    pictures = x.transpose(1, 2).flatten(0, 1).float() / 127.5 - 1  # (B * T, 3, H, W)
    pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False)
    top, left = ((n - SIZE) // 2 for n in size)
    pictures = pictures[:, :, top : top + SIZE, left : left + SIZE]
    return pictures.unflatten(0, (batch, frames)).transpose(1, 2)  # (B, 3, T, 224, 224)


class Scripted(nn.Module):
    """A network out of a TorchScript archive."""

    def __init__(self, network: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, T, 224, 224) in [-1, 1] to logits (B, 400)."""
        return self.network(x, rescale=False, resize=False, return_features=True)


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _scripted(path: Path) -> nn.Module:
    try:
        return Scripted(torch.jit.load(path, map_location="cpu"))
    except RuntimeError as error:
        raise WeightsError(f"{path}: no TorchScript network ({str(error).strip().splitlines()[0]})") from None


def _loaded(path: Path) -> nn.Module:
    network = I3D()
    load_original(network, read_tensors(path), (), UNUSED)
    return network
