"""Measures of audio against their definitions and the packages they come from."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from codeczoo.core.errors import InputError, MissingError
from codeczoo.data.sounds import generated_sound
from codeczoo.metrics import audio
from codeczoo.metrics.audio import MEASURES, mel_distance, pesq, si_sdr, stft_distance, stoi, superb_mel_distance
from codeczoo.metrics.spectrum_picture import spectrum_picture
from codeczoo.nn.spectrogram import MelSpectrogram

RATE = 16000


def clips(n: int = 3, seconds: float = 1.5) -> Tensor:
    return torch.stack([generated_sound(0, i, RATE, round(seconds * RATE)) for i in range(n)])


def noisy(x: Tensor, level: float, seed: int = 0) -> Tensor:
    return x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_is_per_clip_and_ranks_noise(name: str) -> None:
    if name in ("pesq", "stoi"):
        pytest.importorskip({"pesq": "pesq", "stoi": "pystoi"}[name])
    x = clips(2)
    measure, better = MEASURES[name], -1 if name in ("mel", "superb_mel", "stft") else 1
    results = torch.stack([measure(x, noisy(x, level), RATE) for level in (0.0, 0.003, 0.03)])  # (3, 2)
    assert results.shape == (3, 2) and results.dtype == torch.float32 and results.isfinite().all()
    steps = better * results.diff(dim=0)
    assert (steps < 0).all(), f"{name}: {results}"
    best = {"si_sdr": 100.0, "pesq": 4.6439, "stoi": 1.0}.get(name, 0.0)
    assert results[0].tolist() == pytest.approx([best] * 2, abs=1e-3)


@pytest.mark.parametrize("name", MEASURES)
def test_padding_does_not_count(name: str) -> None:
    if name in ("pesq", "stoi"):
        pytest.importorskip({"pesq": "pesq", "stoi": "pystoi"}[name])
    x = clips(3)
    x_hat = noisy(x, 0.02)
    lengths = torch.tensor([24000, 16001, 12000])
    together = MEASURES[name](x, x_hat, RATE, lengths)
    alone = [MEASURES[name](x[i : i + 1, :, :n], x_hat[i : i + 1, :, :n], RATE) for i, n in enumerate(lengths.tolist())]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_mel_distances_are_what_they_say() -> None:
    x = clips(2)
    x_hat = x * 0.1
    # A tenth of the magnitude is one decade wherever nothing is below the floor: seven windows, or twice two squares.
    loud = noisy(x, 0.5)
    assert mel_distance(loud, loud * 0.1, RATE).tolist() == pytest.approx([7.0] * 2, abs=0.05)
    mels = [
        MelSpectrogram(n, n // 4, sample_rate=RATE, n_mels=m, scale="slaney", unit_area=True)
        for n, m in ((2048, 150), (512, 80))
    ]
    wanted = 0.0
    for mel in mels:
        a, b = mel(x[:1]), mel(x_hat[:1])
        logs = [s.clamp(1e-5).pow(2).log10() for s in (a, b)]
        wanted += float((logs[0] - logs[1]).abs().mean() + (a - b).abs().mean())
    assert float(superb_mel_distance(x, x_hat, RATE)[0]) == pytest.approx(wanted, rel=1e-5)
    assert stft_distance(loud, loud * 0.1)[0] > 2 * 2 * 0.99


def test_si_sdr_is_its_formula_and_ignores_scale() -> None:
    x = clips(2)
    x_hat = noisy(x, 0.05)
    a, b = x[0, 0].double() - x[0, 0].double().mean(), x_hat[0, 0].double() - x_hat[0, 0].double().mean()
    wanted = (a @ b / (a @ a)) * a
    value = 10 * math.log10(float(wanted @ wanted / ((b - wanted) @ (b - wanted))))
    assert float(si_sdr(x, x_hat)[0]) == pytest.approx(value, abs=1e-3)
    assert torch.allclose(si_sdr(x, 0.3 * x_hat + 0.1), si_sdr(x, x_hat), atol=1e-2)
    assert si_sdr(torch.zeros(1, 1, 99), torch.ones(1, 1, 99)).isnan().all()
    torchmetrics = pytest.importorskip("torchmetrics.functional.audio")
    theirs = torchmetrics.scale_invariant_signal_distortion_ratio(x_hat, x, zero_mean=True)[:, 0]
    assert torch.allclose(si_sdr(x, x_hat), theirs, atol=1e-2)


def test_silence_is_the_worst_speech() -> None:
    """Clips without speech have no value; a codec that loses the speech does not get rid of the clip."""
    pytest.importorskip("pesq")
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 1, 2 * 16000))).float()
    x = x * torch.linspace(0, 12, x.shape[2]).sin().relu()
    silent = torch.zeros_like(x)
    assert float(pesq(x, x, 16000)) > 1 and float(pesq(x, silent, 16000)) == 1.0
    assert pesq(silent, x, 16000).isnan() and pesq(silent, silent, 16000).isnan()


def test_pesq_and_stoi_are_their_packages() -> None:
    pesq_package, stoi_package = pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    x = clips(1, 3.0)
    x_hat = noisy(x, 0.02)
    sides = [s[0, 0].double().numpy() for s in (x, x_hat)]
    assert float(pesq(x, x_hat, RATE)) == pytest.approx(pesq_package.pesq(RATE, *sides, "wb"), abs=1e-5)
    assert float(stoi(x, x_hat, RATE)) == pytest.approx(stoi_package.stoi(*sides, RATE), abs=2e-3)
    stereo = torch.cat([x, x], 1), torch.cat([x_hat, x_hat], 1)
    assert torch.allclose(pesq(*stereo, RATE), pesq(x, x_hat, RATE), atol=1e-4)


def test_what_cannot_be_measured_is_nan() -> None:
    pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    silent, short = torch.zeros(1, 1, RATE), clips(1, 0.1)
    for measure in (pesq, stoi):
        assert measure(silent, silent, RATE).isnan().all() and measure(short, short, RATE).isnan().all()
    assert mel_distance(short[..., :9], short[..., :9], RATE).tolist() == [0]


def test_missing_packages_and_wrong_shapes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clips(1)
    for name, measure in (("pesq", pesq), ("pystoi", stoi)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingError, match=r"codeczoo\[eval\]"):
            measure(x, x, RATE)
    with pytest.raises(InputError, match="of one shape"):
        mel_distance(x, x[..., 1:], RATE)
    assert set(MEASURES) == {"mel", "superb_mel", "stft", "si_sdr", "pesq", "stoi"} and audio.__doc__


def test_spectrum_picture_shows_a_rising_tone_rising() -> None:
    pytest.importorskip("matplotlib")
    t = torch.arange(3 * RATE) / RATE
    chirp = 0.5 * torch.sin(2 * torch.pi * (200 * t + 900 * t * t))[None]
    picture = spectrum_picture(torch.stack([chirp, torch.zeros_like(chirp)]), RATE, height=64)
    assert picture.shape[:2] == (3, 128) and abs(picture.shape[2] - 300) <= 2
    assert picture.min() >= 0 and picture.max() <= 1
    ridge = picture.sum(0)[:64, 10:-10].argmax(0).double().numpy()
    assert np.polyfit(np.arange(len(ridge)), ridge, 1)[0] < -0.05, "high sounds above"
    assert picture[:, 64:].std((1, 2)).max() < 1e-3
