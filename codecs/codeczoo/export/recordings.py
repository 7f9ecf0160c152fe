"""Recordings to tokens and back: short ones in padded batches, long ones piece by piece in constant memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codeczoo.audio.pieces import Windows, decode_pieces, encode_pieces
from codeczoo.audio.waveform import WaveformCodec
from codeczoo.audio.windowed import WindowedCodec
from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens
from codeczoo.export import foreign
from codeczoo.export.batches import TOGETHER, WINDOW, Prefix, Runner, ahead, paired, windows
from codeczoo.export.sources import Media, Options, Sample, guarded, refuse, refuse_clips
from codeczoo.io import audio, dac_file
from codeczoo.io.audio_fit import AudioFit, restored, split_channels
from codeczoo.io.files import Found

SHORT = 15.0  # seconds; longer recordings are read piece by piece
PIECE = 5.0  # seconds of a piece
CLIP = 30.0  # seconds of a recording that are measured at once, half as many again at its end


class Recordings(Media):
    """Recordings of any length, rate and number of channels. Arguments: see Media."""

    UNIT: ClassVar[str] = "recordings"
    SUFFIXES: ClassVar[tuple[str, ...]] = audio.SUFFIXES
    TOKEN_SUFFIXES: ClassVar[tuple[str, ...]] = (*Media.TOKEN_SUFFIXES, *foreign.READERS)
    FORMATS: ClassVar[tuple[str, ...]] = ("wav", "flac", "mp3", "ogg", "opus")

    def __init__(self, runner: Runner, options: Options) -> None:
        super().__init__(runner, options)
        refuse_clips(options)
        refuse("fit", options.fit, "is for pictures; a recording is resampled, and nothing of it is cut")
        if not isinstance(runner.codec, WaveformCodec):
            raise InputError(f"{type(runner.codec).__name__} is no codec of waveforms")
        self.codec = runner.codec
        halves = (self.codec.encoder, self.codec.decoder)
        self.encodes, self.decodes = (isinstance(self.codec, WindowedCodec) or half.streams for half in halves)
        if self.encodes and self.decodes:
            refuse("window", options.window, "this codec takes recordings of any length without")
        self.windows = None if options.window is None else Windows(options.window)
        self.short = min(SHORT, options.window or SHORT)

    # --- to tokens ---------------------------------------------------------------------------------------------------

    def encode_loaded(self, samples: Iterable[Sample], prefix: Prefix) -> Iterator[Sample]:
        """See Media."""

        def encode_long(found: Found) -> Sample:
            return self._encode_long(found, prefix)

        for window in self._windows(samples):
            done = iter(self._batched([sample.x for sample in window if sample.x is not None], prefix))
            for sample in window:
                if sample.x is not None:
                    sample = replace(sample, tokens=next(done), x=None)
                elif sample.tokens is None and not sample.error:
                    sample = replace(guarded(encode_long)(sample.found), sha256=sample.sha256)
                yield sample

    def _load(self, found: Found, source: Path | bytes) -> Sample:
        duration = audio.info(source).duration
        if duration is None or duration > self.short:
            return Sample(found)
        x, rate = audio.read(source)
        own = at_rate(x, rate, self.codec.sample_rate)
        fit = AudioFit(rate, x.shape[0], x.shape[1])
        return Sample(found, None, fit, x=split_channels(own, self.codec.spec.channels))

    def _original(self, sample: Sample) -> Sample:
        return replace(sample, x=self._load(sample.found, sample.found.source()).x)

    def pairs(self, sample: Sample) -> Iterator[tuple[Tensor, Tensor]]:
        """See Media: pieces of CLIP seconds."""
        assert sample.tokens is not None
        self._check_long(self.decodes)
        frames, channels = round(CLIP * self.codec.sample_rate), self.codec.spec.channels
        blocks = last_joined(audio.blocks(sample.found.source(), frames, self.codec.sample_rate), frames // 2)
        decoded = decode_pieces(self.codec, sample.tokens.to(self.runner.device), self.windows)
        return paired((split_channels(block, channels) for block in blocks), self.runner.pieces(decoded))

    def clips(self, files: Iterable[Found]) -> Iterator[Sample]:
        """See Media: the mean of all channels for mono codecs, the first two for stereo ones, at the codec's rate.

        Long recordings come as several clips, each encoded by itself.
        """
        for window in self._windows(chain.from_iterable(map(self._clips_of, files))):
            done = iter(self._batched([sample.x for sample in window if sample.x is not None], Prefix()))
            yield from (s if s.x is None else replace(s, tokens=next(done)) for s in window)

    def _clips_of(self, found: Found) -> Iterator[Sample]:
        """The clips of a recording, x (1, C, T) each, and its error where it has one."""
        frames, channels = round(CLIP * self.codec.sample_rate), self.codec.spec.channels
        clips = last_joined(audio.blocks(found.path, frames, self.codec.sample_rate), frames // 2)

        @guarded
        def following(found: Found) -> Sample:
            x = next(clips, None)
            if x is None:
                return Sample(found)
            return Sample(found, x=(x.mean(0, keepdim=True) if channels == 1 else split_channels(x, channels)[0])[None])

        while (sample := following(found)).x is not None:
            yield sample
        if sample.error:
            yield sample

    def _windows(self, samples: Iterable[Sample]) -> Iterator[list[Sample]]:
        """Several batches at once, so that recordings of like length come together."""
        return windows(samples, lambda window: len(window) >= WINDOW * self.runner.batch)

    def _batched(self, recordings: Sequence[Tensor], prefix: Prefix) -> list[Tokens]:
        """Tokens of recordings (B, C, T) each, their signals in batches of like length."""
        signals = [(i, signal) for i, x in enumerate(recordings) for signal in x]
        signals.sort(key=lambda numbered: numbered[1].shape[1])
        most = TOGETHER * self.codec.sample_rate
        found: list[list[Tokens]] = [[] for _ in recordings]

        def full(group: list[tuple[int, Tensor]]) -> bool:
            return len(group) >= self.runner.batch or (len(group) + 1) * group[-1][1].shape[1] > most

        for group in windows(signals, full):
            tokens = self._encode_batch([signal for _, signal in group], prefix)
            for k, (i, _) in enumerate(group):
                found[i].append(tokens[k])
        return [Tokens.stack(signals) for signals in found]

    def _encode_batch(self, signals: Sequence[Tensor], prefix: Prefix) -> Tokens:
        x = pad_sequence([signal.T for signal in signals], batch_first=True).mT.to(self.runner.device)  # (B, C, T)
        sizes = torch.tensor([signal.shape[1] for signal in signals], device=x.device)
        lengths = sizes if bool((sizes != x.shape[2]).any()) else None
        with torch.inference_mode(), self.runner.autocast():
            return self.codec.encode(x, n_codebooks=prefix.codebooks, lengths=lengths).to("cpu")

    def _encode_long(self, found: Found, prefix: Prefix) -> Sample:
        self._check_long(self.encodes)
        source = found.source()
        about = audio.info(source)
        frames = 0

        def pieces() -> Iterator[Tensor]:
            nonlocal frames
            resampler = audio.Resampler(about.rate, self.codec.sample_rate, about.channels)
            for block in audio.blocks(source, round(PIECE * about.rate)):
                frames += block.shape[1]
                yield self._signals(resampler.step(block))
            yield self._signals(resampler.step(torch.zeros(about.channels, 0), last=True))

        with torch.inference_mode(), self.runner.autocast():
            tokens = encode_pieces(self.codec, ahead(pieces()), prefix.codebooks, self.windows).to("cpu")
        return Sample(found, tokens, AudioFit(about.rate, about.channels, frames))

    def _signals(self, x: Tensor) -> Tensor:
        return split_channels(x, self.codec.spec.channels).to(self.runner.device)

    def _check_long(self, piece_by_piece: bool) -> None:
        """Raises InputError where a half of the codec needs windows and has none."""
        if not piece_by_piece and self.windows is None:
            name = type(self.codec).__name__
            raise InputError(f"{name} sees all of a recording at once; give --window SECONDS for more than {SHORT:g} s")

    # --- back to recordings ------------------------------------------------------------------------------------------

    def _decode(self, files: Iterable[Found], prefix: Prefix, place: Callable[[Found], Path]) -> Iterator[Sample]:
        def run(found: Found) -> Sample:
            with torch.inference_mode(), self.runner.autocast():
                pieces, fit = self._decoded(found, prefix)
                with audio.Writer(place(found), fit.rate, fit.channels) as file:
                    for block in restored(pieces, self.codec.sample_rate, fit):
                        file.append(block)
            return Sample(found)

        return map(guarded(run), files)

    def _decoded(self, found: Found, prefix: Prefix) -> tuple[Iterable[Tensor], AudioFit]:
        """What a token file decodes to, (B, C, t) each, and what the recording was: short recordings at once."""
        if found.path.suffix == dac_file.SUFFIX:
            windows = foreign.decode_dac_windows(found.path, self.codec, prefix)
            if windows is not None:
                return windows
        sample = self.load_tokens(found, prefix)
        assert sample.tokens is not None and (sample.fit is None or isinstance(sample.fit, AudioFit))
        tokens, rate = sample.tokens.to(self.runner.device), self.codec.sample_rate
        samples = int(tokens.size.max())
        fit = sample.fit or AudioFit(rate, tokens.batch * self.codec.spec.channels, samples)
        if samples <= self.short * rate:
            return [self.codec.decode(tokens)], fit
        self._check_long(self.decodes)
        return decode_pieces(self.codec, tokens, self.windows), fit

    def load_tokens(self, found: Found, prefix: Prefix) -> Sample:
        """See Media; files of EnCodec and DAC too."""
        reader = foreign.READERS.get(found.path.suffix)
        if reader is None:
            return super().load_tokens(found, prefix)
        tokens, fit = reader(found.source(), self.codec)
        return Sample(found, prefix.of(tokens), fit)


def last_joined(blocks: Iterable[Tensor], shortest: int) -> Iterator[Tensor]:
    """Blocks (C, t) as they are, but a last one below `shortest` as the end of the one before.

    Raises InputError when there is none.
    """
    held: Tensor | None = None
    for block in blocks:
        if held is not None and block.shape[1] >= shortest:
            yield held
            held = None
        held = block if held is None else torch.cat([held, block], 1)
    if held is None:
        raise InputError("it is shorter than one sample of the codec")
    yield held


def at_rate(x: Tensor, rate: int, new: int) -> Tensor:
    """A recording (C, T) at another rate, of at least one sample."""
    own = audio.resample(x, rate, new)
    return own if own.shape[1] else x.new_zeros(x.shape[0], 1)
