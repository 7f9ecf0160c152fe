"""Hierarchical video codecs: prefixes of layers, the order in which layers learn of each other, streams, causality."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from video_cases import clip

import codeczoo
from codeczoo.core.base import Codec
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.data.films import generated_film
from codeczoo.metrics.image import psnr
from codeczoo.nn.stage3d import Stage, Up
from codeczoo.quantizers.dropout import ChosenDepth, UniformDepth
from codeczoo.quantizers.fsq import FSQ
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.merge import ConcatMerge, ResidualMerge
from codeczoo.quantizers.projected import Projected
from codeczoo.quantizers.topdown import TopDown
from codeczoo.quantizers.vq import EMAVQ, VQ

STRIDES = [[1, 2, 2], [2, 2, 2], [1, 2, 2]]  # of the encoder's stages behind patches of 2
WIDTHS = [8, 10, 12, 14]


def part(name: str, **given: Any) -> dict[str, Any]:
    return {"_target_": f"codeczoo.{name}", **given}


def fsq(dim: int, levels: list[int]) -> dict[str, Any]:
    return part("quantizers.projected.Projected", dim=dim, quantizer=part("quantizers.fsq.FSQ", levels=levels))


def tree(merge: str) -> dict[str, Any]:
    """A codec of three layers; their grids are 4x16x16, 4x8x8 and 2x4x4."""
    merges, above = [], WIDTHS[3]
    for own, stride in ((WIDTHS[2], STRIDES[2]), (WIDTHS[1], STRIDES[1])):
        up = part("nn.stage3d.Up", inputs=above, outputs=own, stride=stride, blocks=1)
        more = {"dim": own} if merge == "ConcatMerge" else {}
        merges.append(part(f"quantizers.merge.{merge}", up=up, **more))
        above = 2 * own if more else own
    encoder = part("backbones.pyramid.Encoder", patch=2, widths=WIDTHS, strides=STRIDES, blocks=[1] * 4, levels=3)
    decoder = part(
        "backbones.pyramid.Decoder", dim=above, patch=2, widths=WIDTHS[1::-1], strides=STRIDES[:1], blocks=[1] * 2
    )
    quantizers = [fsq(WIDTHS[3], [8, 5, 5]), fsq(WIDTHS[2], [5, 5, 5]), fsq(WIDTHS[1], [8, 8, 8])]
    depth = part("quantizers.dropout.UniformDepth")
    quantizer = part("quantizers.topdown.TopDown", quantizers=quantizers, merges=merges, depth=depth)
    return part("video.hitvideo.HiTVideo", encoder=encoder, quantizer=quantizer, decoder=decoder)


def built(merge: str) -> Any:
    """With weights large enough that every branch shows, in evaluation mode."""
    torch.manual_seed(0)
    codec = codeczoo.build(tree(merge)).eval()
    with torch.no_grad():
        for p in codec.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return codec


CODECS = {merge: built(merge) for merge in ("ResidualMerge", "ConcatMerge")}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Any:
    return CODECS[request.param]


def cut(x: Tensor, sizes: list[int]) -> Iterator[tuple[Tensor, bool]]:
    at = i = 0
    while at < x.shape[2]:
        yield x[:, :, at : at + sizes[i % len(sizes)]], False
        at += sizes[i % len(sizes)]
        i += 1
    yield x[:, :, :0], True


@torch.no_grad()
def test_every_layer_has_its_grid_and_says_something(codec: Any) -> None:
    assert [s.stride for s in codec.spec.streams] == [(4, 16, 16), (4, 8, 8), (2, 4, 4)]
    assert codec.spec.prefixes == ("positions", "streams") and codec.stride == (4, 16, 16)
    tokens = codec.encode(clip(10, 40, 36))
    assert [tuple(s.shape) for s in tokens.streams] == [(1, 1, 4, 3, 3), (1, 1, 4, 6, 6), (1, 1, 7, 12, 12)]
    assert all(len(stream.unique()) > 8 for stream in tokens.streams)


@torch.no_grad()
@pytest.mark.parametrize("frames", range(1, 11))
def test_any_number_of_frames_comes_back(codec: Any, frames: int) -> None:
    x = clip(frames, 17, 15)
    assert codec.decode(codec.encode(x)).shape == x.shape


@torch.no_grad()
def test_every_prefix_of_layers_decodes_and_is_what_encoding_it_gives(codec: Any) -> None:
    x = clip(9, 32, 32, batch=2)
    tokens, shown = codec.encode(x), []
    for n in (1, 2, 3):
        first = codec.encode(x, n_streams=n)
        assert len(first.streams) == n and all(map(torch.equal, first.streams, tokens.streams[:n]))
        shown.append(codec.decode(tokens.prefix(streams=n)))
        assert torch.equal(codec.decode(first), shown[-1])
    assert not torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])
    for n in (0, 4):
        with pytest.raises(InputError, match="must be 1"):
            codec.encode(x, n_streams=n)
    with pytest.raises(InputError, match="n_codebooks"):
        codec.encode(x, n_codebooks=2)


@torch.no_grad()
def test_training_decodes_what_is_kept(codec: Any) -> None:
    z, _ = codec.latents(clip(9, 32, 32, batch=3))
    depth = torch.tensor([2, 1, 3])
    found = codec.quantizer(z, depth=depth)
    codes = codec.quantizer.encode(z)
    torch.testing.assert_close(codec.quantizer(z).z, codec.quantizer.decode(codes), atol=1e-5, rtol=0)
    for i, n in enumerate(depth.tolist()):
        kept = codec.quantizer.decode([c[i : i + 1] for c in codes[:n]])
        torch.testing.assert_close(found.z[i : i + 1], kept, atol=1e-5, rtol=0)
        for s, stream in enumerate(found.streams):
            assert torch.equal(stream[i], codes[s][i] if s < n else torch.zeros_like(stream[i]))
    assert torch.equal(found.depth, depth)


@torch.no_grad()
def test_layers_are_dropped_in_training_only(codec: Any) -> None:
    z, _ = codec.latents(clip(5, 16, 16, batch=64))
    assert codec.quantizer(z).depth is None
    codec.quantizer.train()
    drawn = codec.quantizer(z).depth
    codec.quantizer.eval()
    assert set(drawn.tolist()) == {1, 2, 3}


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1], [4], [3, 0, 7], [100]], ids=str)
def test_streams_give_codes_and_frames_of_the_whole(codec: Any, sizes: list[int]) -> None:
    x = clip(22, 16, 32, batch=2)
    tokens = codec.encode(x)
    stream = codec.stream()
    pieces = [stream.encode(piece, last) for piece, last in cut(x, sizes)]
    for own, whole in zip(zip(*pieces, strict=True), tokens.streams, strict=True):
        assert torch.equal(torch.cat(own, 2), whole)
    for n in (1, 3):
        whole, stream = codec.decode(tokens.prefix(streams=n)), codec.stream()
        end = tuple(own[:, :, :0] for own in pieces[0][:n])
        x_hat = [stream.decode(piece[:n]) for piece in pieces] + [stream.decode(end, True)]
        torch.testing.assert_close(torch.cat(x_hat, 2)[:, :, :22], whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_layers_may_come_at_different_times(codec: Any) -> None:
    tokens = codec.encode(clip(17, 16, 16))
    for late in ((0, 1, 2), (2, 0, 1)):
        stream, x_hat = codec.stream(), []
        for at in range(12):  # step by step, each stream by as many steps later
            steps = [slice(max(0, at - n), max(0, at - n + 1)) for n in late]
            x_hat.append(stream.decode([s[:, :, own] for s, own in zip(tokens.streams, steps, strict=True)], at == 11))
        torch.testing.assert_close(torch.cat(x_hat, 2), codec.decode(tokens), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_future_changes_nothing(codec: Any) -> None:
    """Leak exactly 0.0, at the coarsest layer's steps in time."""
    x, f = clip(13, 16, 16), codec.stride[0]
    tokens = codec.encode(x)
    features = codec.latents(x)[0]
    for at in range(1, 13):
        y = torch.cat([x[:, :, :at], clip(13 - at, 16, 16, seed=9)], 2)
        known = 1 + (at - 1) // f
        counts = [1 + (known - 1) * f // s.stride[0] for s in codec.spec.streams]
        for own, other, n in zip(features, codec.latents(y)[0], counts, strict=True):
            assert torch.equal(own[:, :, :n], other[:, :, :n])
        for own, other, n in zip(tokens.streams, codec.encode(y).streams, counts, strict=True):
            assert torch.equal(own[:, :, :n], other[:, :, :n])
    x_hat = codec.decode(tokens)
    for n in range(1, 4):
        part, frames = tokens.prefix(positions=n), 1 + f * (n - 1)
        counts = [own.shape[2] for own in part.streams]
        others = [torch.cat([s[:, :, :k], s[:, :, k:].flip(2)], 2) for s, k in zip(tokens.streams, counts, strict=True)]
        changed = codec.decode(replace(tokens, streams=tuple(others)))
        assert torch.equal(changed[:, :, :frames], x_hat[:, :, :frames])
        assert codec.decode(part).shape[2] == frames
        torch.testing.assert_close(codec.decode(part), x_hat[:, :, :frames], atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_image_is_the_first_frame_alone(codec: Any) -> None:
    x = clip(9, 16, 16)
    image, video = codec.encode(x[:, :, :1]), codec.encode(x)
    assert all(torch.equal(a, b[:, :, :1]) for a, b in zip(image.streams, video.streams, strict=True))


@torch.no_grad()
def test_padded_batches_are_the_clips_one_by_one(codec: Any) -> None:
    x, lengths = clip(11, 16, 16, batch=3), torch.tensor([11, 4, 1])
    tokens = codec.encode(x, lengths=lengths)
    x_hat = codec.decode(tokens)
    for i, n in enumerate(lengths.tolist()):
        alone = codec.encode(x[i : i + 1, :, :n])
        assert all(torch.equal(a, b) for a, b in zip(tokens[i].streams, alone.streams, strict=True))
        torch.testing.assert_close(x_hat[i : i + 1, :, :n], codec.decode(alone), atol=1e-5, rtol=0)
        assert not x_hat[i, :, n:].any()


def test_every_weight_learns_whatever_is_dropped() -> None:
    """As DDP wants it."""
    codec: Codec = codeczoo.build(tree("ConcatMerge") | {}).train()
    codec.quantizer.depth = ChosenDepth([1])  # type: ignore[union-attr]
    codec(clip(5, 16, 16)).x_hat.square().mean().backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in codec.parameters())


# --- the quantizer by itself ------------------------------------------------------------------------------------------


class Plain(Stage):
    """Repeats columns."""

    def __init__(self, dim: int) -> None:
        super().__init__([], dim, dim, (1, 2, 2))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return x.repeat_interleave(2, 3).repeat_interleave(2, 4)


def features(dim: int = 4, batch: int = 2) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(batch, dim, 3, side, side, generator=g).requires_grad_() for side in (1, 2, 4)]


