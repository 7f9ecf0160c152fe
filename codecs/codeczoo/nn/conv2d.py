"""Convolutions over pictures that are right for narrow ones too.

oneDNN, as torch 2.11 has it, reads memory that is none of its own where a strided convolution in bfloat16 gives one
column only, on processors with AMX. A stride along one window says nothing, so here that window is convolved without.
"""

from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair = (0, 0), dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """As torch's, x (B, C, H, W) to (B, C', H', W'); weight (C', C / groups, kernel, kernel)."""
    reach = (weight.shape[3] - 1) * dilation[1] + 1  # columns that a window covers
    if stride[1] > 1 and reach <= x.shape[3] + 2 * padding[1] < reach + stride[1]:
        x = F.pad(x, (padding[1], padding[1]))[..., :reach]  # the only window
        stride, padding = (stride[0], 1), (padding[0], 0)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


class Conv2d(nn.Conv2d):
    """torch's, of numbers as padding, by way of `conv2d`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        return conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]
