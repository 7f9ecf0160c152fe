"""Haar wavelet patches: what the bands are, nothing lost, nothing from the future, any pieces."""

import pytest
import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.nn.haar import HaarClips, HaarFrames, HaarPatches, HaarPixels
from codeczoo.nn.stream import Layer


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def stepped(layer: Layer, x: Tensor, sizes: list[int]) -> Tensor:
    """x piece by piece, the sizes in turn."""
    state, parts, at, turn = layer.begin(), [], 0, 0
    while at < x.shape[2]:
        n = sizes[turn % len(sizes)]
        parts.append(layer.step(x[:, :, at : at + n], state, at + n >= x.shape[2]))
        at, turn = at + n, turn + 1
    return torch.cat(parts, 2)


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_nothing_is_lost(side: int) -> None:
    x = noise(2, 3, 2 * side, 3 * side)
    bands = HaarPatches(side)(x)
    assert bands.shape == (2, 3 * side**2, 2, 3)
    torch.testing.assert_close(HaarPixels(side)(bands), x, atol=2e-6, rtol=0)
    clip = noise(2, 3, 1 + 2 * side, side, 2 * side)
    bands = HaarClips(side)(clip)
    assert bands.shape == (2, 3 * side**3, 3, 1, 2)
    torch.testing.assert_close(HaarFrames(side)(bands), clip, atol=2e-6, rtol=0)


def test_what_the_bands_are() -> None:
    x = noise(1, 3, 4, 8)
    bands = HaarPatches(4)(x)
    torch.testing.assert_close(bands[:, :3], torch.nn.functional.avg_pool2d(x, 4))
    (a, b), (c, d) = x[0, 1, :2, :2]
    two = HaarPatches(2)(x)[0, 1::3, 0, 0]  # of channel 1
    torch.testing.assert_close(two, torch.stack([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d]) / 4)
    clip = noise(1, 1, 5, 2, 2)
    three = HaarClips(2)(clip)  # frame 0, frames 1 and 2, frames 3 and 4
    swapped = [0, 2, 1, 3]  # here columns count fastest
    torch.testing.assert_close(three[:, swapped, 0], HaarPatches(2)(clip[:, :, 0]))
    assert not three[:, 4:, 0].any()  # a frame does not differ from itself
    torch.testing.assert_close(three[:, 4:, 1][:, swapped], HaarPatches(2)((clip[:, :, 1] - clip[:, :, 2]) / 2))


@pytest.mark.parametrize("sizes", [[1], [3], [4], [0, 2, 7], [100]], ids=str)
@pytest.mark.parametrize("frames", [1, 5, 13, 15])
def test_clips_in_pieces(sizes: list[int], frames: int) -> None:
    x, patches, pixels = noise(2, 3, frames, 4, 8), HaarClips(4), HaarFrames(4)
    bands = patches(x)
    assert bands.shape[2] == patches.length(frames)
    assert torch.equal(stepped(patches, x, sizes), bands)
    assert torch.equal(stepped(pixels, bands, sizes), pixels(bands))
    assert patches.step(x[:, :, :0], patches.begin()).shape[2] == 0


def test_needs_is_what_streams_need() -> None:
    for layer, channels, size in ((HaarClips(4), 3, 4), (HaarFrames(4), 192, 1)):
        for n in range(1, 12):
            for given, enough in ((layer.needs(n), True), (layer.needs(n) - 1, False)):
                assert (layer.step(noise(1, channels, given, size, size), layer.begin()).shape[2] >= n) == enough


def test_the_future_changes_nothing() -> None:
    x = noise(1, 3, 13, 4, 4)
    later = torch.cat([x[:, :, :5], noise(1, 3, 8, 4, 4)], 2)
    assert torch.equal(HaarClips(4)(x)[:, :, :2], HaarClips(4)(later)[:, :, :2])


def test_half_precision_keeps_pixels() -> None:
    clip = noise(1, 3, 5, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(HaarClips(4)(clip), HaarClips(4).bfloat16()(clip))
        torch.testing.assert_close(HaarFrames(4)(HaarClips(4)(clip)), clip, atol=2e-6, rtol=0)
    half = HaarClips(4).bfloat16()(clip.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(HaarFrames(4).bfloat16()(half), HaarFrames(4)(half.float()))


def test_sides_are_powers_of_two() -> None:
    with pytest.raises(ConfigError, match="power of 2, got 6"):
        HaarPatches(6)
