"""Audio from any number of channels to a codec's."""

from torch import Tensor

from codeczoo.core.errors import InputError


def to_channels(x: Tensor, channels: int) -> Tensor:
    """x (C, T) to (channels, T): mono is the mean, stereo is a copy of mono or the first two (front left and right).

    Raises InputError for any other change.
    """
    if x.shape[0] == channels:
        return x
    if channels == 1:
        return x.mean(0, keepdim=True)
    if x.shape[0] == 1:
        return x.expand(channels, -1)
    if channels == 2:
        return x[:2]
    raise InputError(f"{x.shape[0]} channels cannot become {channels}; allowed: mono to any, any to mono or stereo")
