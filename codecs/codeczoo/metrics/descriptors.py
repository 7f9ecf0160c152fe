"""Media to short feature vectors without any weights: what a linear probe sees where no network is given."""

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.nn.spectrogram import MelSpectrogram

SIDE, CELLS, BINS = 64, 8, 8  # pixels and cells a side of a picture, directions of its edges
FRAMES = 8  # of a clip
MELS, WINDOW = 40, 0.05  # bands, seconds
FLOOR, QUIET = 1e-5, 1e-3  # least magnitude that a logarithm sees; that, of the loudest band (60 dB below it)


def picture(x: Tensor) -> Tensor:
    """Colours and edges of x (3, H, W) in [0, 1], float32 (CELLS ** 2 * (3 + BINS),).

    The picture is brought to 64 x 64; each of 8 x 8 cells gives its mean colour, and how much edge it has in each of 8
    directions. Source: histograms of oriented gradients (Dalal and Triggs 2005), without overlapping blocks.
    """
    small = F.interpolate(x[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True)[0]  # (3, 64, 64)
    colours = F.avg_pool2d(small, SIDE // CELLS)  # (3, 8, 8)
    grey = F.pad(small.mean(0)[None], (1, 1, 1, 1), mode="replicate")[0]  # (66, 66)
    across, down = grey[1:-1, 2:] - grey[1:-1, :-2], grey[2:, 1:-1] - grey[:-2, 1:-1]
    strength = (across.square() + down.square()).sqrt()
    turned = torch.atan2(down, across) % torch.pi / torch.pi * BINS  # a dark and a bright side are the same edge
    shares = (1 - (turned - torch.arange(BINS)[:, None, None] + BINS / 2).remainder(BINS).sub(BINS / 2).abs()).relu()
    edges = F.avg_pool2d(strength * shares, SIDE // CELLS)  # (BINS, 8, 8)
    return torch.cat([colours.flatten(), (edges / (edges.norm(dim=0) + 0.01)).flatten()])


def clip(x: Tensor) -> Tensor:
    """Mean and deviation of the `picture`s of up to FRAMES frames of x (3, T, H, W) in [0, 1], evenly spread."""
    places = torch.linspace(0, x.shape[1] - 1, min(FRAMES, x.shape[1])).round().long().tolist()
    found = torch.stack([picture(x[:, place]) for place in places])
    return torch.cat([found.mean(0), found.std(0, correction=0)])


def sound(x: Tensor, rate: int) -> Tensor:
    """Mean and deviation over time of the log-mel bands of x (C, T), and of their changes, float32 (4 * MELS,)."""
    length = 2 ** max(6, round(WINDOW * rate).bit_length())
    mel = MelSpectrogram(length, length // 4, sample_rate=rate, n_mels=MELS)
    mono = F.pad(x.float().mean(0)[None, None], (0, max(0, length - x.shape[1])))
    bands = mel(mono)[0, 0]  # (MELS, frames)
    # Below that, a codec's faintest noise where an original has none would drown all else.
    bands = bands.clamp_min(max(FLOOR, QUIET * float(bands.max()))).log10()
    changes = bands.diff(dim=1)
    return torch.cat([half for each in (bands, changes) for half in (each.mean(1), each.std(1, correction=0))])
