"""Sample-wise distances."""

from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.losses.base import MediaTerm


class L1(MediaTerm):
    """Mean absolute difference."""

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, C, *spatial) to a scalar."""
        return F.l1_loss(x_hat, x)


class L2(MediaTerm):
    """Mean squared difference."""

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, C, *spatial) to a scalar."""
        return F.mse_loss(x_hat, x)


class RelativeL2(MediaTerm):
    """Mean square of the difference over that of the sample plus `floor`: 1 where silence answers a loud sample.

    For waveforms, as a signal-to-noise ratio without its logarithm: quiet recordings count as much as loud ones, and
    the loudest frequencies most, which is where phases can be learned.

    Args:
        floor: mean square of a sample below which errors count less.
    """

    def __init__(self, floor: float = 1e-4) -> None:
        super().__init__()
        if floor <= 0:
            raise ConfigError(f"RelativeL2: floor must be above 0, got {floor}")
        self.floor = floor

    def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat (B, C, *spatial) to a scalar."""
        errors, energies = ((x_hat - x).square().flatten(1).mean(1), x.square().flatten(1).mean(1))  # (B,) each
        return (errors / (energies + self.floor)).mean()
