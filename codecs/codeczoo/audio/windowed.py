"""Audio codecs that take every window of a signal by itself: EnCodec at 48 kHz.

Windows overlap by a little and each has its own loudness, so the codes of neighbouring windows are not one continuous
stream: language models must not read on over a window's edge as if it were one (`TokenSpec.window` says so).
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.audio.waveform import WaveformCodec, fitted
from codeczoo.core.base import Quantizer
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Reconstruction, Tokens
from codeczoo.nn.stream import Coder, before, hide

EPSILON = 1e-8  # added to the loudness
AT_ONCE = 16  # windows


class WindowedCodec(WaveformCodec):
    """An encoder, a quantizer and a decoder for windows whose loudness is 1; decoded windows fade into each other.

    Source: EnCodec (arXiv 2210.13438, github.com/facebookresearch/encodec), its `normalize` and `segment`.

    Args:
        encoder, quantizer, decoder, sample_rate: see WaveformCodec.
        window: samples of a window.
        step: samples from one window to the next.
    """

    def __init__(
        self, encoder: Coder, quantizer: Quantizer, decoder: Coder, sample_rate: int, window: int, step: int
    ) -> None:
        super().__init__(encoder, quantizer, decoder, sample_rate)
        if not 0 < step <= window:
            raise ConfigError(f"windows of {window} samples cannot follow each other by {step}; allowed: 1..{window}")
        self.window, self.step, self.frames = window, step, encoder.length(window)
        stream = replace(self.spec.streams[0], rate=self.frames * sample_rate / step)
        self.spec = replace(self.spec, streams=(stream,), window=(window, step))
        rise = torch.linspace(0, 1, window + 2)[1:-1]
        self.register_buffer("fade", 0.5 - (rise - 0.5).abs(), persistent=False)  # (window,)

    fade: Tensor

    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None,
        n_streams: int | None = None, lengths: Tensor | None = None,
    ) -> Tokens:
        """x (B, C, T) to the codes of its windows one after the other, (B, K, frames), with their gains."""
        self.check_media(x)
        sizes = torch.full((len(x),), x.shape[2], device=x.device) if lengths is None else lengths
        windows = -(-int(sizes.max()) // self.step)
        x = fitted(hide(x, lengths), (windows - 1) * self.step + self.window)
        cut = x.unfold(2, self.window, self.step).permute(0, 2, 1, 3)  # (B, W, C, window)
        samples = (sizes[:, None] - torch.arange(windows, device=x.device) * self.step).clamp(0, self.window)  # (B, W)
        there = samples > 0
        found = [
            self.encode_windows(some, n, n_codebooks)
            for some, n in zip(cut[there].split(AT_ONCE), samples[there].split(AT_ONCE), strict=True)
        ]
        codes, gains = (torch.cat(part) for part in zip(*found, strict=True))  # (n, K, frames), (n,)
        grid = codes.new_zeros(len(x), windows, *codes.shape[1:])
        grid[there] = codes
        flat = grid.permute(0, 2, 1, 3).flatten(2)  # (B, K, W * frames)
        ends = self._positions(sizes)
        lengths = None if bool((ends == ends.max()).all()) else ends
        about = gains.new_zeros(there.shape)
        about[there] = gains
        tokens = Tokens(
            self.spec, (flat[:, :, : int(ends.max())],), sizes[:, None], None if lengths is None else (lengths,),
            self.sample_rate, about,
        )  # fmt: skip
        return tokens.prefix(n_positions, None, n_streams)

    def _positions(self, sizes: Tensor) -> Tensor:
        """Frames of signals of so many samples, (B,)."""
        full = (sizes - 1) // self.step
        return full * self.frames + self.encoder.length(sizes - full * self.step).clamp(max=self.frames)

    def encode_windows(self, x: Tensor, samples: Tensor, n_codebooks: int | None = None) -> tuple[Tensor, Tensor]:
        """Windows (n, C, window), of which so many samples (n,) count, to codes (n, K, frames) and gains (n,)."""
        mono = x.mean(1).square().sum(1) / samples
        gains = mono.sqrt() + EPSILON
        uneven = samples if bool((samples < self.window).any()) else None
        z = self.encoder(x / gains[:, None, None], uneven)
        codes = self.first_codes(z, n_codebooks)
        if uneven is not None:
            codes = codes * before(self.encoder.length(samples), codes.shape[2])[:, None]
        return codes, gains

    def decode(self, tokens: Tokens) -> Tensor:
        """Codes (B, K, frames) and gains to x_hat (B, C, T) in [-1, 1]; 0 behind each end."""
        if tokens.gains is None:
            raise InputError(f"{type(self).__name__} decodes windows with their gains; these tokens have none")
        codes, gains = tokens.check_range().codes, tokens.gains
        windows = gains.shape[1]
        ends = tokens.stream_lengths()
        grid = F.pad(codes, (0, windows * self.frames - codes.shape[2]))
        grid = grid.unflatten(2, (windows, self.frames)).transpose(1, 2)  # (B, W, K, frames)
        frames = (ends[:, None] - torch.arange(windows, device=codes.device) * self.frames).clamp(0, self.frames)
        total = codes.new_zeros(len(codes), 1 + self.spec.channels, (windows - 1) * self.step + self.window).float()
        for w in range(windows):
            there = frames[:, w] > 0
            y = self.decode_windows(grid[there, w], frames[there, w], gains[there, w])
            total[there, :, w * self.step : w * self.step + self.window] += y
        sizes = tokens.size[:, 0]
        x_hat = total[:, 1:] / total[:, :1].clamp(min=1e-12)
        uneven = sizes if bool((sizes != sizes.max()).any()) else None
        return hide(fitted(x_hat, int(sizes.max())), uneven).clamp(-1, 1)

    def decode_windows(self, codes: Tensor, frames: Tensor, gains: Tensor) -> Tensor:
        """Windows of codes (n, K, frames) to (n, 1 + C, window): their weights, and the samples times these."""
        uneven = frames if bool((frames < self.frames).any()) else None
        y = self.render(self.quantizer.decode(codes), uneven) * gains[:, None, None]  # (n, C, frames * hop)
        y = torch.cat([torch.ones_like(y[:, :1]), y], 1)
        return hide(fitted(y, self.window), frames * self.hop) * self.fade

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        """One training pass, each signal taken as one window."""
        if x.shape[2] > self.window:
            raise InputError(f"{type(self).__name__} trains on at most one window, {self.window}, got {x.shape[2]}")
        gains = x.mean(1).square().mean(1).sqrt()[:, None, None] + EPSILON
        found = super().forward(x / gains, pixels=pixels)
        found.x_hat = None if found.x_hat is None else found.x_hat * gains
        assert found.tokens is not None
        found.tokens = replace(found.tokens, gains=gains[:, :, 0])
        return found

    def stream(self) -> "WindowStream":  # type: ignore[override]
        """A new stream in both directions: a window must be there before its codes come."""
        return WindowStream(self)


class WindowStream:
    """A signal that comes piece by piece, coded window by window.

    Args:
        codec: in evaluation mode.

    Attributes:
        gains: of the windows encoded so far, (B,) each; `decode` wants them too.
        encode_latency, latency: samples.
    """

    def __init__(self, codec: WindowedCodec) -> None:
        self.codec = codec
        self.gains: list[Tensor] = []
        self.encode_latency = self.latency = codec.window
        self._samples: Tensor | None = None
        self._tail: Tensor | None = None

    @torch.no_grad()
    def encode(self, x: Tensor, last: bool = False, n_codebooks: int | None = None) -> Tensor:
        """The next samples (B, C, t) to the codes of the windows that are whole by now, (B, K, frames)."""
        codec = self.codec
        codec.check_media(x, piece=True)
        held = x if self._samples is None else torch.cat([self._samples, x], 2)
        found = []
        while held.shape[2] >= codec.window or (last and held.shape[2]):
            window = held[:, :, : codec.window]
            n = torch.full((len(x),), window.shape[2], device=x.device)
            codes, gains = codec.encode_windows(fitted(window, codec.window), n, n_codebooks)
            found.append(codes[:, :, : codec.encoder.length(window.shape[2])])
            self.gains.append(gains)
            held = held[:, :, codec.step :]
        self._samples = held
        k = n_codebooks or len(codec.quantizer.vocab_sizes)
        return torch.cat(found, 2) if found else x.new_zeros(len(x), k, 0, dtype=torch.int64)

    @torch.no_grad()
    def decode(self, codes: Tensor, gains: Tensor, last: bool = False) -> Tensor:
        """The next windows to the samples that no later window changes, (B, C, t) in [-1, 1].

        Args:
            codes: (B, K, windows * frames); the last window of all may be shorter.
            gains: (B, windows).
            last: whether nothing follows.

        Raises:
            InputError: other numbers of codes and gains.
        """
        codec, windows = self.codec, gains.shape[1]
        parts = codes.split(codec.frames, 2) if windows else ()
        if len(parts) != windows or (not last and codes.shape[2] % codec.frames):
            wanted = windows * codec.frames
            raise InputError(f"{windows} windows have {wanted} frames, the last maybe fewer; got {codes.shape[2]}")
        out = [codes.new_zeros(len(codes), codec.spec.channels, 0).float()]
        for w, part in enumerate(parts):
            frames = torch.full((len(codes),), part.shape[2], device=codes.device)
            y = codec.decode_windows(F.pad(part, (0, codec.frames - part.shape[2])), frames, gains[:, w])
            if self._tail is not None:
                y[:, :, : self._tail.shape[2]] += self._tail
            ready = part.shape[2] * codec.hop if last and w == windows - 1 else codec.step
            out.append((y[:, 1:, :ready] / y[:, :1, :ready].clamp(min=1e-12)).clamp(-1, 1))
            self._tail = y[:, :, codec.step :]
        return torch.cat(out, 2)
