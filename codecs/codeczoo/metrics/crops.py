"""Crops of pictures as networks that read text, or know faces, take them; and how wrong what was read is."""

import torch
from torch import Tensor
from torch.nn import functional as F

TEXT, FACE = (32, 128), 112  # pixels of crops: rows and columns of text, a side of faces
POINTS = (  # eyes, tip of the nose, corners of the mouth in a crop of a face, (x, y): those of ArcFace
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041),
)  # fmt: skip


def text_crop(picture: Tensor, box: tuple[int, int, int, int]) -> Tensor | None:
    """A word as large as fits TEXT, in its own shape, black to the right of it or below.

    Args:
        picture: (3, H, W) in [0, 1].
        box: left, top, right, bottom, pixels.

    Returns:
        float32 (3, 32, 128); None of a box that is not within the picture.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= picture.shape[2] and 0 <= top < bottom <= picture.shape[1]):
        return None
    word = picture[None, :, top:bottom, left:right].float()
    scale = min(TEXT[0] / (bottom - top), TEXT[1] / (right - left))
    height, width = (max(1, min(most, int(n * scale))) for n, most in zip(word.shape[2:], TEXT, strict=True))
    word = F.interpolate(word, (height, width), mode="bilinear", antialias=True)
    return F.pad(word, (0, TEXT[1] - width, 0, TEXT[0] - height))[0]


def face_crop(picture: Tensor, points: Tensor) -> Tensor | None:
    """A face turned, scaled and moved so that its points come as close to POINTS as they can.

    Source: Umeyama 1991, as insightface aligns faces.

    Args:
        picture: (3, H, W) in [0, 1].
        points: (5, 2), x and y of eyes, tip of the nose, corners of the mouth, pixels.

    Returns:
        float32 (3, 112, 112), black where the picture ends; None where a point is not within it.
    """
    height, width = picture.shape[1:]
    points, wanted = points.double(), torch.tensor(POINTS, dtype=torch.float64)
    if bool((points < 0).any()) or bool((points >= torch.tensor([width, height])).any()):
        return None
    turn = similarity(wanted, points)  # (2, 3), crop to picture
    place = torch.arange(FACE, dtype=torch.float64)
    grid = torch.stack([*torch.meshgrid(place, place, indexing="xy"), torch.ones(FACE, FACE)], 2)  # (112, 112, 3)
    found = (grid @ turn.T + 0.5) / torch.tensor([width, height]) * 2 - 1  # (112, 112, 2)
    return F.grid_sample(picture[None].float(), found[None].float(), align_corners=False)[0]


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """The turn, scale and shift, (2, 3), that brings points a (n, 2) closest to b (n, 2)."""
    a_mean, b_mean = a.mean(0), b.mean(0)
    u, s, vh = torch.linalg.svd((b - b_mean).T @ (a - a_mean))
    signs = torch.tensor([1.0, float(torch.sign(torch.linalg.det(u @ vh)))], dtype=a.dtype)  # never a mirror image
    scale = (s * signs).sum() / (a - a_mean).square().sum()
    turn = scale * (u * signs @ vh)
    return torch.cat([turn, (b_mean - turn @ a_mean)[:, None]], 1)


def edit_distance(a: str, b: str) -> int:
    """Least number of letters put in, left out or exchanged that makes b of a."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]


def text_ned(wanted: str, read: str) -> float:
    """1 less the edit distance over the length of the longer one: 1 where they are equal."""
    return 1 - edit_distance(wanted, read) / max(len(wanted), len(read), 1)
