"""Convolutions of narrow pictures."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.nn.conv2d import Conv2d, conv2d

Pair = tuple[int, int]
CASES = [((3, 9), (1, 2), (1, 4)), ((4, 4), (2, 2), (1, 1)), ((3, 3), (2, 2), (0, 0)), ((3, 5), (1, 3), (1, 2))]


def run(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, plain: bool) -> list[Tensor]:
    """The output, and the gradients of its squares."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = F.conv2d(x, weight, None, stride, padding) if plain else conv2d(x, weight, None, stride, padding)
    return [y.detach(), *torch.autograd.grad(y.float().square().sum(), (x, weight))]


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_bfloat16_is_right_however_narrow(kernel: Pair, stride: Pair, padding: Pair, columns: int) -> None:
    """A single column of strided outputs held numbers, and gradients, of memory that was none of its own."""
    if columns + 2 * padding[1] < kernel[1]:
        pytest.skip("there is no window")
    torch.manual_seed(0)
    for _ in range(4):
        torch.full((1 << 16,), torch.nan, dtype=torch.bfloat16)  # what such memory may hold
        x, weight = (torch.randn(*shape).bfloat16() for shape in ((2, 8, 19, columns), (8, 8, *kernel)))
        found = run(x, weight, stride, padding, plain=False)
        wanted = run(x.float(), weight.float(), stride, padding, plain=True)
        for a, b in zip(found, wanted, strict=True):
            assert a.shape == b.shape and (a.float() - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("columns", [1, 2, 3, 7])
def test_as_torch(columns: int) -> None:
    torch.manual_seed(0)
    ours = Conv2d(4, 6, (3, 5), stride=(2, 2), padding=(2, 4), dilation=(2, 2), groups=2)
    theirs = torch.nn.Conv2d(4, 6, (3, 5), stride=(2, 2), padding=(2, 4), dilation=(2, 2), groups=2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 9, columns)
    torch.testing.assert_close(ours(x), theirs(x))
