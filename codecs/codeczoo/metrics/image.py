"""PSNR, SSIM and MS-SSIM of pictures in [0, 1], one value per picture; average them over pictures yourself."""

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import InputError

RADIUS, SIGMA = 5, 1.5  # of the Gaussian window, 11 taps
C1, C2 = 0.01**2, 0.03**2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM, fine to coarse
CAP = 100.0  # dB; what identical pictures get instead of infinity


def psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, at most 100 (identical pictures), so that means stay finite.

    x, x_hat (B, C, *spatial) in [0, 1] to float32 (B,). Raises InputError for shapes that differ.
    """
    x, x_hat = check(x, x_hat, 1)
    error = (x - x_hat).square().flatten(1).mean(1)  # (B,)
    return -10 * error.clamp_min(10 ** (-CAP / 10)).log10()


def ssim(x: Tensor, x_hat: Tensor) -> Tensor:
    """Structural similarity, mean over channels and all positions, borders by reflection.

    x, x_hat (B, C, H, W) in [0, 1], H and W at least 6, to float32 (B,). Raises InputError.
    Source: Wang et al. 2004; Gaussian window of 11 taps and sigma 1.5, as torchmetrics.
    """
    x, x_hat = check(x, x_hat, RADIUS + 1)
    luminance, structure = similarity(*(F.pad(side, (RADIUS,) * 4, mode="reflect") for side in (x, x_hat)))
    return (luminance * structure).flatten(1).mean(1)


def ms_ssim(x: Tensor, x_hat: Tensor) -> Tensor:
    """Multi-scale structural similarity over five scales; negative factors count as 0.

    x, x_hat (B, C, H, W) in [0, 1], H and W at least 176, to float32 (B,). Raises InputError.
    Source: Wang, Simoncelli, Bovik 2003; contrast without borders, the coarsest luminance with them, as torchmetrics.
    """
    x, x_hat = check(x, x_hat, (2 * RADIUS + 1) * 2 ** (len(SCALES) - 1))
    product = x.new_ones(len(x))
    for i, exponent in enumerate(SCALES):
        if i < len(SCALES) - 1:
            _, structure = similarity(x, x_hat)
            factor = structure.flatten(1).mean(1)
            x, x_hat = F.avg_pool2d(x, 2), F.avg_pool2d(x_hat, 2)
        else:
            factor = ssim(x, x_hat)
        product = product * factor.relu() ** exponent
    return product


def similarity(x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
    """The luminance map and the map of contrast times structure, (B, C, H - 10, W - 10), whose product is SSIM."""
    fields = torch.cat([x, x_hat, x * x, x_hat * x_hat, x * x_hat])
    mean, mean_hat, square, square_hat, product = gaussian(fields).chunk(5)
    luminance = (2 * mean * mean_hat + C1) / (mean.square() + mean_hat.square() + C1)
    # Rounding can make the variance of a flat region slightly negative.
    variance = (square - mean.square()).relu() + (square_hat - mean_hat.square()).relu()
    return luminance, (2 * (product - mean * mean_hat) + C2) / (variance + C2)


def gaussian(x: Tensor) -> Tensor:
    """x (B, C, H, W) to its Gaussian means over 11x11, (B, C, H - 10, W - 10): rows, then columns; without autocast."""
    taps = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32, device=x.device)
    taps = torch.exp(-0.5 * (taps / SIGMA).square())
    taps = (taps / taps.sum()).expand(x.shape[1], 1, -1)  # (C, 1, 11)
    with torch.autocast(x.device.type, enabled=False):  # variances are differences of nearly equal means
        x = F.conv2d(x, taps[:, :, :, None], groups=x.shape[1])
        return F.conv2d(x, taps[:, :, None, :], groups=x.shape[1])


def check(x: Tensor, x_hat: Tensor, smallest: int) -> tuple[Tensor, Tensor]:
    """Both in float32. Raises InputError for different shapes or media smaller than `smallest`."""
    if x.shape != x_hat.shape:
        raise InputError(f"pictures to compare differ in shape: {tuple(x.shape)} and {tuple(x_hat.shape)}")
    if x.ndim < 3 or min(x.shape[2:]) < smallest:
        raise InputError(f"this measure takes (B, C, H, W) of at least {smallest} pixels a side, got {tuple(x.shape)}")
    return x.float(), x_hat.float()
