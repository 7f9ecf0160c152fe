"""DAC's own files, .dac, read as data: they are pickles, and nothing in them is called or imported.

Layout: what `numpy.save` makes of a dictionary {"codes": uint16 (channels, K, frames), "metadata": {...}}.
Source: github.com/descriptinc/descript-audio-codec (MIT), model/base.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codeczoo.core.errors import FormatError
from codeczoo.io.files import content
from codeczoo.io.plain_pickle import read_npy

SUFFIX = ".dac"
VERSIONS = ("1.0.0",)
WHOLE = ("sample_rate", "original_length", "channels", "chunk_length")


@dataclass(frozen=True)
class DacFile:
    """Content of a file.

    Args:
        codes: int64 (N, K, frames), N = signals times channels.
        sample_rate: of the recording, Hz; the model's may be another.
        samples: of the recording at that rate, in each channel.
        channels: of the recording.
        chunk: frames of each window; windows are decoded one by one where `padding` is off.
        loudness: LUFS of the recording, to which a decoded signal is brought back, float32 (1,) or (N,).
        padding: the convolutions padded: the codes are one continuous signal.
    """

    codes: Tensor
    sample_rate: int
    samples: int
    channels: int
    chunk: int
    loudness: Tensor
    padding: bool


def read(source: str | Path | bytes) -> DacFile:
    """Reads a file, or one that is in memory already.

    Raises:
        InputError: the file cannot be opened.
        FormatError: truncated, foreign, or holding anything but plain values and arrays of numbers.
    """
    where, data = content(source, "dac data")
    try:
        return _checked(read_npy(data))
    except FormatError as error:
        raise FormatError(f"{where}: not a .dac file: {error}") from None


def _checked(found: Any) -> DacFile:
    about = found.get("metadata") if isinstance(found, dict) else None
    if not isinstance(about, dict) or "codes" not in found:
        raise FormatError("codes and metadata are wanted")
    if about.get("dac_version") not in VERSIONS:
        raise FormatError(f"its version is not known, only {', '.join(VERSIONS)}")
    codes, padding, level = found["codes"], about.get("padding"), about.get("input_db")
    numbers: list[Any] = [value.item() if isinstance(value, np.generic) else value for value in map(about.get, WHOLE)]
    for key, value in zip(WHOLE, numbers, strict=True):
        if type(value) is not int or not 1 <= value < 2**63:
            raise FormatError(f"{key} in its metadata is no whole number of at least 1")
    if not isinstance(codes, np.ndarray) or codes.dtype.kind != "u" or codes.ndim != 3 or not codes.size:
        raise FormatError("codes are no whole numbers (channels, K, frames)")
    if not isinstance(padding, bool | np.bool_) or not isinstance(level, float | np.floating | np.ndarray):
        raise FormatError("padding or input_db in its metadata is not sound")
    loudness = np.atleast_1d(np.asarray(level, dtype=np.float32))
    rate, samples, channels, chunk = numbers
    if len(codes) % channels or loudness.shape not in ((1,), (len(codes),)):
        raise FormatError(f"codes of {len(codes)} signals do not fit {channels} channels")
    own = torch.from_numpy(codes.astype(np.int64))
    return DacFile(own, rate, samples, channels, chunk, torch.from_numpy(loudness.copy()), bool(padding))
