"""Moving pictures drawn by formula: something that moves, turns and hides to learn from, without a download.

A film is a pure function of (seed, index): solids on their ways before a background, or a moving pattern, seen by a
camera that may pan, turn and come nearer. Frame k is the same for every number of frames, and alike at every size.
"""

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.data.painting import Picture, Plane, colour, gradient, mix, solid, texture
from codeczoo.data.pictures import grid

Track = Plane  # (T * H, 1): a number for each row of each frame


def generated_film(seed: int, index: int, size: int, frames: int, rate: float = 12.0) -> Tensor:
    """Film number `index` of the endless reel `seed`.

    Args:
        seed, index: non-negative; the same pair always gives the same film.
        size: H = W, pixels, at least 8.
        frames: T, at least 1.
        rate: frames per second.

    Returns:
        float32 (3, T, size, size) in [0, 1].
    """
    if size < 8 or frames < 1 or rate <= 0 or min(seed, index) < 0:
        got = f"size {size}, {frames} frames, rate {rate}, seed {seed}, index {index}"
        raise InputError(f"generated films want size >= 8, 1 frame, rate > 0, seed and index >= 0, got {got}")
    rng = np.random.default_rng((seed, index))
    # The frames stand one below the other, (T * H, W), so that what paints a picture paints a film.
    x, y = (np.tile(plane, (frames, 1)) for plane in grid(size))
    seconds = np.repeat(np.arange(frames) / rate, size)[:, None].astype(np.float32)  # (T * H, 1)
    scene = (parade, weaving)[int(rng.random() < 0.2)]
    film = scene(rng, *camera(rng, x, y, seconds), seconds).reshape(3, frames, size, size)
    return torch.from_numpy(np.clip(film, 0, 1))


def camera(rng: Generator, x: Plane, y: Plane, seconds: Track) -> tuple[Plane, Plane]:
    """Where each pixel looks: half of the cameras stand still, the others pan, turn or come nearer."""
    if rng.random() < 0.5:
        return x, y
    pan, turn, near = rng.uniform(-0.5, 0.5, 2), rng.uniform(-0.4, 0.4), rng.uniform(-0.25, 0.25)
    scale = np.exp(seconds * np.float32(near))
    cos, sin = np.cos(seconds * np.float32(turn)) * scale, np.sin(seconds * np.float32(turn)) * scale
    u = x * cos - y * sin + seconds * np.float32(pan[0])
    return u, x * sin + y * cos + seconds * np.float32(pan[1])


def parade(rng: Generator, x: Plane, y: Plane, seconds: Track) -> Picture:
    """One to four shaded solids on their ways; nearer ones hide farther ones."""
    hue = rng.random()
    film = gradient(rng, x, y, colour(hue, rng.uniform(0.1, 0.5), rng.uniform(0.55, 0.95)),
                    colour(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.8)))
    if rng.random() < 0.4:
        weave = texture(rng, x, y, rng.uniform(2, 5)) * np.float32(rng.uniform(0.1, 0.4))
        film = mix(film, colour(hue + rng.uniform(-0.2, 0.2), 0.4, 0.6), weave)
    light = rng.uniform(-1, 1), -1.0
    for offset in rng.permutation((0.08, 0.33, 0.5, 0.66, 0.9))[: rng.integers(1, 5)]:
        right, down = way(rng, seconds)
        film = solid(rng, film, x - right, y - down, hue + offset, light)
    return film


def weaving(rng: Generator, x: Plane, y: Plane, seconds: Track) -> Picture:
    """Stripes, checks, rings or waves that drift, with a solid on top."""
    hue, (right, down) = rng.random(), rng.uniform(-0.6, 0.6, 2).astype(np.float32)
    weave = texture(rng, x - seconds * right, y - seconds * down, rng.uniform(2, 6))
    first = gradient(rng, x, y, colour(hue, 0.6, 0.9), colour(hue + 0.1, 0.7, 0.6))
    second = colour(hue + rng.choice((0.33, 0.5, 0.6)), rng.uniform(0.1, 0.6), rng.uniform(0.7, 1.0))
    across, along = way(rng, seconds)
    return solid(rng, mix(first, second, weave), x - across, y - along, hue + 0.5, (rng.uniform(-1, 1), -1.0))


def way(rng: Generator, seconds: Track) -> tuple[Track, Track]:
    """Right and down from where a solid stands at 0 s: a line that bounces to and fro, a circle or a swing."""
    kind, speed, turn = rng.integers(3), rng.uniform(0.2, 1.2), rng.uniform(0, 2 * np.pi)
    reach = rng.uniform(0.2, 0.7)
    phase = seconds * np.float32(speed / reach)
    if kind == 0:
        far = np.abs((phase + 1) % 4 - 2) - 1  # a triangle between 1 and -1 that is 0 at 0 s
        return far * np.float32(reach * np.cos(turn)), far * np.float32(reach * np.sin(turn))
    if kind == 1:
        right, down = np.cos(phase + np.float32(turn)), np.sin(phase + np.float32(turn))
        return (right - right[0]) * np.float32(reach), (down - down[0]) * np.float32(reach)
    far = np.sin(phase) * np.float32(reach)
    return far * np.float32(np.cos(turn)), far * np.float32(np.sin(turn))
