"""What a multi-scale quantizer does between its scales: resampling of grids, and the smoothing after it."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError


class Resampler(nn.Module, ABC):
    """Carries grids of vectors to other sizes; down by the mean of the area that each cell covers.

    Attributes:
        ranks: numbers of grid axes that it works on.
    """

    ranks: tuple[int, ...] = (1, 2, 3)

    def down(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """x (B, C, *S) to (B, C, *size), no larger. Linear in x, with weights that are not negative."""
        return F.interpolate(x, size, mode="area")

    @abstractmethod
    def up(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """x (B, C, *S) to (B, C, *size), no smaller."""


class Nearest(Resampler):
    """Up by copies."""

    def up(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """See Resampler."""
        return F.interpolate(x, size, mode="nearest-exact")


class Linear(Resampler):
    """Up by (bi-, tri-) linear interpolation; positions are centres of cells."""

    def up(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """See Resampler."""
        return F.interpolate(x, size, mode=("linear", "bilinear", "trilinear")[len(size) - 1])


class Bicubic(Resampler):
    """Up by bicubic interpolation, as VAR and TokenFlow do; images only."""

    ranks = (2,)

    def up(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """See Resampler."""
        return F.interpolate(x, size, mode="bicubic")


class Smoothing(nn.Module):
    """A convolution mixed with the identity, (1 - share) h + share conv(h); scales share a few of them.

    Source: phi of VAR (arXiv 2404.02905, github.com/FoundationVision/VAR), which has 4 for 10 scales, share 0.5.

    Args:
        dim: D, channels.
        scales: number of scales.
        rank: number of grid axes, 1..3.
        convs: convolutions, 1..scales; each serves neighbouring scales.
        share: of the convolution in the result, 0..1.
        kernel: its width along each axis, odd.
    """

    def __init__(
        self, dim: int, scales: int, rank: int = 2, convs: int = 4, share: float = 0.5, kernel: int = 3
    ) -> None:
        super().__init__()
        if rank not in (1, 2, 3) or not 1 <= convs <= scales or not 0 <= share <= 1 or kernel % 2 == 0:
            got = f"{rank}, {convs} for {scales} scales, {share}, {kernel}"
            raise ConfigError(f"Smoothing: rank 1..3, convs 1..scales, share 0..1 and kernel odd, got {got}")
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.convs = nn.ModuleList(conv(dim, dim, kernel, padding=kernel // 2) for _ in range(convs))
        self.share, self.scales, self.rank = share, scales, rank
        self.serving = tuple(_closest(k / max(scales - 1, 1), convs) for k in range(scales))

    def forward(self, h: Tensor, scale: int) -> Tensor:
        """h (B, D, *S) of a scale, 0 the coarsest, to the same shape."""
        return h * (1 - self.share) + self.convs[self.serving[scale]](h) * self.share


def _closest(at: float, convs: int) -> int:
    """Which of the points that stand for the convolutions in 0..1 is closest; the arithmetic is VAR's, ties too."""
    first = 1 / 3 / convs if convs == 4 else 1 / 2 / convs
    step = (1 - first - first) / max(convs - 1, 1)
    points = [k * step + first for k in range(convs - 1)] + [1 - first]
    return min(range(convs), key=lambda k: abs(points[k] - at))
