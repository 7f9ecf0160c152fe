"""Opus and MP3 at the bytes of a token file, for comparison; what comes back lies on the original to the sample."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import InputError, MissingError
from codeczoo.io.audio import read, resample
from codeczoo.io.audio_sources import ContainerSource


class Step(NamedTuple):
    """A bitrate, and the sampling rate, Hz, that it is best spent on."""

    kbps: int
    rate: int


@dataclass(frozen=True)
class AudioBaseline:
    """A codec of FFmpeg.

    Args:
        encoder: what FFmpeg calls it.
        container: of its files. It records the encoder's delay, which the decoder of the same library leaves out.
        subtype: what libsndfile calls it, for where FFmpeg was built without it.
        steps: bitrates, rising.
    """

    encoder: str
    container: str
    subtype: str
    steps: tuple[Step, ...]


MP3_KBPS = (40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MP3_STEPS = (Step(8, 16000), Step(16, 16000), Step(24, 24000), Step(32, 24000), *(Step(k, 44100) for k in MP3_KBPS))
BASELINES = {
    "opus": AudioBaseline("libopus", "ogg", "OPUS", tuple(Step(kbps, 48000) for kbps in range(6, 257))),
    "mp3": AudioBaseline("libmp3lame", "mp3", "MPEG_LAYER_III", MP3_STEPS),
}
OPTIONS = {"vbr": "constrained"}  # of Opus: a bitrate is kept to


class Coded(NamedTuple):
    """A recording after a baseline: x_hat (C, T) in [-1, 1] at the rate of x, payload bytes, bitrate asked for."""

    x_hat: Tensor
    bytes: int
    kbps: int


def at_bytes(x: Tensor, rate: int, baseline: AudioBaseline, budget: float) -> Coded:
    """At the highest bitrate whose payload has at most `budget` bytes; at the lowest where none is small enough.

    Payload are the coded packets without their container, as the codes of a token file without their header.

    Args:
        x: (C, T) in [-1, 1], one or two channels.
        rate: of x, Hz.
        baseline: what codes it.
        budget: bytes.

    Raises:
        InputError: more than two channels. MissingError: nothing here encodes it.
    """
    low, high = 0, len(baseline.steps) - 1
    best = coded(x, rate, baseline, baseline.steps[0])
    while low < high:
        middle = (low + high + 1) // 2
        candidate = coded(x, rate, baseline, baseline.steps[middle])
        if candidate.bytes <= budget:
            low, best = middle, candidate
        else:
            high = middle - 1
    return best


def at_kbps(x: Tensor, rate: int, baseline: AudioBaseline, kbps: float) -> Coded:
    """As `at_bytes`, at the nearest bitrate the encoder can be asked for; it may keep to it only roughly."""
    return coded(x, rate, baseline, min(baseline.steps, key=lambda step: abs(step.kbps - kbps)))


def coded(x: Tensor, rate: int, baseline: AudioBaseline, step: Step) -> Coded:
    """One file, written and read."""
    if x.ndim != 2 or x.shape[0] not in (1, 2) or not x.shape[1]:
        raise InputError(f"{baseline.encoder} takes one or two channels (C, T), got {tuple(x.shape)}")
    given = resample(x.float().cpu(), rate, step.rate)
    got, size = _by_ffmpeg(given, baseline, step) if _has(baseline) else _by_libsndfile(given, baseline, step)
    got = F.pad(got[:, : given.shape[1]], (0, max(0, given.shape[1] - got.shape[1])))
    back = resample(got, step.rate, rate)[:, : x.shape[1]]
    return Coded(F.pad(back, (0, x.shape[1] - back.shape[1])).clamp(-1, 1), size, step.kbps)


def _has(baseline: AudioBaseline) -> bool:
    try:
        import av
    except (ImportError, OSError):
        raise MissingError('comparing with opus and mp3 wants PyAV: pip install "codeczoo[audio]"') from None
    return baseline.encoder in av.codecs_available


def _by_ffmpeg(x: Tensor, baseline: AudioBaseline, step: Step) -> tuple[Tensor, int]:
    """What comes back of x (C, T), and the bytes of the packets."""
    import av

    file, size = BytesIO(), 0
    with av.open(file, "w", format=baseline.container) as container:
        layout = ("mono", "stereo")[len(x) - 1]
        stream: Any = container.add_stream(baseline.encoder, rate=step.rate, layout=layout, options=OPTIONS)
        stream.bit_rate = 1000 * step.kbps
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x.numpy()), "fltp", stream.layout.name)
        frame.sample_rate = step.rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            size += packet.size
            container.mux(packet)
    source = ContainerSource(file.getvalue(), baseline.encoder)
    got = torch.from_numpy(source.read(x.shape[1]).T)  # (C, T')
    source.close()
    return got, size


class Levels(NamedTuple):
    """Of libsndfile: kbps that compression levels 1 and 0 mean, of each channel for Opus; frames that come too late."""

    low: int
    high: int
    delay: int


LEVELS = {("OPUS", 48000): Levels(6, 256, 0), ("MPEG_LAYER_III", 44100): Levels(32, 320, 0)}
MPEG_2 = Levels(8, 160, 1105)


def _by_libsndfile(x: Tensor, baseline: AudioBaseline, step: Step) -> tuple[Tensor, int]:
    """What comes back of x (C, T), and the bytes of the whole file."""
    import soundfile

    low, high, delay = LEVELS.get((baseline.subtype, step.rate), MPEG_2)
    each, mode = (step.kbps / len(x), None) if baseline.subtype == "OPUS" else (step.kbps, "CONSTANT")
    level = min(0.99, max(0.0, (high - each) / (high - low)))
    file, about = BytesIO(), {"compression_level": level, "bitrate_mode": mode}
    container = baseline.container.upper()
    with soundfile.SoundFile(file, "w", step.rate, len(x), baseline.subtype, format=container, **about) as sound:
        for part in x.T.split(2**16):  # larger ones overflow the stack of its encoders
            sound.write(part.numpy())
    return read(file.getvalue())[0][:, delay:], len(file.getvalue())
