"""Audio from one sampling rate to another, in blocks of any size and with an exact length."""

import numpy as np
import torch
from torch import Tensor

from codeczoo.core.errors import InputError, MissingError


class Resampler:
    """Streaming resampler (soxr HQ, linear phase). However the input is cut into blocks, the samples are the same.

    Args:
        old: rate that comes in, Hz.
        new: rate that goes out, Hz.
        channels: C.

    Raises:
        InputError: a rate below 1.
        MissingError: soxr is not installed.
    """

    def __init__(self, old: int, new: int, channels: int) -> None:
        if min(old, new) < 1:
            raise InputError(f"sampling rates must be at least 1 Hz, got {old} and {new}")
        self.old, self.new, self.channels = old, new, channels
        self._stream = None if old == new else _soxr().ResampleStream(old, new, channels, "float32", "HQ")

    def step(self, x: Tensor, last: bool = False) -> Tensor:
        """The next block, float32 (C, t) to (C, t'). In sum t' is `resampled_length` of the sum of t after `last`."""
        if self._stream is None:
            return x
        y = self._stream.resample_chunk(np.ascontiguousarray(x.T.numpy()), last)  # (t', C)
        return torch.from_numpy(y.T)


def resample(x: Tensor, old: int, new: int) -> Tensor:
    """A whole piece, float32 (C, T) to (C, resampled_length(T, old, new)). Raises as Resampler."""
    return Resampler(old, new, x.shape[0]).step(x, last=True)


def resampled_length(n: int, old: int, new: int) -> int:
    """n * new / old, halves rounded up."""
    return (2 * n * new + old) // (2 * old)


def _soxr():  # type: ignore[no-untyped-def]
    try:
        import soxr
    except ImportError:
        raise MissingError('another sampling rate wants soxr: pip install "codeczoo[audio]"') from None
    return soxr
