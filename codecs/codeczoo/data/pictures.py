"""Pictures drawn by formula: something colourful and structured to learn from, without a download.

A picture is a pure function of (seed, index): a still life, landscape or pattern in a random harmonious palette.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.data.painting import Picture, Plane, colour, cover, gradient, mix, solid, texture, waves


def generated_picture(seed: int, index: int, size: int) -> Tensor:
    """Picture number `index` of the endless album `seed`.

    Args:
        seed, index: non-negative; the same pair always gives the same picture.
        size: H = W, pixels, at least 8.

    Returns:
        float32 (3, size, size) in [0, 1].
    """
    if size < 8 or seed < 0 or index < 0:
        raise InputError(f"generated pictures want size >= 8, seed and index >= 0, got {size}, {seed}, {index}")
    rng = np.random.default_rng((seed, index))
    scene = (still_life, landscape, pattern)[rng.choice(3, p=(0.5, 0.3, 0.2))]
    picture = scene(rng, *grid(size))
    return torch.from_numpy(np.clip(picture, 0, 1))


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Plane, Plane]:
    """Pixel centres: x rightwards (H, W) and y downwards (H, W), both in [-1, 1]."""
    axis = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def still_life(rng: Generator, x: Plane, y: Plane) -> Picture:
    """Two to five shaded solids with soft shadows before a gradient."""
    hue = rng.random()
    picture = gradient(rng, x, y, colour(hue, rng.uniform(0.1, 0.5), rng.uniform(0.55, 0.95)),
                       colour(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.8)))
    light = rng.uniform(-1, 1), -1.0
    for offset in rng.permutation((0.08, 0.33, 0.5, 0.66, 0.9))[: rng.integers(2, 6)]:
        tint = hue + offset
        picture = solid(rng, picture, x, y, tint, light)
    return picture


def landscape(rng: Generator, x: Plane, y: Plane) -> Picture:
    """Sky with a sun and clouds, two to four ridges fading into the distance, sometimes water."""
    hue, horizon = rng.choice((0.56, 0.6, 0.66, 0.95, 0.04)), rng.uniform(-0.1, 0.35)
    top = colour(hue, rng.uniform(0.4, 0.75), rng.uniform(0.5, 0.9))
    low = colour(rng.choice((rng.uniform(0.02, 0.14), 0.54)), rng.uniform(0.12, 0.4), 0.98)  # dusk or day
    picture = mix(top, low, np.clip((y + 1) / (1 + horizon), 0, 1))
    sun_x, sun_y = rng.uniform(-0.8, 0.8), rng.uniform(-0.75, horizon - 0.1)
    away = np.hypot(x - np.float32(sun_x), y - np.float32(sun_y))
    sun = colour(rng.uniform(0.06, 0.16), rng.uniform(0.1, 0.7), 1.0)
    picture = mix(picture, sun, 0.6 * np.exp(-away * np.float32(3)))
    picture = mix(picture, sun, cover(away - np.float32(rng.uniform(0.1, 0.24)), x))
    for _ in range(rng.integers(0, 4)):
        across = (x - rng.uniform(-1, 1)) / rng.uniform(0.3, 0.7)
        cloud = np.hypot(across, (y - rng.uniform(-0.9, horizon - 0.3)) / 0.09)
        picture = mix(picture, colour(hue, 0.05, 1.0), 0.75 * np.clip(1.6 - cloud, 0, 1))
    ground, ridges = rng.uniform(0.2, 0.5), rng.integers(2, 5)
    for near in np.linspace(0.25, 1.0, ridges):
        ridge = np.float32(horizon - 0.25 + 0.75 * near) + waves(rng, x[:1], 0.22 - 0.08 * near)
        tint = mix(low, colour(ground, 0.55, 0.75 - 0.45 * near), np.float32(near))
        shade = 1 - np.clip((y - ridge) * np.float32(0.5), 0, 0.5)
        picture = mix(picture, tint * shade, cover(ridge - y, x))
    if rng.random() < 0.35:
        shore = np.float32(rng.uniform(0.45, 0.75))
        ripple = 0.5 + 0.5 * np.sin((y - shore + 0.15) ** 2 * 90 + waves(rng, x[:1], 2.0))
        picture = mix(picture, mix(top, low, ripple * 0.6), cover(shore - y, x) * np.float32(0.9))
    return picture


def pattern(rng: Generator, x: Plane, y: Plane) -> Picture:
    """Stripes, checks, rings or waves in two or three colours, sometimes a solid on top."""
    hue = rng.random()
    weave = texture(rng, x, y, rng.uniform(3, 9))
    first = gradient(rng, x, y, colour(hue, 0.6, 0.9), colour(hue + 0.1, 0.7, 0.6))
    second = colour(hue + rng.choice((0.33, 0.5, 0.6)), rng.uniform(0.1, 0.6), rng.uniform(0.7, 1.0))
    picture = mix(first, second, weave)
    if rng.random() < 0.6:
        picture = solid(rng, picture, x, y, hue + 0.5, (rng.uniform(-1, 1), -1.0))
    return picture
