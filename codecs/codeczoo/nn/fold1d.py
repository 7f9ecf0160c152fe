"""Strided convolutions over time as unstrided ones over folded channels: `stride` steps become one of so many channels.

For bfloat16 on CPUs: oneDNN, as torch 2.11 has it, gets strided convolutions wrong there on processors with AMX, by as
much as the result itself, where the kernel is a whole number of strides of at least 4 and the channels are fewer than
32. The same goes for gradients of transposed ones. Folded they are right, and faster.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def applies(x: Tensor, kernel: int, stride: int, dilation: int = 1, groups: int = 1) -> bool:
    """Whether a convolution of x (B, C, T), transposed or not, should be folded."""
    if x.device.type != "cpu" or stride == 1 or kernel % stride or dilation != 1 or groups != 1:
        return False
    return x.dtype == torch.bfloat16 or (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """As torch's, x (B, C, T) to (B, C', T'); weight (C', C, kernel), kernel a multiple of stride."""
    steps = x.shape[2] // stride  # what is left over is no window
    folded = x[:, :, : steps * stride].unflatten(2, (steps, stride))  # (B, C, steps, stride)
    return F.conv1d(folded.permute(0, 3, 1, 2).flatten(1, 2), fold(weight, stride), bias)


def conv_transpose1d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """As torch's, x (B, C, T) to (B, C', (T - 1) * stride + kernel); weight (C, C', kernel)."""
    taps = spread(weight, stride)  # (stride * C', C, windows)
    y = F.conv1d(F.pad(x, (taps.shape[2] - 1,) * 2), taps, None if bias is None else bias.repeat(stride))
    y = y.unflatten(1, (stride, -1)).permute(0, 2, 3, 1).flatten(2)  # (B, C', steps * stride)
    return y[:, :, : (x.shape[2] - 1) * stride + weight.shape[2]]


def fold(weight: Tensor, stride: int) -> Tensor:
    """Weight (C', C, kernel) to that of the convolution over folded channels, (C', stride * C, kernel / stride)."""
    return weight.unflatten(2, (-1, stride)).permute(0, 3, 1, 2).flatten(1, 2)


def spread(weight: Tensor, stride: int) -> Tensor:
    """Weight (C, C', kernel) of a transposed convolution to that of a convolution, (stride * C', C, windows).

    Each of its outputs is `stride` steps, next to each other.
    """
    taps = F.pad(weight, (0, -weight.shape[2] % stride)).unflatten(2, (-1, stride))  # (C, C', windows, stride)
    return taps.flip(2).permute(3, 1, 0, 2).flatten(0, 1).contiguous()
