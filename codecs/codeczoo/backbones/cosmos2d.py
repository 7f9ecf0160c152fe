"""The convolutional encoder and decoder of Cosmos image tokenizers, between Haar wavelet patches.

With patches of one pixel they are those of the KL autoencoders of latent diffusion.

Source: Cosmos-Tokenizer (arXiv 2501.03575, github.com/NVIDIA/Cosmos-Tokenizer, Apache-2.0); latent diffusion
(arXiv 2112.10752).
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.nn.conv2d import Conv2d
from codeczoo.nn.haar import HaarPatches, HaarPixels

GROUPS = 32  # of channels that are normalised together


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Args:
        inputs, outputs: channels, multiples of `groups`.
        groups: of the norms.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = GROUPS) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs, groups), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = _norm(outputs, groups), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, h, w) to (B, outputs, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """x + attention of every position to all, one head.

    Args:
        channels: a multiple of `groups`.
        groups: of the norm.
    """

    def __init__(self, channels: int, groups: int = GROUPS) -> None:
        super().__init__()
        self.norm = _norm(channels, groups)
        self.q, self.k, self.v, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) to the same shape."""
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).mT[:, None].contiguous() for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].mT  # (B, C, h w); as heads, or the scores are stored
        return x + self.out(y.reshape(x.shape))


class Down(Conv2d):
    """Half the size: a 3x3 convolution of every other position.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) to (B, C, h/2, w/2)."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Conv2d):
    """Twice the size: every position repeated, then a 3x3 convolution.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) to (B, C, 2h, 2w)."""
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Module):
    """Residual blocks, each with attention behind it where wanted, then a change of size.

    Args:
        inputs, outputs: channels.
        n_blocks: residual blocks.
        attention: whether attention follows each.
        resize: Down, Up or Identity.
        groups: of the norms.
    """

    def __init__(
        self, inputs: int, outputs: int, n_blocks: int, attention: bool, resize: nn.Module, groups: int = GROUPS
    ) -> None:
        super().__init__()
        sizes = [inputs] + [outputs] * (n_blocks - 1)
        self.blocks = nn.ModuleList(ResBlock(size, outputs, groups) for size in sizes)
        self.attentions = nn.ModuleList(Attention(outputs, groups) if attention else nn.Identity() for _ in sizes)
        self.resize = resize

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, h, w) to (B, outputs, h', w')."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x))
        return self.resize(x)


def _middle(channels: int, groups: int) -> nn.Sequential:
    first, second = (ResBlock(channels, channels, groups) for _ in range(2))
    return nn.Sequential(first, Attention(channels, groups), second)


class Encoder(nn.Module):
    """Image to a grid of latents: Haar patches, then stages of which the first halve the size.

    Args:
        patch: side of the Haar patches, a power of 2.
        width: channels after the first convolution.
        multipliers: channels of each stage as a multiple of `width`.
        n_blocks: residual blocks a stage.
        n_resize: stages that halve the size.
        hidden: channels in front of the last 1x1 convolution.
        dim: D, latent channels.
        attention: numbers of the stages with attention, stage 0 the largest.
        groups: of the norms; channels are multiples of it.

    Raises:
        ConfigError: more changes of size than stages.
    """

    def __init__(
        self, patch: int, width: int, multipliers: Sequence[int], n_blocks: int, n_resize: int, hidden: int, dim: int,
        attention: Sequence[int] = (), groups: int = GROUPS,
    ) -> None:
        super().__init__()
        _check(n_resize, multipliers)
        self.stride, self.dim = patch * 2**n_resize, dim
        widths = [width * m for m in multipliers]
        self.patches = HaarPatches(patch)
        self.conv_in = nn.Conv2d(3 * patch**2, width, 3, padding=1)
        self.stages = nn.ModuleList(
            Stage(before, after, n_blocks, i in attention, Down(after) if i < n_resize else nn.Identity(), groups)
            for i, (before, after) in enumerate(pairwise([width, *widths]))
        )
        self.middle = _middle(widths[-1], groups)
        self.norm_out, self.conv_out = _norm(widths[-1], groups), nn.Conv2d(widths[-1], hidden, 3, padding=1)
        self.project = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) in [-1, 1], sides multiples of `stride`, to z (B, D, H/stride, W/stride)."""
        h = self.conv_in(self.patches(x))
        for stage in self.stages:
            h = stage(h)
        return self.project(self.conv_out(F.silu(self.norm_out(self.middle(h)))))


class Decoder(nn.Module):
    """Grid of latents to image; the mirror of Encoder with the same arguments. Its smallest stages double the size.

    Differs from the mirror: one residual block more a stage.
    """

    def __init__(
        self, patch: int, width: int, multipliers: Sequence[int], n_blocks: int, n_resize: int, hidden: int, dim: int,
        attention: Sequence[int] = (), groups: int = GROUPS,
    ) -> None:
        super().__init__()
        _check(n_resize, multipliers)
        self.stride, self.dim = patch * 2**n_resize, dim
        widths = [width * m for m in multipliers]
        self.project = nn.Conv2d(dim, hidden, 1)
        self.conv_in = nn.Conv2d(hidden, widths[-1], 3, padding=1)
        self.middle = _middle(widths[-1], groups)
        smallest = len(widths) - n_resize
        self.stages = nn.ModuleList(
            Stage(before, after, n_blocks + 1, i in attention, Up(after) if i >= smallest else nn.Identity(), groups)
            for i, (before, after) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out, self.conv_out = _norm(widths[0], groups), nn.Conv2d(widths[0], 3 * patch**2, 3, padding=1)
        self.pixels = HaarPixels(patch)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, D, h, w) to x_hat (B, 3, h*stride, w*stride) about [-1, 1], not clamped."""
        h = self.middle(self.conv_in(self.project(z)))
        for stage in reversed(self.stages):
            h = stage(h)
        return self.pixels(self.conv_out(F.silu(self.norm_out(h))))


def _check(n_resize: int, multipliers: Sequence[int]) -> None:
    if not 0 <= n_resize <= len(multipliers):
        raise ConfigError(f"Cosmos: n_resize must be 0..{len(multipliers)}, the number of stages, got {n_resize}")
