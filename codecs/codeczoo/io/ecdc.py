"""EnCodec's own files, .ecdc, read; those without its language model (written with `lm` off, the default).

Layout: b"ECDC", u8 version 0, u32 length (big-endian) of a JSON object {"m": model, "al": samples, "nc": K,
"lm": bool}; then for each window of the signal, where the model scales windows, its scale as f32 (big-endian), and its
codes, frame by frame, coarse to fine, 10 bits each, least significant bit first, zero bits up to the end of a byte.
Source: github.com/facebookresearch/encodec (MIT), compress.py and binary.py.
"""

import json
import struct
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codeczoo.core.errors import FormatError
from codeczoo.io.files import content

SUFFIX = ".ecdc"
HEADER = struct.Struct("!4sBI")
MAX_HEADER = 2**16  # bytes of JSON
BITS = 10  # of every code: all models have 1024 entries


@dataclass(frozen=True)
class Model:
    """What a name in a file means.

    Args:
        sample_rate: Hz.
        channels: of the audio.
        hop: samples a frame.
        codebooks: most of them.
        window: samples of a window, and from one to the next; None: one window for the whole signal.
        scaled: each window has a scale.
    """

    sample_rate: int
    channels: int
    hop: int
    codebooks: int
    window: tuple[int, int] | None = None
    scaled: bool = False

    def windows(self, samples: int) -> list[int]:
        """Frames of each window of a signal."""
        size, step = self.window or (samples, max(samples, 1))
        return [-(-min(samples - start, size) // self.hop) for start in range(0, samples, step)]


MODELS = {
    "encodec_24khz": Model(24000, 1, 320, 32),
    "encodec_48khz": Model(48000, 2, 320, 16, (48000, 47520), scaled=True),
}


@dataclass(frozen=True)
class EcdcFile:
    """Content of a file.

    Args:
        name: of the model, one of MODELS.
        model: what that means.
        samples: of the signal, in each channel.
        windows: codes int64 (K, frames) of each window.
        scales: float32 (windows,), what each decoded window is multiplied by; None where the model does not scale.
    """

    name: str
    model: Model
    samples: int
    windows: tuple[Tensor, ...]
    scales: Tensor | None


def read(source: str | Path | bytes) -> EcdcFile:
    """Reads a file, or one that is in memory already.

    Raises:
        InputError: the file cannot be opened.
        FormatError: truncated, foreign, of an unknown model, or coded with the language model.
    """
    where, data = content(source, "ecdc data")
    try:
        return _parse(data)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None


def _parse(data: bytes) -> EcdcFile:
    if len(data) < HEADER.size or not data.startswith(b"ECDC"):
        raise FormatError("not an .ecdc file")
    _, version, length = HEADER.unpack_from(data)
    if version != 0:
        raise FormatError(f"version {version} of .ecdc is not known, only 0")
    name, samples, n_codebooks = _about(data[HEADER.size : HEADER.size + min(length, MAX_HEADER + 1)], length)
    model = MODELS[name]
    if not 1 <= n_codebooks <= model.codebooks:
        raise FormatError(f"{n_codebooks} codebooks, {name} has 1..{model.codebooks}")
    if samples * BITS > 8 * len(data) * model.hop:  # before any list of windows that a hostile file makes long
        raise FormatError(f"truncated: {len(data)} bytes for {samples} samples")
    windows: list[Tensor] = []
    scales: list[float] = []
    place = HEADER.size + length
    for frames in model.windows(samples):
        head, size = 4 * model.scaled, -(-frames * n_codebooks * BITS // 8)
        if place + head + size > len(data):
            raise FormatError(f"truncated in window {len(windows)}: {len(data)} of {place + head + size} bytes")
        if model.scaled:
            scales.append(*struct.unpack_from("!f", data, place))
        windows.append(_codes(data[place + head : place + head + size], n_codebooks, frames))
        place += head + size
    if place != len(data):
        raise FormatError(f"{len(data) - place} bytes too many behind the last window")
    if not all(isfinite(scale) and scale > 0 for scale in scales):
        raise FormatError("a scale is no positive number")
    return EcdcFile(name, model, samples, tuple(windows), torch.tensor(scales) if model.scaled else None)


def _about(text: bytes, length: int) -> tuple[str, int, int]:
    """Name of the model, samples, codebooks."""
    if length > MAX_HEADER or len(text) < length:
        raise FormatError("truncated in its header, or the header is too long")
    try:
        values = json.loads(text)
        name, samples, n_codebooks, coded = values["m"], values["al"], values["nc"], values["lm"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FormatError("the header is no JSON object with m, al, nc and lm") from None
    if not isinstance(name, str) or name not in MODELS:
        raise FormatError(f"model {str(name)[:40]!r} is not known, only {' and '.join(MODELS)}")
    if type(samples) is not int or type(n_codebooks) is not int or samples < 1:
        raise FormatError("the header's al and nc must be whole numbers, al at least 1")
    if coded:
        raise FormatError("coded with EnCodec's language model, which is not read here; encode without --lm")
    return name, samples, n_codebooks


def _codes(data: bytes, n_codebooks: int, frames: int) -> Tensor:
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=frames * n_codebooks * BITS, bitorder="little")
    weights = 1 << np.arange(BITS, dtype=np.int64)
    return torch.from_numpy(bits.reshape(frames, n_codebooks, BITS) @ weights).T.contiguous()  # (K, frames)
