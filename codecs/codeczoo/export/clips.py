"""Clips to tokens and back: short ones in padded batches, long ones piece by piece in constant memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codeczoo.core.errors import CodeczooError, InputError
from codeczoo.core.types import Tokens
from codeczoo.export.batches import WINDOW, Prefix, Runner, ahead, paired, windows
from codeczoo.export.soundtracks import Soundtracks
from codeczoo.export.sources import Media, Options, Sample, guarded, refuse
from codeczoo.io import image, tokens, video
from codeczoo.io.files import Found
from codeczoo.io.video_fit import VideoFit
from codeczoo.video.codec import VideoCodec
from codeczoo.video.pieces import AT_ONCE, decode_pieces, encode_pieces, strides_of

SHORT = 2**21  # pixels of all frames together; longer clips are read piece by piece
UNTIMED = VideoFit(Fraction(25))  # of tokens that do not say what they were


class Clips(Media):
    """Clips of any length, rate and size, with their sound; pictures are clips of one frame. Arguments: see Media."""

    UNIT: ClassVar[str] = "clips and pictures"
    SUFFIXES: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys((*video.SUFFIXES, *image.SUFFIXES)))
    FORMATS: ClassVar[tuple[str, ...]] = ("mp4", "webm", "mkv", "gif", "png", "jpg", "webp")

    def __init__(self, runner: Runner, options: Options) -> None:
        super().__init__(runner, options)
        refuse("fit", options.fit, "this codec takes frames of any size, nothing is to be fitted")
        refuse("window", options.window, "this codec takes clips of any length without")
        if not isinstance(runner.codec, VideoCodec):
            raise InputError(f"{type(runner.codec).__name__} is no codec of clips")
        self.codec = runner.codec
        self.soundtracks = Soundtracks(runner, options.audio)

    # --- to tokens ---------------------------------------------------------------------------------------------------

    def _load(self, found: Found, source: Path | bytes) -> Sample:
        x, fit = opened(source, found.path.suffix, SHORT)
        return Sample(found, None, fit, x=x)

    def encode_loaded(self, samples: Iterable[Sample], prefix: Prefix) -> Iterator[Sample]:
        """See Media."""
        for window in windows(samples, lambda window: len(window) >= WINDOW * self.runner.batch):
            batched = iter(self._batched([sample.x for sample in window if sample.x is not None]))
            for sample in window:
                if sample.x is not None:
                    sample = replace(sample, tokens=next(batched), x=None)
                elif sample.tokens is None and not sample.error:
                    sample = replace(guarded(self._encode_long)(sample.found), sha256=sample.sha256)
                yield _kept(sample, prefix)

    def _encode_long(self, found: Found) -> Sample:
        source = found.source()
        about = video.info(source)
        blocks = video.blocks(source, max(1, AT_ONCE // (about.height * about.width)))
        return Sample(found, self._encode_blocks(ahead(blocks)), fit_of(about))

    def complete(self, sample: Sample) -> Sample:
        """See Media."""
        if sample.tokens is None or sample.found.path.suffix in self.TOKEN_SUFFIXES:
            return sample

        def run(found: Found) -> Sample:
            assert isinstance(sample.fit, VideoFit)
            fit, attachments = self.soundtracks.taken(found.path, sample.fit)
            return replace(sample, fit=fit, attachments=attachments)

        return guarded(run)(sample.found)

    def _original(self, sample: Sample) -> Sample:
        x, _ = opened(sample.found.source(), sample.found.path.suffix, SHORT)
        return sample if x is None else replace(sample, x=x[None].float() / 255)

    def pairs(self, sample: Sample) -> Iterator[tuple[Tensor, Tensor]]:
        """See Media."""
        assert sample.tokens is not None
        height, width = sample.tokens.size[0, 1:].tolist()
        blocks = ahead(video.blocks(sample.found.source(), max(1, AT_ONCE // (height * width))))
        decoded = decode_pieces(self.codec, sample.tokens.to(self.runner.device))
        return paired((block[None].float() / 255 for block in blocks), self.runner.pieces(decoded))

    def clips(self, files: Iterable[Found]) -> Iterator[Sample]:
        """See Media."""

        def run(found: Found) -> Sample:
            x, fit = opened(found.source(), found.path.suffix, None)
            assert x is not None
            made = self._encode_blocks(x.split(max(1, AT_ONCE // (x.shape[2] * x.shape[3])), 1))
            return Sample(found, made, fit, x=x[None].float() / 255)

        return map(guarded(run), files)

    def _encode_blocks(self, blocks: Iterable[Tensor]) -> Tokens:
        with torch.inference_mode(), self.runner.autocast():
            return encode_pieces(self.codec, (self._seen(block[None]) for block in blocks)).to("cpu")

    def _batched(self, clips: Sequence[Tensor]) -> list[Tokens]:
        """Tokens of clips, uint8 (3, T, H, W) each, in batches of one size and like length."""
        found: dict[int, Tokens] = {}
        order = sorted(range(len(clips)), key=lambda i: (*clips[i].shape[2:], clips[i].shape[1]))

        def full(chosen: list[int]) -> bool:
            return len(chosen) >= self.runner.batch or (len(chosen) + 1) * clips[chosen[-1]][0].numel() > AT_ONCE

        for _, group in groupby(order, lambda i: clips[i].shape[2:]):
            for chosen in windows(group, full):
                made = self._encode_batch([clips[i] for i in chosen])
                found.update((i, made[k]) for k, i in enumerate(chosen))
        return [found[i] for i in range(len(clips))]

    def _encode_batch(self, clips: Sequence[Tensor]) -> Tokens:
        x = pad_sequence([clip.transpose(0, 1) for clip in clips], batch_first=True).transpose(1, 2)  # (B, 3, T, H, W)
        lengths = torch.tensor([clip.shape[1] for clip in clips], device=self.runner.device)
        ragged = lengths if bool((lengths != x.shape[2]).any()) else None
        with torch.inference_mode(), self.runner.autocast():
            return self.codec.encode(self._seen(x), lengths=ragged).to("cpu")

    def _seen(self, x: Tensor) -> Tensor:
        """uint8 pixels as the codec sees them, in [0, 1]."""
        return x.to(self.runner.device).float().div_(255)

    # --- back to clips -----------------------------------------------------------------------------------------------

    def format_of(self, found: Found) -> str:
        """See Media: pictures come back as pictures."""
        try:
            about = tokens.read_header(found.source())
        except CodeczooError:  # told when it is decoded
            return self.FORMATS[0]
        return "png" if about.fit is not None and about.fit.get("rate") is None else self.FORMATS[0]

    def _decode(self, files: Iterable[Found], prefix: Prefix, place: Callable[[Found], Path]) -> Iterator[Sample]:
        def run(found: Found) -> Sample:
            sample = self.load_tokens(found, prefix)
            self._write(sample, place(found))
            return Sample(found, fit=sample.fit)

        return map(guarded(run), files)

    def _write(self, sample: Sample, path: Path) -> None:
        made, fit = sample.tokens, sample.fit or UNTIMED
        assert made is not None and isinstance(fit, VideoFit)
        if made.batch != 1:
            raise InputError(f"{made.batch} clips in one file; one is wanted")
        with torch.inference_mode(), self.runner.autocast():
            frames = decode_pieces(self.codec, made.to(self.runner.device), self.options.tile)
            pieces = (x_hat[0].float().cpu() for x_hat in frames)
            if path.suffix in image.SAVED_AS:
                image.write(path, still(pieces, path))
                return
            whole = int(made.size[0, 0]) <= 1 + (made.streams[0].shape[2] - 1) * strides_of(made)[0][0]
            with (
                self.soundtracks.given(sample.attachments, fit, path.suffix, whole) as track,
                video.Writer(path, fit.rate or 25, fit.aspect, track) as file,
            ):
                for piece in pieces:
                    file.append(piece)


def opened(source: Path | bytes, suffix: str, most: int | None) -> tuple[Tensor | None, VideoFit]:
    """A clip or picture as uint8 (3, T, H, W), or None where it has more than `most` pixels; and what it was.

    Its suffix says which it is, and where there is none, as in rows of data sets, its content.
    """
    suffix = suffix.lower()
    if suffix in image.SUFFIXES and suffix not in video.SUFFIXES:
        return image.read(source)[:, None], VideoFit(None)
    try:
        about = video.info(source)
    except InputError:
        if suffix:
            raise
        return image.read(source)[:, None], VideoFit(None)
    if suffix in (".gif", "") and about.duration is None:  # it does not move
        return image.read(source)[:, None], VideoFit(None)
    if most is not None and (about.frames is None or about.frames * about.height * about.width > most):
        return None, fit_of(about)
    return video.read(source), fit_of(about)


def fit_of(about: video.Info) -> VideoFit:
    """What a clip is, for its token file."""
    return VideoFit(about.rate, about.start if about.has_audio else Fraction(0), about.aspect)


def still(pieces: Iterator[Tensor], path: Path) -> Tensor:
    """The only frame of a clip, (3, H, W). Raises InputError where there are more."""
    first = next(pieces)
    if first.shape[1] > 1 or next(pieces, None) is not None:
        raise InputError(f"cannot write {path}: a clip of several frames is no picture; --format mp4, webm, mkv or gif")
    return first[:, 0]


def _kept(sample: Sample, prefix: Prefix) -> Sample:
    """A sample with the prefix of its tokens and their rate."""
    if sample.tokens is None:
        return sample
    rate = sample.fit.rate if isinstance(sample.fit, VideoFit) else None
    return replace(sample, tokens=replace(prefix.of(sample.tokens), sample_rate=None if rate is None else float(rate)))
