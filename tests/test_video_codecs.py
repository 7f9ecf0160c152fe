"""Video codecs with random weights: what must hold whatever the weights."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from video_cases import ALL, CAUSAL, build, clip

CODECS = {name: build(name) for name in ALL}


def cut(x: Tensor, sizes: list[int]) -> Iterator[tuple[Tensor, bool]]:
    """Pieces of x with these sizes in time over and over, and whether each is the last; the last is empty."""
    at = i = 0
    while at < x.shape[2]:
        yield x[:, :, at : at + sizes[i % len(sizes)]], False
        at += sizes[i % len(sizes)]
        i += 1
    yield x[:, :, :0], True


@pytest.fixture(params=ALL)
def codec(request: pytest.FixtureRequest) -> Any:
    return CODECS[request.param]


@pytest.mark.parametrize("frames", range(1, 11))
def test_any_number_of_frames_comes_back(codec: Any, frames: int) -> None:
    x = clip(frames, 10, 7)
    tokens = codec.encode(x)
    f = codec.stride[0]
    assert tokens.codes.shape[2:] == (1 + -(-(frames - 1) // f), 3, 2) and tokens.size.tolist() == [[frames, 10, 7]]
    assert codec.decode(tokens).shape == x.shape


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1], [4], [3, 0, 7], [100]], ids=str)
def test_streams_give_codes_and_frames_of_the_whole(codec: Any, sizes: list[int]) -> None:
    x = clip(23, 8, 12, batch=2)
    tokens = codec.encode(x)
    whole = codec.render(codec.quantizer.decode(tokens.codes)).clamp(0, 1)
    stream = codec.stream()
    codes = torch.cat([stream.encode(piece, last)[0] for piece, last in cut(x, sizes)], 2)
    assert torch.equal(codes, tokens.codes)
    x_hat = torch.cat([stream.decode((piece,), last) for piece, last in cut(codes, sizes)], 2)
    torch.testing.assert_close(x_hat, whole, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_the_future_changes_nothing(name: str) -> None:
    codec, x = CODECS[name], clip(17, 8, 8)
    f = codec.stride[0]
    z, codes = codec.latents(x)[0], codec.encode(x).codes
    for at in range(1, 17):
        y = torch.cat([x[:, :, :at], clip(17 - at, 8, 8, seed=9)], 2)
        known = 1 + (at - 1) // f
        assert torch.equal(codec.latents(y)[0][:, :, :known], z[:, :, :known])
    q = codec.quantizer.decode(codes)
    x_hat = codec.render(q)
    for at in range(1, codes.shape[2]):
        other = torch.cat([q[:, :, :at], -q[:, :, at:]], 2)
        assert torch.equal(codec.render(other)[:, :, : 1 + f * (at - 1)], x_hat[:, :, : 1 + f * (at - 1)])
