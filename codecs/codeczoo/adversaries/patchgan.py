"""PatchGAN: one logit for every patch of a picture."""

from collections.abc import Callable

from torch import Tensor, nn

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.nn.conv2d import Conv2d

SLOPE = 0.2  # of every LeakyReLU


def batch_norm(channels: int) -> nn.Module:
    """The original's norm. Statistics are each rank's own, as in the published recipes; see also group_norm."""
    return nn.BatchNorm2d(channels)


def group_norm(channels: int, groups: int = 32) -> nn.Module:
    """Statistics of each sample, hence the same on any number of ranks."""
    return nn.GroupNorm(groups, channels)


def no_norm(channels: int) -> nn.Module:
    """No norm at all."""
    return nn.Identity()


class PatchDiscriminator(nn.Module):
    """4x4 convolutions of stride 2, then two of stride 1; the state dict has the original's keys.

    Source: pix2pix (arXiv 1611.07004) as in taming-transformers; LlamaGen, Open-MAGVIT2, WeTok, KARL, TokenFlow.

    Args:
        width: channels of the first convolution; they double up to 8 width.
        layers: number of convolutions of stride 2.
        norm: channels to a norm layer: batch_norm, group_norm or no_norm of this module.
        channels: of the media.
    """

    def __init__(
        self, width: int = 64, layers: int = 3, norm: Callable[[int], nn.Module] = batch_norm, channels: int = 3
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ConfigError(f"PatchDiscriminator: layers must be 1 or more, got {layers}")
        self.channels = channels
        self.smallest = 3 * 2**layers  # both last convolutions shrink the grid by one
        parts: list[nn.Module] = [Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        for i in range(layers):
            normed = norm(widths[i + 1])
            conv = Conv2d(
                widths[i],
                widths[i + 1],
                4,
                stride=2 if i < layers - 1 else 1,
                padding=1,
                bias=not isinstance(normed, nn.BatchNorm2d),  # it would subtract the bias again
            )
            parts += [conv, normed, nn.LeakyReLU(SLOPE)]
        self.main = nn.Sequential(*parts, Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, H, W) in [0, 1] to logits (B, 1, H / 2^layers - 2, W / 2^layers - 2)."""
        if x.ndim != 4 or x.shape[1] != self.channels or min(x.shape[2:]) < self.smallest:
            raise InputError(
                f"PatchDiscriminator takes (B, {self.channels}, H, W) of at least {self.smallest}, got {tuple(x.shape)}"
            )
        return self.main(2 * x - 1)  # the original sees [-1, 1]


def initialise(module: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch norms N(1, 0.02) and 0; biases of convolutions as torch makes them."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
