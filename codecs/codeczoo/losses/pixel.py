"""Sample-wise distances."""

from torch import Tensor
from torch.nn import functional as F

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