def test_residual_levels_quantize_what_is_left_and_gradients_pass_with_gain_one() -> None:
    torch.manual_seed(0)
    quantizer = TopDown([VQ(64, 4) for _ in range(3)], [ResidualMerge(Plain(4)), ResidualMerge(Plain(4))])
    for level in quantizer.quantizers:
        level.codebook.data.normal_()
    z = features()
    found = quantizer(z)
    rest, total = z[0], None
    for k, (level, own) in enumerate(zip(quantizer.quantizers, z, strict=True)):
        up = None if total is None else Plain(4)(total)
        rest = own if up is None else own - up
        assert torch.equal(found.streams[k], level.encode(rest))
        value = level.decode(found.streams[k])
        total = value if up is None else up + value
    torch.testing.assert_close(found.z, total)
    given = torch.randn_like(found.z)
    expected = [given.unflatten(3, (s, -1)).unflatten(5, (s, -1)).sum((4, 6)) for s in (1, 2, 4)]
    for grad, want in zip(torch.autograd.grad(found.z, z, given), expected, strict=True):
        torch.testing.assert_close(grad, want)


def test_losses_are_means_over_the_levels_and_the_samples_that_they_are_part_of() -> None:
    quantizer = TopDown([VQ(8, 4) for _ in range(3)], [ResidualMerge(Plain(4)), ResidualMerge(Plain(4))])
    z, depth = features(), torch.tensor([1, 3])
    found = quantizer(z, depth=depth)
    both, full = quantizer(z, depth=torch.tensor([3, 3])), quantizer([f[1:] for f in z])
    first = quantizer.quantizers[0](z[0]).losses["commitment"]
    alone = quantizer.quantizers[0](z[0][1:]).losses["commitment"]
    torch.testing.assert_close(found.losses["commitment"], full.losses["commitment"] + (first - alone) / 3)
    assert not torch.equal(both.losses["commitment"], found.losses["commitment"])


