"""Short-time spectra to a waveform: the head of Vocos, and one whose phases are easier to learn.

Source: Vocos (arXiv 2306.00814, github.com/gemelo-ai/vocos, MIT).
Differs: streams; in padded batches every signal's windows are added up to its own end.
"""

from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.nn.linear import linear
from codeczoo.nn.stream import Layer, Length, hide

LOUDEST = log(100.0)  # magnitudes are cut at 100
SCALE = 5.0  # of Cartesian spectra: outputs of about 1 are speech


class ISTFTHead(Layer):
    """Channels to log-magnitudes and phases of a frame, frames to a waveform: (B, C, T) to float32 (B, 1, T').

    Frames are Hann windows, added up and divided by the sum of the squared windows.

    Args:
        dim: C.
        n_fft: samples of a frame.
        hop: samples between the beginnings of frames, at most half of n_fft.
        padding: "same" cuts the outermost (n_fft - hop) / 2 samples, which leaves T * hop; "center" cuts n_fft / 2 as
            torch.istft does, which leaves (T - 1) * hop.
    """

    def __init__(self, dim: int, n_fft: int, hop: int, padding: Literal["same", "center"] = "same") -> None:
        super().__init__()
        if n_fft % 2 or (hop % 2 and padding == "same") or not 1 <= hop <= n_fft // 2:
            raise ConfigError(f"ISTFTHead: even n_fft, hop at most half of it (even for 'same'), got {n_fft}, {hop}")
        cuts = {"same": (n_fft - hop) // 2, "center": n_fft // 2}
        if padding not in cuts:
            raise ConfigError(f"ISTFTHead: padding must be 'same' or 'center', got '{padding}'")
        self.n_fft, self.hop, self.cut = n_fft, hop, cuts[padding]
        self.out = nn.Linear(dim, n_fft + 2)

    def length(self, n: Length) -> Length:
        """See Layer."""
        return (n - 1) * self.hop + self.n_fft - 2 * self.cut

    def needs(self, n: int) -> int:
        """See Layer."""
        return -(-(n + self.cut) // self.hop) if n else 0

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See Layer."""
        return self._run(x, lengths, self.begin(), True)

    def begin(self) -> "Sums":
        """See Layer."""
        return Sums(self.cut)

    def step(self, x: Tensor, state: "Sums", last: bool = False) -> Tensor:
        """See Layer."""
        return self._run(x, None, state, last)

    def _run(self, x: Tensor, lengths: Tensor | None, state: "Sums", last: bool) -> Tensor:
        window = torch.hann_window(self.n_fft, device=x.device)
        frames = self._frames(x, state.frame) * window  # (B, T, n_fft)
        state.frame += x.shape[2]
        squares = window.square().expand(len(x) if lengths is not None else 1, *frames.shape[1:])
        if lengths is not None:
            frames, squares = (hide(part.mT, lengths).mT for part in (frames, squares))
        total, weight = self._added(frames, state.total), self._added(squares, state.weight)  # (B, steps, hop)
        done = x.shape[2]
        state.total, state.weight = total[:, done:], weight[:, done:]
        if not last:
            total, weight = total[:, :done], weight[:, :done]
        y = (total / weight.clamp(min=1e-11)).flatten(1)[:, None]  # (B, 1, samples)
        if last:
            y = y[:, :, : max(0, y.shape[2] - (-self.n_fft % self.hop) - self.cut)]
        cut = min(state.cut, y.shape[2])
        state.cut -= cut
        return y[:, :, cut:]

    def _frames(self, x: Tensor, first: int) -> Tensor:
        """x (B, C, T), which begins with this frame of the signal, to frames (B, T, n_fft)."""
        if not x.shape[2]:  # MKL's transform refuses no frames
            return x.new_zeros(len(x), 0, self.n_fft, dtype=torch.float32)
        a, b = linear(self.out, x.mT).float().chunk(2, -1)
        return torch.fft.irfft(self.spectra(a, b, first), self.n_fft)

    def spectra(self, a: Tensor, b: Tensor, first: int) -> Tensor:
        """The two halves of the outputs, (B, T, n_fft / 2 + 1) each, to complex spectra.

        Args:
            a, b: the halves.
            first: which frame of the signal is the first of the T.
        """
        return torch.polar(a.clamp(max=LOUDEST).exp(), b)

    def _added(self, frames: Tensor, tail: Tensor | None) -> Tensor:
        """Frames (B, T, n_fft), each hop samples later, added up behind a tail: (B, T + R - 1, hop)."""
        b, t, _ = frames.shape
        parts = F.pad(frames, (0, -self.n_fft % self.hop)).unflatten(2, (-1, self.hop))  # (B, T, R, hop)
        out = frames.new_zeros(b, t + parts.shape[2] - 1, self.hop)
        for r in range(parts.shape[2]):
            out[:, r : r + t] += parts[:, :, r]
        if tail is not None:
            out[:, : tail.shape[1]] += tail
        return out


class CartesianISTFTHead(ISTFTHead):
    """As ISTFTHead, but channels become real and imaginary parts of a spectrum whose magnitudes are square roots.

    Ours. An angle is far from a linear function of the spectra that an encoder sees, real and imaginary parts are not.
    Without adversaries, small codecs began to match waveforms within 150 steps with this one, and not within 500 with
    angles.

    At high frequencies such codecs do not learn phases: frames alike in all but loudness follow each other, which is a
    hum at the rate of the frames. Signs that change from frame to frame make noise of it.

    Args:
        dim, n_fft, hop, padding: see ISTFTHead.
        noise_from: the first of the n_fft / 2 + 1 frequencies with such signs; None: there are none.
    """

    def __init__(
        self, dim: int, n_fft: int, hop: int, padding: Literal["same", "center"] = "same", noise_from: int | None = None
    ) -> None:
        super().__init__(dim, n_fft, hop, padding)
        if noise_from is not None and not 0 <= noise_from <= n_fft // 2:
            raise ConfigError(f"CartesianISTFTHead: noise_from must be 0..{n_fft // 2} or null, got {noise_from}")
        self.noise_from = noise_from

    def spectra(self, a: Tensor, b: Tensor, first: int) -> Tensor:
        """See ISTFTHead."""
        size = (a.square() + b.square() + 1e-6).sqrt() * SCALE  # finite slopes at 0
        if self.noise_from is not None:
            noisy = signs(first, a.shape[1], a.shape[2] - self.noise_from, a.device)
            size = size * F.pad(noisy, (self.noise_from, 0), value=1.0)
        return torch.complex(a * size, b * size)


def signs(first: int, frames: int, n: int, device: torch.device) -> Tensor:
    """1 or -1 for n frequencies of some frames, of which `first` is the first: float32 (frames, n).

    As good as random, and the same on any machine: the bits of whole numbers, mixed twice.
    """
    places = torch.arange(first, first + frames, device=device)[:, None] * n + torch.arange(n, device=device)
    for _ in range(2):
        places = ((places ^ (places >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return 1.0 - 2.0 * (places >> 16 & 1)


@dataclass
class Sums:
    """State of the head in a stream.

    Args:
        cut: samples still to be cut from its beginning.
        total, weight: (B, R - 1, hop), frames and squared windows whose sums later frames add to.
        frame: how many frames there were.
    """

    cut: int
    total: Tensor | None = None
    weight: Tensor | None = None
    frame: int = 0
