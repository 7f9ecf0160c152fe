"""H.264 and H.265 at the bytes of a token file, for comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from platform import machine
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import InputError, MissingError
from codeczoo.io import ffmpeg, image
from codeczoo.io.video_colours import BT709, EXACT, LIMITED, Scaled
from codeczoo.metrics.video import psnr

SCALES = (2, 4, 8)  # a tiny budget is best spent on a smaller picture
SMALLEST = 16  # pixels a side; H.265 has no smaller pictures
WANTS = "comparing with h264 and h265 wants PyAV"
STEP, STEPS = 0.25, 205  # of the rate factor, 0 to 51: 3 % of the bytes each
RATE = Fraction(25)  # frames a second that the encoder believes in; nothing is coded of it but a header field


@dataclass(frozen=True)
class VideoBaseline:
    """A codec of FFmpeg.

    Args:
        encoder: what FFmpeg calls it.
        format: what FFmpeg calls the decoder, and the elementary stream.
        comments: types of the units that hold the encoder's own advertisement, which no decoder reads.
        options: of the encoder.
    """

    encoder: str
    format: str
    comments: str
    options: dict[str, str]


# One group of pictures; tuned for what is measured; on one thread, so that results are the same on every machine.
COMMON = {"preset": "slow", "tune": "psnr", "g": "100000"}
# With AVX2, x265 4.2 writes behind the end of its own memory (seen at 40 to 48 pixels of width).
X265 = "log-level=none:pools=none:frame-threads=1" + (":asm=sse4" if machine() in ("x86_64", "AMD64") else "")
BASELINES = {
    "h264": VideoBaseline("libx264", "h264", "6", COMMON),
    "h265": VideoBaseline("libx265", "hevc", "39-40", COMMON | {"x265-params": X265}),
}


class Coded(NamedTuple):
    """A clip after a baseline.

    Args:
        x_hat: (3, T, H, W) in [0, 1].
        stream: the elementary stream, which is a file that players read.
        shrunk: 1 / scale.
        psnr: mean over frames, dB.
    """

    x_hat: Tensor
    stream: bytes
    shrunk: int
    psnr: float


def at_bytes(x: Tensor, baseline: VideoBaseline, budget: int) -> Coded:
    """The best clip (by PSNR) in at most `budget` bytes; the smallest when none is small enough.

    All bytes of the elementary stream count, parameter sets included, but for the text that the encoder leaves there
    about itself. Frames are coded as 4:2:0, whose best is about 43 dB of RGB; odd and tiny sides are filled up. Tries
    full, half, quarter and eighth size (frames resized back by the bicubic filter of pictures), each at the lowest
    rate factor that fits, until resizing alone, or a size, is worse than the best so far.

    Args:
        x: (3, T, H, W) in [0, 1].
        baseline: what codes it.
        budget: bytes.

    Raises:
        InputError: another shape. MissingError: PyAV is not there, or its FFmpeg was built without the encoder.
    """
    if x.ndim != 4 or x.shape[0] != 3 or not x.numel():
        raise InputError(f"{baseline.format} takes (3, T, H, W), got {tuple(x.shape)}")
    pixels = (x.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    tries = [_best(pixels, pixels, baseline, budget)]
    for scale in SCALES:
        size, best = (x.shape[2] // scale, x.shape[3] // scale), tries[-1]
        if min(size) < SMALLEST:
            break
        small, fits = _resized(pixels, size), len(best.stream) <= budget
        if fits and _quality(pixels, _resized(small, pixels.shape[2:])) < best.psnr:
            break
        tries.append(_best(pixels, small, baseline, budget))
        if fits and tries[-1].psnr < best.psnr:
            break
    fitting = [t for t in tries if len(t.stream) <= budget]
    return max(fitting, key=lambda t: t.psnr) if fitting else min(tries, key=lambda t: len(t.stream))


def _best(pixels: Tensor, small: Tensor, baseline: VideoBaseline, budget: int) -> Coded:
    """With the frames resized so, the lowest rate factor whose stream fits, else the highest."""
    frames = _yuv(small)
    low, high = 0, STEPS - 1
    found: list[Any] = []
    while low < high:
        middle = (low + high) // 2
        packets = _encoded(frames, baseline, middle * STEP)
        if sum(packet.size for packet in packets) <= budget:
            high, found = middle, packets
        else:
            low = middle + 1
    found = found or _encoded(frames, baseline, high * STEP)
    decoded = _decoded(found, baseline)[:, :, : small.shape[2], : small.shape[3]]
    x_hat = _resized(decoded, (pixels.shape[2], pixels.shape[3]))
    shrunk = round(pixels.shape[2] / small.shape[2])
    return Coded(x_hat.float() / 255, b"".join(map(bytes, found)), shrunk, _quality(pixels, x_hat))


def _quality(pixels: Tensor, x_hat: Tensor) -> float:
    return float(psnr(pixels[None].float() / 255, x_hat[None].float() / 255))


def _resized(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Every frame of (3, T, H, W)."""
    return torch.stack([image.resize(frame, (size[0], size[1])) for frame in pixels.unbind(1)], 1)


def _yuv(pixels: Tensor) -> list[Any]:
    """uint8 (3, T, H, W) to frames of 4:2:0, sides filled up by their edge to even ones."""
    av = ffmpeg.library(WANTS)
    below, right = (max(SMALLEST - n, n % 2) for n in pixels.shape[2:])
    even = F.pad(pixels.float(), (0, right, 0, below, 0, 0), mode="replicate").to(torch.uint8)
    scaled, frames = Scaled(av, "yuv420p"), []
    for i, frame in enumerate(even.permute(1, 2, 3, 0).numpy()):  # (H, W, 3)
        for made in scaled(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")):
            made.pts = i
            frames.append(made)
    return frames


def _encoded(frames: list[Any], baseline: VideoBaseline, factor: float) -> list[Any]:
    """The packets of the elementary stream."""
    av = ffmpeg.library(WANTS)
    if baseline.encoder not in av.codecs_available:
        raise MissingError(f"comparing with {baseline.format}: PyAV's FFmpeg was built without {baseline.encoder}")
    context: Any = av.CodecContext.create(baseline.encoder, "w")
    context.width, context.height, context.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
    context.time_base, context.framerate, context.thread_count = 1 / RATE, RATE, 1
    context.options = baseline.options | {"crf": str(factor)}
    strip = av.bitstream.BitStreamFilterContext(f"filter_units=remove_types={baseline.comments}", baseline.format)
    packets = [packet for frame in [*frames, None] for packet in context.encode(frame)]
    return [kept for packet in [*packets, None] for kept in strip.filter(packet)]


def _decoded(packets: list[Any], baseline: VideoBaseline) -> Tensor:
    """uint8 (3, T, H, W)."""
    av = ffmpeg.library(WANTS)
    context: Any = av.CodecContext.create(baseline.format, "r")
    context.thread_count = 1
    scaler = av.video.reformatter.VideoReformatter()
    how = {"interpolation": EXACT, "src_colorspace": BT709, "src_color_range": LIMITED}
    frames = [
        torch.from_numpy(scaler.reformat(frame, format="rgb24", **how).to_ndarray())
        for packet in [*packets, None]
        for frame in context.decode(packet)
    ]
    return torch.stack(frames).permute(3, 0, 1, 2)  # (T, H, W, 3) -> (3, T, H, W)
