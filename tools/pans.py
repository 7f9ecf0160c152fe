"""Makes clips of photographs, for training a video codec where clips are few: the camera moves, things fly past.

    python tools/pans.py photos/ -o clips --count 1500
    codeczoo train video/hitvideo_small data.root=clips ...

In each clip a window pans over a photograph, zooms and turns a little. In half of the clips a piece of another
photograph, an ellipse, crosses it with a motion of its own: what is hidden and uncovered makes real clips hard.
The same photographs and seed give the same clips.
"""

import argparse
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch
from rich.progress import track
from torch import Generator, Tensor
from torch.nn import functional as F

from codeczoo.data.sampling import uniform
from codeczoo.io import image, video_write
from codeczoo.io.files import find

RATE = Fraction(12)  # frames a second
TURN = 0.2  # radians at most, either way


def clip(photo: Tensor, other: Tensor, frames: int, size: int, random: Generator) -> Tensor:
    """A clip of two photographs.

    Args:
        photo, other: float (3, H, W) and (3, h, w) in [0, 1].
        frames, size: T, S.
        random: of all that is drawn.

    Returns:
        Float (3, T, S, S) in [0, 1].
    """
    x = seen(photo, path(frames, random), size)
    if uniform(0, 1, random) < 0.5:
        thing = seen(other, path(frames, random), size)
        x = x.lerp(thing, ellipse(frames, size, random))
    return x.transpose(0, 1)


def path(frames: int, random: Generator) -> Tensor:
    """Windows (T, 4) of a photograph -1..1 each way: centre x and y, half the side, angle in radians."""
    share = uniform(0.05, 1, random) ** 2  # of the way; most cameras are slow
    ends = []
    for _ in range(2):
        half = uniform(0.4, 0.9, random)
        x, y = (uniform(half - 1, 1 - half, random) for _ in range(2))
        ends.append([x, y, half, uniform(-TURN, TURN, random)])
    start, end = torch.tensor(ends)
    return start + (end - start) * share * ramp(frames, random)


def ramp(frames: int, random: Generator) -> Tensor:
    """From 0 to 1 (T, 1): evenly, or slowly at first or at last."""
    return torch.linspace(0, 1, frames)[:, None] ** uniform(0.6, 1.7, random)


def seen(photo: Tensor, windows: Tensor, size: int) -> Tensor:
    """The photograph (3, H, W), cut to a square, through the windows (T, 4): (T, 3, S, S)."""
    h, w = photo.shape[-2:]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    square = photo[:, top : top + side, left : left + side]
    x, y, half, angle = windows.T
    cos, sin = half * angle.cos(), half * angle.sin()
    matrix = torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)  # (T, 2, 3)
    places = F.affine_grid(matrix, [len(windows), 3, 2 * size, 2 * size], align_corners=False)
    fine = F.grid_sample(
        square.expand(len(windows), -1, -1, -1), places, padding_mode="reflection", align_corners=False
    )
    return F.avg_pool2d(fine, 2)  # of twice the resolution, so that fine lines do not flicker


def ellipse(frames: int, size: int, random: Generator) -> Tensor:
    """Where a thing is that crosses the picture: (T, 1, S, S), 0 to 1 with soft edges."""
    start, end = (torch.tensor([uniform(-1, 1, random), uniform(-1, 1, random)]) for _ in range(2))
    centre = start + (end - start) * ramp(frames, random)  # (T, 2)
    radii = torch.tensor([uniform(0.15, 0.5, random), uniform(0.15, 0.5, random)])
    axis = torch.linspace(-1, 1, size)
    x, y = ((axis - centre[:, i, None]) / radii[i] for i in range(2))  # (T, S)
    distance = (x.square()[:, None, :] + y.square()[:, :, None]).sqrt()
    return torch.sigmoid((1 - distance) * float(radii.min()) * size / 2)[:, None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="photographs: files, folders, patterns")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", type=Path)
    parser.add_argument("--count", type=int, default=1000, help="clips (default 1000)")
    parser.add_argument("--frames", type=int, default=24, help="of each (default 24, two seconds)")
    parser.add_argument("--size", type=int, default=128, help="pixels (default 128)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    found = find(args.paths, image.SUFFIXES)
    args.output.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(args.seed)
    order = torch.randperm(len(found), generator=random).tolist()
    for i in track(range(args.count), "clips"):
        photo, other = (image.read(found[order[(i + k) % len(found)]].path).float() / 255 for k in range(2))
        x = clip(photo, other, args.frames, args.size, random)
        with video_write.Writer(args.output / f"{i:05d}.mp4", RATE) as writer:
            writer.append(x)
    print(f"{args.output}: {args.count} clips of {args.frames} frames of {args.size} px, of {len(found)} photographs")


if __name__ == "__main__":
    main()
