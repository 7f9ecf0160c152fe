"""Files of EnCodec and DAC as tokens of a codec with their weights, which the files do not tell."""

from collections.abc import Callable
from pathlib import Path

import torch

from codeczoo.audio.waveform import WaveformCodec
from codeczoo.core.errors import FormatError
from codeczoo.core.types import Tokens
from codeczoo.io import dac_file, ecdc
from codeczoo.io.audio_fit import AudioFit
from codeczoo.io.resample import resampled_length

DAC_LOUDNESS = -16.0  # LUFS, that DAC brings every recording to


def read_ecdc(path: Path, codec: WaveformCodec) -> tuple[Tokens, AudioFit]:
    """An .ecdc file. Raises FormatError where the codec is another."""
    file = ecdc.read(path)
    model, spec = file.model, codec.spec
    own = (spec.sample_rate, spec.channels, codec.hop, spec.window)
    if own != (model.sample_rate, model.channels, model.hop, model.window):
        raise FormatError(f"{path}: made by {file.name}, which this codec is not")
    tokens = Tokens(
        spec,
        (torch.cat(file.windows, 1)[None],),  # (1, K, frames)
        torch.tensor([[file.samples]]),
        None,
        spec.sample_rate,
        None if file.scales is None else file.scales[None],
    )
    return tokens.check_range(), AudioFit(model.sample_rate, model.channels, file.samples)


def read_dac(path: Path, codec: WaveformCodec) -> tuple[Tokens, AudioFit]:
    """A .dac file. Raises FormatError where the codec cannot have made it, or it was cut into windows.

    Differs: DAC measures the decoded signal's loudness and brings it to that of the recording; this takes it to be as
    loud as what was encoded.
    """
    file = dac_file.read(path)
    spec = codec.spec
    if not file.padding:
        how = "in windows without padding, which are no continuous signal"
        raise FormatError(f"{path}: coded {how}; give dac a --win_duration that holds the whole recording")
    frames, rate = file.codes.shape[2], codec.sample_rate
    samples = resampled_length(file.samples, file.sample_rate, rate)
    fits = len(file.codes) == file.channels * spec.channels and abs(frames - samples / codec.hop) <= 2
    if not fits or file.codes.shape[1] > len(spec.streams[0].vocab_sizes):
        made = f"{file.codes.shape[1]} codebooks of {frames} frames for {samples} samples at {rate} Hz"
        raise FormatError(f"{path}: {made} are not of this codec")
    size = torch.full((len(file.codes), 1), samples)
    gain = 10 ** ((float(file.loudness.mean()) - DAC_LOUDNESS) / 20)
    tokens = Tokens(spec, (file.codes,), size, None, rate)
    return tokens.check_range(), AudioFit(file.sample_rate, file.channels, file.samples, gain)


READERS: dict[str, Callable[[Path, WaveformCodec], tuple[Tokens, AudioFit]]] = {
    ecdc.SUFFIX: read_ecdc,
    dac_file.SUFFIX: read_dac,
}
