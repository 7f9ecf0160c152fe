"""Layers of video: pieces give what whole clips give, batches what single clips give, and no step sees a later one."""

from collections.abc import Callable

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from video_cases import clip, cut, joined

from codeczoo.nn.conv3d import Conv3d, FrameConv, MixedConv3d, TimeConv
from codeczoo.nn.norm3d import Activated, FrameNorm, PositionNorm
from codeczoo.nn.resample3d import Cut, Enlarge, Lead, TimeBlend, TimeRepeat
from codeczoo.nn.stream import Chain, Layer, Sum

LAYERS: dict[str, Callable[[], Layer]] = {
    "over time": lambda: TimeConv(3, 4, 3),
    "over time, zeros": lambda: TimeConv(3, 4, 2, pad="constant"),
    "over time, halved": lambda: TimeConv(3, 4, 3, 2, left=1, pad="constant"),
    "both": lambda: Conv3d(3, 4, 3),
    "both, third": lambda: Conv3d(3, 4, 3, 3),
    "mixed": lambda: MixedConv3d(3),
    "mixed, halved": lambda: MixedConv3d(3, 2),
    "mixed, halved, zeros": lambda: MixedConv3d(3, 2, left=1, pad="constant"),
    "frames": lambda: FrameConv(3, 4, 3),
    "pixels": lambda: FrameConv(3, 4, 1),
    "frames, halved": lambda: FrameConv(3, 4, 3, 2, (0, 1)),
    "repeated": TimeRepeat,
    "repeated, all": lambda: TimeRepeat(2),
    "blended": TimeBlend,
    "lead": lambda: Lead(3),
    "cut": lambda: Cut(2),
    "enlarged": Enlarge,
    "norm": lambda: Activated(PositionNorm(3)),
    "norm of frames": lambda: Activated(FrameNorm(3, 3)),
    "chain": lambda: Chain([Lead(1), MixedConv3d(3, 2, left=1), Cut(1), TimeBlend(), TimeConv(3, 2, 3), TimeBlend()]),
    "sum": lambda: Sum([Chain([TimeBlend(), TimeConv(3, 3, 3, 2)]), TimeConv(3, 3, 2)]),
}


def made(name: str) -> Layer:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    return layer


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=12, deadline=None)
@given(frames=st.integers(1, 14), sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any))
def test_pieces_give_the_whole(name: str, frames: int, sizes: list[int]) -> None:
    layer, x = made(name), clip(frames, 4, 5, batch=2)
    if layer.length(frames) < 1:
        return
    with torch.no_grad():
        whole, state = layer(x), layer.begin()
        assert whole.shape[2] == layer.length(frames)
        pieces = joined(layer.step(piece, state, last) for piece, last in cut(x, sizes))
        torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(3, 12), min_size=2, max_size=3))
def test_padded_batches(name: str, lengths: list[int]) -> None:
    layer, x, n = made(name), clip(max(lengths), 4, 5, batch=len(lengths)), torch.tensor(lengths)
    with torch.no_grad():
        together = layer(x, n)
        for i, length in enumerate(lengths):
            alone = layer(x[i : i + 1, :, :length])
            assert layer.length(n)[i] == alone.shape[2]
            torch.testing.assert_close(together[i : i + 1, :, : alone.shape[2]], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_needs_is_what_streams_need(name: str) -> None:
    """`needs(n)` steps are enough for n steps, and one fewer is not."""
    layer = made(name)
    for n in range(1, 12):
        for given_steps, enough in ((layer.needs(n), True), (layer.needs(n) - 1, False)):
            came = layer.step(clip(given_steps, 2, 2), layer.begin()).shape[2]
            assert (came >= n) == enough, n


@pytest.mark.parametrize("name", LAYERS)
def test_no_step_sees_a_later_one(name: str) -> None:
    """What `needs` says comes first is all that a step depends on: later ones may be anything, even no numbers."""
    layer, x = made(name), clip(9, 4, 4)
    with torch.no_grad():
        whole = layer(x)
        for n in range(1, whole.shape[2] + 1):
            spoiled = x.clone()
            spoiled[:, :, layer.needs(n) :] = torch.nan
            assert torch.equal(layer(spoiled)[:, :, :n], whole[:, :, :n]), n


def test_steps_compile_once() -> None:
    """Without breaks, a graph for the first piece, one for the next (where blending begins), one for all others."""
    layer = Chain([Conv3d(3, 3, 3), MixedConv3d(3, 2), TimeRepeat(), TimeBlend()])
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    state, plain = layer.begin(), layer.begin()
    with torch.no_grad():
        step = torch.compile(layer.step, backend=counter, fullgraph=True, dynamic=False)
        for i in range(5):
            piece = clip(4 if i else 1, 4, 4, seed=i)
            torch.testing.assert_close(step(piece, state), layer.step(piece, plain))
        assert counter.frame_count == 3
        torch.compile(layer, backend=counter, fullgraph=True)(clip(9, 4, 4))
        assert counter.frame_count == 4


def test_mixed_convolutions_are_what_they_say() -> None:
    """VidTok's blends: the mean of three steps beside a strided convolution, the latest step beside a plain one."""
    x = clip(9, 4, 4)
    for stride in (1, 2):
        layer = MixedConv3d(3, stride)
        nn.init.normal_(layer.bias)
        share = layer.mix.sigmoid()
        led = torch.cat([x[:, :, :1], x[:, :, :1], x], 2)
        plain = F.conv3d(led, layer.weight, layer.bias, (stride, 1, 1), (0, 1, 1))
        other = F.avg_pool3d(led, (3, 1, 1), (2, 1, 1)) if stride == 2 else x
        torch.testing.assert_close(layer(x), share * other + (1 - share) * plain, atol=1e-5, rtol=1e-5)


def test_blending_is_linear_interpolation_with_the_first_step_alone() -> None:
    x = clip(7, 2, 3)
    rest = F.interpolate(x[:, :, 1:], scale_factor=(2.0, 1.0, 1.0), mode="trilinear")
    torch.testing.assert_close(TimeBlend()(x), torch.cat([x[:, :, :1], rest], 2))
    assert torch.equal(TimeBlend()(x[:, :, :1]), x[:, :, :1])


@pytest.mark.parametrize("name", [n for n in LAYERS if n not in ("cut", "lead")])
def test_layouts_in_memory_do_not_matter(name: str) -> None:
    layer, x = made(name), clip(6, 4, 4, batch=2)
    other = x.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(layer(other), layer(x), atol=1e-6, rtol=1e-5)
    kept: Tensor = layer(other)
    assert kept.movedim(1, -1).is_contiguous()
