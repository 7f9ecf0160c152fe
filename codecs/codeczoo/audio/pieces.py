"""Signals of any length, piece by piece, in memory that does not grow with their duration.

Halves of a codec that can run piece by piece do, and give what the whole signal gives. For the others (attention or
normalisation over all time, LSTMs that run backwards) the caller chooses windows, each coded with some context on both
sides; what they give is close to, but not the same as, that of the whole signal.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from codeczoo.audio.waveform import WaveformCodec
from codeczoo.audio.windowed import WindowedCodec
from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens

AT_ONCE = 10.0  # seconds of audio that are decoded at once


@dataclass(frozen=True)
class Windows:
    """How a half that cannot run piece by piece takes a long signal.

    Args:
        seconds: that each window gives.
        context: seconds more on either side, which are seen and thrown away.
    """

    seconds: float
    context: float = 1.0

    def frames(self, codec: WaveformCodec) -> tuple[int, int]:
        """Frames of a window and of its context. Raises InputError."""
        rate = codec.sample_rate / codec.hop
        if self.seconds * rate < 1 or self.context < 0:
            least = f"seconds at least {1 / rate:g}, context at least 0"
            raise InputError(f"windows: {least}; got {self.seconds:g} and {self.context:g}")
        return round(self.seconds * rate), round(self.context * rate)


@torch.no_grad()
def encode_pieces(
    codec: WaveformCodec, pieces: Iterable[Tensor], n_codebooks: int | None = None, windows: Windows | None = None
) -> Tokens:
    """One signal, or several of one length, to tokens.

    Args:
        codec: in evaluation mode.
        pieces: (B, C, t) each, t >= 0, in order.
        n_codebooks: codebooks to keep; None: all.
        windows: for an encoder that cannot run piece by piece.

    Raises:
        InputError: no samples at all, or an encoder that wants `windows`.
    """
    counted = _Counted(pieces)
    codes: list[Tensor] = []
    gains = None
    if isinstance(codec, WindowedCodec) or codec.encoder.streams:
        stream = codec.stream()
        codes = [stream.encode(piece, last, n_codebooks) for piece, last in _with_last(counted)]
        gains = getattr(stream, "gains", None)
    else:
        frames, context = chosen(windows, codec, "encoder").frames(codec)
        for piece, spare in _overlapping(counted, frames * codec.hop, context * codec.hop):
            at = spare // codec.hop
            codes.append(codec.first_codes(codec.latents(piece)[0], n_codebooks)[:, :, at : at + frames])
    if not counted.samples:
        raise InputError("a signal without samples has no tokens")
    joined = torch.cat(codes, 2)
    size = torch.full((len(joined), 1), counted.samples, dtype=torch.int64, device=joined.device)
    return Tokens(codec.spec, (joined,), size, None, codec.sample_rate, torch.stack(gains, 1) if gains else None)


@torch.no_grad()
def decode_pieces(codec: WaveformCodec, tokens: Tokens, windows: Windows | None = None) -> Iterator[Tensor]:
    """Tokens to their samples, (B, C, t) in [-1, 1] each, as many in all as the tokens say.

    Args:
        codec: in evaluation mode.
        tokens: of one signal, or of several of one length.
        windows: for a decoder that cannot run piece by piece.

    Raises:
        InputError: signals of unequal length, or a decoder that wants `windows`.
    """
    sizes = tokens.size[:, 0]
    if tokens.lengths is not None or bool((sizes != sizes[0]).any()):
        raise InputError("signals of unequal length are decoded one by one")
    left = int(sizes[0])
    for x_hat in _decoded(codec, tokens.check_range(), windows):
        if left:
            yield x_hat[:, :, :left]
        left -= min(left, x_hat.shape[2])
    if left:  # odd strides lose a few samples
        yield x_hat.new_zeros(len(x_hat), codec.spec.channels, left)


def _decoded(codec: WaveformCodec, tokens: Tokens, windows: Windows | None) -> Iterator[Tensor]:
    codes = tokens.codes
    total = codes.shape[2]
    if isinstance(codec, WindowedCodec):
        if tokens.gains is None:
            raise InputError("windows are decoded with their gains; these tokens have none")
        windowed, n = codec.stream(), tokens.gains.shape[1]
        for w in range(n):
            part = codes[:, :, w * codec.frames : (w + 1) * codec.frames]
            yield windowed.decode(part, tokens.gains[:, w : w + 1], w == n - 1)
    elif codec.decoder.streams:
        stream = codec.stream()
        step = max(1, round(AT_ONCE * codec.sample_rate / codec.hop))
        for a in range(0, total, step):
            yield stream.decode(codes[:, :, a : a + step], a + step >= total)
    else:
        frames, context = chosen(windows, codec, "decoder").frames(codec)
        for a in range(0, total, frames):
            first = max(0, a - context)
            x_hat = codec.render(codec.quantizer.decode(codes[:, :, first : a + frames + context])).clamp(-1, 1)
            yield x_hat[:, :, (a - first) * codec.hop : (min(a + frames, total) - first) * codec.hop]


def chosen(windows: Windows | None, codec: WaveformCodec, half: str) -> Windows:
    """The windows. Raises InputError where there are none."""
    if windows is None:
        raise InputError(f"the {half} of {type(codec).__name__} takes long signals in windows: choose their length")
    return windows


class _Counted:
    """Pieces, and how many samples have come."""

    def __init__(self, pieces: Iterable[Tensor]) -> None:
        self.pieces, self.samples = pieces, 0

    def __iter__(self) -> Iterator[Tensor]:
        for piece in self.pieces:
            self.samples += piece.shape[2]
            yield piece


def _with_last(pieces: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each piece, and whether it is the last."""
    held: Tensor | None = None
    for piece in pieces:
        if held is not None:
            yield held, False
        held = piece
    if held is not None:
        yield held, True


def _overlapping(pieces: Iterable[Tensor], window: int, context: int) -> Iterator[tuple[Tensor, int]]:
    """Windows with their context, (B, C, t), and how many samples of context stand before each."""
    held, before = None, 0
    for piece in pieces:
        held = piece if held is None else torch.cat([held, piece], 2)
        while held.shape[2] >= before + window + 2 * context + 1:
            yield held[:, :, : before + window + context], before
            begin = max(0, before + window - context)
            held, before = held[:, :, begin:], before + window - begin
    while held is not None and held.shape[2] > before:
        yield held[:, :, : before + window + context], before
        begin = max(0, before + window - context)
        held, before = held[:, :, begin:], before + window - begin
