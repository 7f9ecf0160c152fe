"""PatchGAN in space and time: one logit for every patch of a clip."""

from collections.abc import Callable

from torch import Tensor, nn

from codeczoo.adversaries.patchgan import SLOPE, group_norm, initialise
from codeczoo.core.errors import ConfigError, InputError


class ClipDiscriminator(nn.Module):
    """As PatchDiscriminator, with kernels of 3 frames; steps in time where there are steps in space.

    Clips of one frame are judged too, so that batches of pictures may come among batches of clips.
    Differs: from the published ones (TATS, Open-MAGVIT2, VidTok's 3D choice), whose batch norms see one or two clips a
    process and mix real and false statistics with chance; norms here are of each clip by itself.

    Args:
        width: channels of the first convolution; they double up to 8 width.
        layers: number of convolutions of stride 2.
        norm: channels to a norm layer: group_norm or no_norm of `adversaries.patchgan`.
        channels: of the media.
    """

    def __init__(
        self, width: int = 64, layers: int = 3, norm: Callable[[int], nn.Module] = group_norm, channels: int = 3
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ConfigError(f"ClipDiscriminator: layers must be 1 or more, got {layers}")
        self.channels = channels
        self.smallest = 3 * 2**layers  # both last convolutions shrink the grid by one
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        parts: list[nn.Module] = [conv(channels, width, 2), nn.LeakyReLU(SLOPE)]
        for i in range(layers):
            step = 2 if i < layers - 1 else 1
            parts += [conv(widths[i], widths[i + 1], step), norm(widths[i + 1]), nn.LeakyReLU(SLOPE)]
        self.main = nn.Sequential(*parts, conv(widths[-1], 1, 1))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, T, H, W) in [0, 1] to logits (B, 1, T / 2^layers, H / 2^layers - 2, W / 2^layers - 2).

        T / 2^layers is rounded up. Raises InputError for another shape.
        """
        if x.ndim != 5 or x.shape[1] != self.channels or min(x.shape[3:]) < self.smallest:
            wanted = f"(B, {self.channels}, T, H, W) of at least {self.smallest} pixels a side"
            raise InputError(f"ClipDiscriminator takes {wanted}, got {tuple(x.shape)}")
        return self.main(2 * x - 1)  # as PatchDiscriminator


def conv(before: int, after: int, step: int) -> nn.Conv3d:
    """3x4x4; with step 2 half the frames (rounded up), rows and columns."""
    return nn.Conv3d(before, after, (3, 4, 4), stride=step, padding=1)
