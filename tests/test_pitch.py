"""The pitch tracker on sounds of known pitch, and what it says of sounds that differ in a known way."""

import math

import pytest
import torch
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.metrics.pitch import FEWEST, pitch, pitch_errors

pytest.importorskip("soxr")

RATE = 24_000


def voice(hz: Tensor, rate: int = RATE, harmonics: int = 12) -> Tensor:
    """A buzz whose pitch is hz (T,), (1, 1, T)."""
    phase = 2 * math.pi * (hz.double() / rate).cumsum(0)
    parts = [torch.sin(k * phase) / k for k in range(1, harmonics + 1)]
    return (0.2 * torch.stack(parts).sum(0)).float()[None, None]


def noise(samples: int, level: float = 0.1) -> Tensor:
    return level * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
@pytest.mark.parametrize("hz", [70.0, 123.4, 220.0, 432.1])
@pytest.mark.parametrize("harmonics", [1, 8])
def test_a_steady_tone_has_its_pitch(rate: int, hz: float, harmonics: int) -> None:
    found = pitch(voice(torch.full((rate,), hz), rate, harmonics), rate)
    assert found.shape == (1, 101) and found.dtype == torch.float32
    inside = found[0, 4:-4]  # the ends see what is not there
    assert (1200 * (inside / hz).log2()).abs().max() < 2, "cents"


def test_a_glide_is_followed_and_other_sounds_have_no_pitch() -> None:
    hz = torch.linspace(100, 300, 2 * RATE)
    found = pitch(voice(hz), RATE)[0]
    wanted = hz[:: RATE // 100][4:-4]
    assert (1200 * (found[4 : 4 + len(wanted)] / wanted).log2()).abs().median() < 10
    assert not pitch(noise(RATE), RATE).any() and not pitch(torch.zeros(1, 1, RATE), RATE).any()
    beyond = torch.cat([voice(torch.full((RATE,), hz)) for hz in (40.0, 1500.0)])
    low, high = pitch(beyond, RATE)
    assert not low[5:-5].any()  # its period is longer than any that is tried
    assert (high[5:-5] < 510).all()  # a multiple of its period, where that is tried


def test_quiet_frames_are_not_voiced_and_channels_are_mixed() -> None:
    half = voice(torch.full((RATE,), 150.0))
    found = pitch(torch.cat([half, 0.01 * half], 2), RATE)[0]
    assert (found[5:95] > 0).all() and not found[106:].any()  # 40 dB below
    both = torch.cat([half, -half], 1)  # (1, 2, T): nothing is left
    assert not pitch(both, RATE).any()


def test_errors_are_those_that_were_made() -> None:
    hz = torch.linspace(110, 220, 2 * RATE)
    x = voice(hz)
    same = {name: float(value) for name, value in pitch_errors(x, x, RATE).items()}
    assert same == {"vuv": 0, "f0_cents": 0, "f0_corr": pytest.approx(1)}
    higher = pitch_errors(x, voice(hz * 2 ** (50 / 1200)), RATE)
    assert float(higher["f0_cents"]) == pytest.approx(50, abs=3) and float(higher["f0_corr"]) > 0.999
    turned = pitch_errors(x, voice(hz.flip(0)), RATE)
    assert float(turned["f0_corr"]) < -0.95
    x_hat = x.clone()
    x_hat[..., RATE // 2 : RATE] = noise(RATE // 2)[0]  # a quarter is whispered
    assert float(pitch_errors(x, x_hat, RATE)["vuv"]) == pytest.approx(0.25, abs=0.03)


def test_clips_without_voice_have_no_value() -> None:
    x, hiss = voice(torch.full((RATE,), 150.0)), noise(RATE)
    lost = pitch_errors(x, hiss, RATE)
    assert float(lost["vuv"]) > 0.9 and lost["f0_cents"].isnan().all() and lost["f0_corr"].isnan().all()
    assert all(value.isnan().all() for value in pitch_errors(hiss, x, RATE).values())
    steady = pitch_errors(x[..., RATE // 4 :], x[..., RATE // 4 :], RATE)
    assert float(steady["f0_cents"]) == 0
    short = x[..., : RATE * (FEWEST - 10) // 100]
    assert pitch_errors(short, short, RATE)["vuv"].isnan().all()
    batch = pitch_errors(torch.cat([x, hiss]), torch.cat([x, hiss]), RATE)
    assert batch["vuv"].shape == (2,) and batch["vuv"][0] == 0 and batch["vuv"][1].isnan()
    with pytest.raises(InputError, match="of one shape"):
        pitch_errors(x, x[..., 1:], RATE)