def test_codebooks_start_from_data_level_by_level() -> None:
    quantizer = TopDown([EMAVQ(4, 4, start=KMeans()) for _ in range(3)], [ResidualMerge(Plain(4)) for _ in range(2)])
    assert quantizer.starting and len(quantizer.priors()) == 3
    quantizer.initialize(features(batch=4))
    assert not quantizer.starting
    quantizer(features(batch=4))


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="one merge less"):
        TopDown([FSQ([5, 5])] * 2, [])
    with pytest.raises(ConfigError, match="4 to 4"):
        TopDown([VQ(8, 4), VQ(8, 4)], [ConcatMerge(Up(5, 6, [1, 2, 2], 0), 4)])
    quantizer = TopDown([VQ(8, 4), Projected(VQ(8, 2), 4)], [ResidualMerge(Plain(4))], UniformDepth())
    with pytest.raises(InputError, match="grid"):
        quantizer([features()[0], features()[2]])
    with pytest.raises(InputError, match="channels"):
        quantizer(features())
    wrong = tree("ResidualMerge")
    wrong["encoder"] = wrong["encoder"] | {"strides": [[2, 2, 2], [1, 2, 2], [1, 2, 2]]}
    with pytest.raises(ConfigError, match="strides"):
        codeczoo.build(wrong)
    with pytest.raises(ConfigError, match="h = w"):
        Up(4, 4, [1, 2, 1], 0)


def test_every_layer_adds_to_the_picture_after_a_short_training() -> None:
    torch.manual_seed(0)
    codec: Codec = codeczoo.build(tree("ResidualMerge")).train()
    x = torch.stack([generated_film(0, i, 32, 5) for i in range(24)])
    optimizer = torch.optim.Adam(codec.parameters(), lr=5e-3)
    for _ in range(120):
        batch = x[torch.randperm(24)[:8]]
        optimizer.zero_grad()
        (codec(batch).x_hat - batch).square().mean().backward()
        optimizer.step()
    codec.eval()
    with torch.no_grad():
        tokens = codec.encode(x)
        quality = [float(psnr(x, codec.decode(tokens.prefix(streams=n))).mean()) for n in (1, 2, 3)]
    assert quality[0] + 0.1 < quality[1] and quality[1] + 0.1 < quality[2] and quality[2] > 17, quality
