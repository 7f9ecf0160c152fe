"""The pitch of speech, and how well a codec keeps it; one value per clip, average them over clips yourself."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import InputError
from codeczoo.io.resample import resample

RATE, HOP, WINDOW = 16_000, 160, 512  # Hz; samples from one frame to the next, and that are compared in a frame
LOWEST, HIGHEST = 60.0, 500.0  # Hz; voices of men to those of children
THRESHOLD, NEAR = 0.3, 0.05  # of the normalised difference: less is voiced; what is as good as the best
QUIET = 1e-3  # of the power of the loudest frame: less is not voiced (30 dB)
SILENT = 1e-8  # power; less is not voiced, however quiet the rest
FEWEST = 30  # voiced frames (0.3 s) that errors are told of
BLOCK = 4096  # frames at once
NAMES = ("vuv", "f0_cents", "f0_corr")


def pitch(x: Tensor, rate: int) -> Tensor:
    """F0 in Hz every 10 ms, 0 where there is no voice. x (B, C, T) to float32 (B, T at 16 kHz // 160 + 1).

    Channels are mixed. It is for one voice at a time; of music and noise it says little.

    Source: YIN (de Cheveigne and Kawahara 2002), steps 1 to 5: the lag where the normalised difference dips, refined
        by a parabola.
    Differs: frames without a dip below 0.3, and quiet ones, are not voiced; of several dips it is the first that is
        within 0.05 of the deepest, not the first below 0.1; the best local estimate (step 6) is left out.
    """
    mono = torch.stack([resample(side[None], rate, RATE)[0] for side in x.float().mean(1).cpu()])  # (B, T')
    longest = round(RATE / LOWEST)
    size = WINDOW + longest + 1
    frames = F.pad(mono.double(), (size // 2, size - size // 2)).unfold(1, size, HOP)[:, : mono.shape[1] // HOP + 1]
    power = frames[..., :WINDOW].square().mean(2)  # (B, frames)
    heard = (power > SILENT) & (power > QUIET * power.amax(1, keepdim=True))
    found = torch.cat([_of_frames(block) for block in frames.split(BLOCK, 1)], 1)
    return torch.where(heard, found, 0.0).float()


def _of_frames(frames: Tensor) -> Tensor:
    """Frames (B, n, WINDOW + longest lag + 1) to F0 in Hz, 0 where no lag is good enough, (B, n)."""
    most = frames.shape[2] - WINDOW  # lags 0..most - 1, and one more that tells a dip from a slope
    energy = F.pad(frames.square().cumsum(2), (1, 0))
    energy = energy[..., WINDOW:] - energy[..., : most + 1]  # (B, n, most + 1), of each shifted window
    length = 1 << (frames.shape[2] - 1).bit_length()
    spectra = torch.fft.rfft(frames, length), torch.fft.rfft(frames[..., :WINDOW], length)
    product = torch.fft.irfft(spectra[0] * spectra[1].conj(), length)[..., : most + 1]
    difference = (energy[..., :1] + energy - 2 * product).clamp_min(0)[..., 1:]  # of lags 1..most
    lags = torch.arange(1, most + 1, dtype=frames.dtype)
    curve = difference * lags / difference.cumsum(2).clamp_min(1e-12)  # 1 on average, 0 at a period
    before, here, after = curve[..., :-2], curve[..., 1:-1], curve[..., 2:]  # `here`: lags 2..most - 1
    dips = (here <= before) & (here < after) & (lags[1:-1] >= RATE / HIGHEST)
    deepest = torch.where(dips, here, 1.0).amin(2, keepdim=True)
    place = (dips & (here <= deepest + NEAR)).to(torch.uint8).argmax(2, keepdim=True)  # the first
    left, middle, right = (part.gather(2, place)[..., 0] for part in (before, here, after))
    shift = 0.5 * (left - right) / (left - 2 * middle + right).clamp_min(1e-12)
    return torch.where(deepest[..., 0] < THRESHOLD, RATE / (place[..., 0] + 2 + shift), 0.0)


def pitch_errors(x: Tensor, x_hat: Tensor, rate: int) -> dict[str, Tensor]:
    """How x_hat differs from x in pitch, both (B, C, T) in [-1, 1] at `rate` Hz; float32 (B,) each.

    Returns:
        vuv: share of the frames where one is voiced and the other is not.
        f0_cents: root of the mean square difference in cents (1200: an octave), where both are voiced.
        f0_corr: correlation of the logarithms of F0, where both are voiced.
        NaN where x, or both together, are voiced in fewer than 0.3 s, and a correlation with what does not vary. A
        codec that loses the voice has few frames left to err in: read `f0_cents` and `f0_corr` beside `vuv`.

    Source: the usual three of speech synthesis; Codec-SUPERB's F0Corr.
    Differs: Codec-SUPERB takes Praat's pitch, warps time first, and counts clips without enough voice as 0.6.
    Raises InputError for shapes that differ.
    """
    if x.shape != x_hat.shape or x.ndim != 3 or not x.shape[2]:
        raise InputError(f"clips to compare are (B, C, T) of one shape, got {tuple(x.shape)} and {tuple(x_hat.shape)}")
    rows = [list(_errors(a, b)) for a, b in zip(pitch(x, rate), pitch(x_hat, rate), strict=True)]
    return dict(zip(NAMES, torch.tensor(rows).T.to(x.device), strict=True))


def _errors(wanted: Tensor, got: Tensor) -> Iterator[float]:
    """The values of NAMES for two tracks (frames,)."""
    nothing = float("nan")
    yield float(((wanted > 0) != (got > 0)).float().mean()) if int((wanted > 0).sum()) >= FEWEST else nothing
    both = (wanted > 0) & (got > 0)
    if int(both.sum()) < FEWEST:
        yield nothing
        yield nothing
        return
    a, b = wanted[both].double().log2(), got[both].double().log2()
    yield float(1200 * (a - b).square().mean().sqrt())
    a, b = a - a.mean(), b - b.mean()
    scale = float(a.norm() * b.norm())
    yield float(a @ b) / scale if scale > 1e-9 else nothing
