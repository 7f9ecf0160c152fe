"""Parts of generated pictures: colours, gradients, textures, shaded solids with soft shadows.

Shapes are signed distances (negative inside), so that edges are antialiased alike at every size.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[np.float32]  # (H, W)
Picture = NDArray[np.float32]  # (3, H, W)
Colour = NDArray[np.float32]  # (3, 1, 1)
Distance = Callable[[Plane, Plane], Plane]


def solid(rng: Generator, picture: Picture, x: Plane, y: Plane, hue: float, light: tuple[float, float]) -> Picture:
    """`picture` with one shaded shape and its soft shadow, at a random place."""
    centre_x, centre_y, radius = rng.uniform(-0.75, 0.75), rng.uniform(-0.6, 0.75), rng.uniform(0.18, 0.48)
    distance = shape(rng, radius)
    u, v = np.float32(centre_x), np.float32(centre_y)
    drop = np.float32(0.12 * radius / 0.3)
    shadow = distance(x - u + drop * np.float32(light[0]), y - v - drop)
    picture = picture * (1 - np.float32(0.5) * np.clip(0.5 - shadow / np.float32(0.16), 0, 1))
    inside = cover(distance(x - u, y - v), x)
    along = ((x - u) * np.float32(light[0]) + (y - v) * np.float32(light[1])) / np.float32(2.5 * radius)
    bright = colour(hue, rng.uniform(0.35, 0.8), 1.0)
    dark = colour(hue - 0.04, rng.uniform(0.7, 1.0), rng.uniform(0.3, 0.55))
    body = mix(dark, bright, np.clip(0.5 + along, 0, 1))
    if rng.random() < 0.35:
        weave = texture(rng, x - u, y - v, rng.uniform(6, 14))
        body = mix(body, colour(hue + 0.5, 0.3, 0.95), weave * np.float32(0.8))
    return mix(picture, body, inside)


def shape(rng: Generator, radius: float) -> Distance:
    """An ellipse, ring, rounded box, crescent or regular polygon around the origin, turned at random."""
    kind, turn, stretch = rng.integers(5), rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 1.0)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    a, b = np.float32(radius), np.float32(radius * stretch)
    angles = turn + np.linspace(0, 2 * np.pi, rng.integers(3, 7), endpoint=False)
    normals = [(np.float32(np.cos(t)), np.float32(np.sin(t))) for t in angles]

    def ellipse(x: Plane, y: Plane) -> Plane:
        return (np.hypot((x * cos + y * sin) / a, (y * cos - x * sin) / b) - 1) * b

    def ring(x: Plane, y: Plane) -> Plane:
        return np.abs(ellipse(x, y)) - b * np.float32(0.28)

    def box(x: Plane, y: Plane) -> Plane:
        return np.maximum(np.abs(x * cos + y * sin) - a, np.abs(y * cos - x * sin) - b)

    def crescent(x: Plane, y: Plane) -> Plane:
        bite = np.hypot(x - a * np.float32(0.5) * cos, y - a * np.float32(0.5) * sin) - a * np.float32(0.8)
        return np.maximum(np.hypot(x, y) - a, -bite)

    def polygon(x: Plane, y: Plane) -> Plane:
        far = [x * c + y * s for c, s in normals]
        return np.maximum.reduce(far) - b

    return (ellipse, ring, box, crescent, polygon)[kind]


def texture(rng: Generator, x: Plane, y: Plane, frequency: float) -> Plane:
    """Stripes, checks, rings or waves, (H, W) in [0, 1], at a random angle."""
    kind, turn = rng.integers(4), rng.uniform(0, np.pi)
    k = np.float32(frequency)
    u = (x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))) * k
    v = (y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))) * k
    waveform = (
        lambda: np.sin(u * np.float32(np.pi)),
        lambda: np.sin(u * 2) * np.sin(v * 2),
        lambda: np.sin(np.hypot(u, v) * np.float32(np.pi)),
        lambda: np.sin(u * 2 + np.sin(v)),
    )[kind]()
    return np.clip(0.5 + waveform * np.float32(rng.uniform(0.8, 5)), 0, 1)


def gradient(rng: Generator, x: Plane, y: Plane, a: Colour, b: Colour) -> Picture:
    """From colour `a` to `b` across the picture in a random direction."""
    turn = rng.uniform(0, 2 * np.pi)
    return mix(a, b, 0.5 + np.float32(0.4 * np.cos(turn)) * x + np.float32(0.4 * np.sin(turn)) * y)


def waves(rng: Generator, x: Plane, height: float) -> Plane:
    """A hilly line: four sines of falling height."""
    line = np.zeros_like(x)
    for octave in range(4):
        line += np.float32(height / 2**octave) * np.sin(x * rng.uniform(1, 2) * 2**octave * 1.7 + rng.uniform(0, 6.3))
    return line


def cover(distance: Plane, x: Plane) -> Plane:
    """How much of each pixel lies inside, in [0, 1]."""
    return np.clip(0.5 - distance * np.float32(x.shape[-1] / 2), 0, 1)


def mix(a: Picture | Colour, b: Picture | Colour, weight: Plane | np.float32) -> Picture:
    """`a` where weight is 0, `b` where it is 1."""
    return a + (b - a) * weight


def colour(hue: float, saturation: float, value: float) -> Colour:
    """HSV, hue in turns, to RGB (3, 1, 1)."""
    k = (np.array((5, 3, 1)) + hue * 6) % 6
    rgb = value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
    return rgb.astype(np.float32)[:, None, None]
