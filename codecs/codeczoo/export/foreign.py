"""Files of EnCodec and DAC as tokens of a codec with their weights, which the files do not tell."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from codeczoo.audio.dac import DAC
from codeczoo.audio.waveform import WaveformCodec
from codeczoo.core.errors import FormatError
from codeczoo.core.types import Tokens
from codeczoo.export.batches import Prefix
from codeczoo.io import dac_file, ecdc
from codeczoo.io.audio_fit import AudioFit
from codeczoo.io.resample import resampled_length

DAC_LOUDNESS = -16.0  # LUFS, that DAC brings every recording to


def read_ecdc(source: Path | bytes, codec: WaveformCodec) -> tuple[Tokens, AudioFit]:
    """An .ecdc file. Raises FormatError where the codec is another."""
    file = ecdc.read(source)
    model, spec = file.model, codec.spec
    own = (spec.sample_rate, spec.channels, codec.hop, spec.window)
    if own != (model.sample_rate, model.channels, model.hop, model.window):
        raise FormatError(f"made by {file.name}, which this codec is not")
    tokens = Tokens(
        spec,
        (torch.cat(file.windows, 1)[None],),  # (1, K, frames)
        torch.tensor([[file.samples]]),
        None,
        spec.sample_rate,
        None if file.scales is None else file.scales[None],
    )
    return tokens.check_range(), AudioFit(model.sample_rate, model.channels, file.samples)


def read_dac(source: Path | bytes, codec: WaveformCodec) -> tuple[Tokens, AudioFit]:
    """A .dac file. Raises FormatError where the codec cannot have made it, or it was cut into windows.

    Differs: DAC measures the decoded signal's loudness and brings it to that of the recording; this takes it to be as
    loud as what was encoded.
    """
    file = dac_file.read(source)
    if not file.padding:
        how = "in windows without padding, which are no continuous signal"
        raise FormatError(f"coded {how}: it can be decoded, but its codes are of no use to others")
    return _dac_tokens(file, codec, codec.hop), _dac_fit(file)


def decode_dac_windows(path: Path, codec: WaveformCodec, prefix: Prefix) -> tuple[Iterator[Tensor], AudioFit] | None:
    """The samples (B, C, t) of each window of a .dac file, and what the recording was; None for a file of one window.

    Raises FormatError where the codec cannot have made it.
    """
    file = dac_file.read(path)
    if file.padding:
        return None
    played = codec.window_samples(file.chunk) if isinstance(codec, DAC) else 0
    if not isinstance(codec, DAC) or played < 1 or file.codes.shape[2] % file.chunk:
        raise FormatError(f"windows of {file.chunk} frames are not of this codec")
    codes = prefix.of(_dac_tokens(file, codec, played / file.chunk)).codes.to(next(codec.parameters()).device)
    return map(codec.decode_window, codes.split(file.chunk, 2)), _dac_fit(file)


def _dac_tokens(file: dac_file.DacFile, codec: WaveformCodec, hop: float) -> Tokens:
    """The codes, with so many samples of the codec's a frame. Raises FormatError where the codec did not make them."""
    spec, rate = codec.spec, codec.sample_rate
    frames, samples = file.codes.shape[2], resampled_length(file.samples, file.sample_rate, rate)
    most = 2 if file.padding else file.chunk
    fits = len(file.codes) == file.channels * spec.channels and -2 <= frames - samples / hop <= most
    if not fits or file.codes.shape[1] > len(spec.streams[0].vocab_sizes):
        made = f"{file.codes.shape[1]} codebooks of {frames} frames for {samples} samples at {rate} Hz"
        raise FormatError(f"{made} are not of this codec")
    return Tokens(spec, (file.codes,), torch.full((len(file.codes), 1), samples), None, rate).check_range()


def _dac_fit(file: dac_file.DacFile) -> AudioFit:
    gain = 10 ** ((float(file.loudness.mean()) - DAC_LOUDNESS) / 20)
    return AudioFit(file.sample_rate, file.channels, file.samples, gain)


READERS: dict[str, Callable[[Path | bytes, WaveformCodec], tuple[Tokens, AudioFit]]] = {
    ecdc.SUFFIX: read_ecdc,
    dac_file.SUFFIX: read_dac,
}
