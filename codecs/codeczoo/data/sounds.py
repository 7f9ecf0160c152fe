"""Sounds made by formula: something varied and structured to learn from, without a download.

A sound is a pure function of (seed, index): babble, a tune, chirps or bursts of noise, alike at every sampling rate.
"""

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from codeczoo.core.errors import InputError

Wave = NDArray[np.float64]  # (T,)
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))  # Hz, formants


def generated_sound(seed: int, index: int, sample_rate: int, samples: int, channels: int = 1) -> Tensor:
    """Sound number `index` of the endless tape `seed`.

    Args:
        seed, index: non-negative; the same pair always gives the same sound.
        sample_rate: Hz, at least 2000.
        samples: T, at least 1.
        channels: C; they differ in level.

    Returns:
        float32 (C, T) in [-1, 1].
    """
    if sample_rate < 2000 or min(samples, channels) < 1 or min(seed, index) < 0:
        got = f"{sample_rate} Hz, {samples} samples, {channels} channels, seed {seed}, index {index}"
        raise InputError(f"generated sounds want at least 2000 Hz, 1 sample, 1 channel, seed and index 0, got {got}")
    rng = np.random.default_rng((seed, index))
    scene = (babble, tune, chirps, bursts)[rng.choice(4, p=(0.4, 0.3, 0.15, 0.15))]
    level, levels = rng.uniform(0.2, 0.9), rng.uniform(0.5, 1, channels)
    wave = scene(rng, sample_rate, samples) + 1e-3 * rng.standard_normal(samples)
    wave *= level / np.abs(wave).max()
    levels /= levels.max()
    return torch.from_numpy((levels[:, None] * wave).astype(np.float32))


def babble(rng: Generator, rate: int, samples: int) -> Wave:
    """Speech-like: syllables of pulses at a gliding pitch through formants, most after a hiss."""
    t, wave = np.arange(samples) / rate, np.zeros(samples)
    pitch = rng.uniform(90, 250) * np.exp(0.2 * glide(rng, t))
    voice = np.exp(-(((pitch.cumsum() / rate) % 1) / 0.15)) + 0.05 * rng.standard_normal(samples)
    begin, size = rng.uniform(-0.1, 0.1), rng.uniform(0.8, 1.25)
    while begin < t[-1]:
        hiss, length = rng.uniform(0, 0.09), rng.uniform(0.12, 0.35)
        if hiss > 0.02:
            place = inside(t, begin, begin + hiss)
            wave[place] += rng.uniform(0.05, 0.3) * resonant(rng.standard_normal(samples)[place], rate, (4500,), 1500)
        place = inside(t, begin + hiss, begin + hiss + length)
        vowel = tuple(size * f for f in VOWELS[rng.integers(len(VOWELS))])
        wave[place] += swell(t[place], begin + hiss, length) * resonant(voice[place], rate, vowel, 90)
        begin += hiss + length + (rng.uniform(0.1, 0.5) if rng.random() < 0.2 else 0)
    return wave


def tune(rng: Generator, rate: int, samples: int) -> Wave:
    """Notes of a few harmonics with attack, decay and vibrato, on a pentatonic scale."""
    t, wave = np.arange(samples) / rate, np.zeros(samples)
    root, tilt, decay = rng.uniform(110, 440), rng.uniform(0.5, 2), rng.uniform(1, 8)
    begin, beat = -rng.uniform(0, 0.3), rng.uniform(0.15, 0.6)
    while begin < t[-1]:
        here = t[inside(t, begin, begin + 3 * beat)]
        note = root * 2 ** (rng.choice((0, 2, 4, 7, 9, 12)) / 12)
        vibrato = rng.uniform(0, 0.01) * np.sin(2 * np.pi * rng.uniform(4, 7) * (here - begin))
        phase = 2 * np.pi * note * (here - begin + vibrato / 6)
        partials = np.arange(1, max(2, min(10, int(0.45 * rate / note))))
        tone = sum(np.sin(k * phase) * k**-tilt for k in partials)
        envelope = np.minimum((here - begin) / 0.01, 1) * np.exp(-decay * (here - begin))
        wave[inside(t, begin, begin + 3 * beat)] += tone * envelope * np.clip((begin + 3 * beat - here) / 0.05, 0, 1)
        begin += beat * rng.choice((0.5, 1, 1, 2))
    return wave


def chirps(rng: Generator, rate: int, samples: int) -> Wave:
    """One to four tones that glide, each for a part of the time."""
    t, wave = np.arange(samples) / rate, np.zeros(samples)
    for _ in range(rng.integers(1, 5)):
        low, high = np.sort(rng.uniform(np.log(80), np.log(0.4 * rate), 2))
        path = np.exp(low + (high - low) * (0.5 + 0.5 * glide(rng, t)))
        begin, length = rng.uniform(-0.2, max(0.2, t[-1] / 2)), rng.uniform(0.2, 1.5)
        wave += rng.uniform(0.3, 1) * swell(t, begin, length) * np.sin(2 * np.pi * path.cumsum() / rate)
    return wave + 1e-2 * np.sin(2 * np.pi * 220 * t)


def bursts(rng: Generator, rate: int, samples: int) -> Wave:
    """Coloured noise that begins suddenly and dies away, again and again, as of drums, steps or waves."""
    t, wave = np.arange(samples) / rate, np.zeros(samples)
    centre, width = rng.uniform(150, 0.3 * rate), rng.uniform(100, 2000)
    noise = resonant(rng.standard_normal(samples), rate, (centre,), width)
    begin = -rng.uniform(0, 0.2)
    while begin < t[-1]:
        after = np.maximum(t - begin, 0)
        wave += rng.uniform(0.3, 1) * (t >= begin) * np.exp(-after / rng.uniform(0.02, 0.2)) * noise
        begin += rng.uniform(0.1, 0.5)
    return wave + 0.01 * noise


def glide(rng: Generator, t: Wave) -> Wave:
    """A smooth random curve in -1..1."""
    return np.mean([np.sin(2 * np.pi * (rng.uniform(0.2, 3) * t + rng.random())) for _ in range(3)], axis=0)


def swell(t: Wave, begin: float, length: float) -> Wave:
    """A hump from `begin` on, 0 outside."""
    return np.sin(np.pi * np.clip((t - begin) / length, 0, 1)) ** 0.6


def inside(t: Wave, begin: float, end: float) -> slice:
    """Which samples lie between two times."""
    return slice(*np.searchsorted(t, (begin, end)))


def resonant(wave: Wave, rate: int, centres: tuple[float, ...], width: float) -> Wave:
    """The sum of resonances at `centres`, `width` Hz wide, each weaker than the one before."""
    if not len(wave):
        return wave
    f = np.fft.rfftfreq(len(wave), 1 / rate)
    response = sum(0.6**i / (1 + 1j * (f - centre) / width) for i, centre in enumerate(centres))
    return np.fft.irfft(np.fft.rfft(wave) * response, len(wave))
