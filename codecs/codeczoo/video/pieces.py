"""Clips of any length, piece by piece, in memory that does not grow with their duration; large frames in tiles."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from math import lcm

import torch
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens
from codeczoo.video.codec import VideoCodec
from codeczoo.video.tiles import Frames, Tiles, Whole

AT_ONCE = 2**20  # pixels of all frames that are decoded at once, where one step in time has no more


@torch.no_grad()
def encode_pieces(codec: VideoCodec, pieces: Iterable[Tensor]) -> Tokens:
    """One clip, or several of one length, to the tokens that `codec.encode` gives of the whole.

    Args:
        codec: in evaluation mode.
        pieces: (B, 3, t, H, W) in [0, 1] each, t >= 0, in order.

    Raises:
        InputError: no frames at all, or an encoder that cannot run piece by piece.
    """
    stream, found, frames = codec.stream(), [], 0
    for piece in pieces:
        found.append(stream.encode(piece))
        frames += piece.shape[2]
    if not frames:
        raise InputError("a clip without frames has no tokens")
    found.append(stream.encode(piece[:, :, :0], last=True))
    size = torch.tensor([frames, *piece.shape[3:]], device=piece.device).repeat(len(piece), 1)
    return Tokens(codec.spec, tuple(torch.cat(parts, 2) for parts in zip(*found, strict=True)), size)


@torch.no_grad()
def decode_pieces(codec: VideoCodec, tokens: Tokens, tile: int | None = None) -> Iterator[Tensor]:
    """Tokens to their frames, (B, 3, t, H, W) in [0, 1] each, as many in all as `codec.decode` gives.

    Args:
        codec: in evaluation mode.
        tokens: of one clip, or of several of one size, or a prefix of them.
        tile: frames with a longer side, pixels, are decoded in tiles of this side at most, see Tiles; that changes
            them a little. None: never.

    Raises:
        InputError: clips of unequal size, a tile of no use, or a decoder that cannot run piece by piece.
    """
    sizes, lengths = tokens.size, [tokens.stream_lengths(s) for s in range(len(tokens.streams))]
    if any(bool((values != values[:1]).any()) for values in (sizes, *lengths)):
        raise InputError("clips of unequal size are decoded one by one")
    streams = [codes[:, :, : int(n[0])] for codes, n in zip(tokens.check_range().streams, lengths, strict=True)]
    strides = strides_of(tokens)
    total, height, width = sizes[0].tolist()
    left = min(total, *(1 + (codes.shape[2] - 1) * f for codes, (f, _, _) in zip(streams, strides, strict=True)))
    frames: Frames = Whole(codec)
    if tile is not None and max(height, width) > tile:
        frames = Tiles(codec, [(h, w) for _, h, w in strides], (height, width), tile)
    for piece, last in _in_time(streams, [f for f, _, _ in strides], AT_ONCE // max(1, height * width)):
        x_hat = frames.decode(piece, last)[:, :, :left, :height, :width]
        left -= x_hat.shape[2]
        if x_hat.shape[2]:
            yield x_hat


def strides_of(tokens: Tokens) -> list[tuple[int, int, int]]:
    """Frames, rows and columns of a position of each stream that is there. Raises InputError for no video."""
    strides = [stream.stride for stream in tokens.spec.streams[: len(tokens.streams)]]
    if None in strides:
        raise InputError("these tokens are of no video")
    return [stride for stride in strides if stride]


def _in_time(
    streams: Sequence[Tensor], strides: Sequence[int], frames: int
) -> Iterator[tuple[tuple[Tensor, ...], bool]]:
    """Pieces of all streams that stand for the same frames, about so many, and whether one is the last."""
    unit = lcm(*strides)
    step, starts, last = max(1, frames // unit) * unit, [0] * len(streams), False
    for end in count(step, step):  # and the first frame before it
        ends = [1 + end // f for f in strides]
        last = all(e >= codes.shape[2] for e, codes in zip(ends, streams, strict=True))
        yield tuple(codes[:, :, a:e] for codes, a, e in zip(streams, starts, ends, strict=True)), last
        if last:
            return
        starts = ends
