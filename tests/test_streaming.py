"""Streams, long signals and padded batches give what whole signals give."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from audio_cases import ALL, CAUSAL, STREAMING, WHOLE, build, signal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codeczoo.audio.pieces import Windows, decode_pieces, encode_pieces
from codeczoo.core.errors import InputError
from codeczoo.nn import fast1d
from codeczoo.nn.conv1d import Conv1d, ConvTranspose1d, Padding
from codeczoo.nn.stream import Chain, Identity, Layer, Sum

CODECS = {name: build(name) for name in ALL}


def cut(x: Tensor, sizes: list[int]) -> Iterator[tuple[Tensor, bool]]:
    """Pieces of x with these sizes over and over, and whether each is the last; the last may be empty."""
    at = i = 0
    while at < x.shape[2]:
        yield x[:, :, at : at + sizes[i % len(sizes)]], False
        at += sizes[i % len(sizes)]
        i += 1
    yield x[:, :, :0], True


def stepped(layer: Layer, x: Tensor, sizes: list[int]) -> Tensor:
    state = layer.begin()
    return torch.cat([layer.step(piece, state, last) for piece, last in cut(x, sizes)], 2)


LAYERS = st.builds(
    lambda kernel, stride, dilation, causal, mode, same, left, right: Conv1d(
        2, 3, kernel * stride if same else kernel, stride, dilation,
        padding=Padding.same(kernel * stride, stride, dilation, causal, mode) if same
        else Padding(left, right, mode),
    ),
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.booleans(),
    st.sampled_from(["constant", "reflect", "replicate"]), st.booleans(), st.integers(0, 5), st.integers(0, 5),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(LAYERS, st.integers(1, 120), st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any))
def test_convolutions_in_pieces(layer: Conv1d, samples: int, sizes: list[int]) -> None:
    x = signal(2, samples, batch=2)
    if layer.length(samples) < 1:
        return
    with torch.no_grad():
        whole = layer(x)
        assert whole.shape[2] == layer.length(samples)
        torch.testing.assert_close(stepped(layer, x, sizes), whole)
        with patch.object(fast1d, "LARGE", 1):
            torch.testing.assert_close(stepped(layer, x, [7 * size for size in sizes]), whole)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 4), st.data(), st.integers(1, 20))
def test_transposed_convolutions_in_pieces(stride: int, more: int, data: Any, steps: int) -> None:
    left, right = data.draw(st.integers(0, more)), data.draw(st.integers(0, more))
    layer = ConvTranspose1d(2, 3, stride + more, stride, left, right, bias=data.draw(st.booleans()))
    if layer.length(steps) < 1:
        return
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3).filter(any))
    x = signal(2, steps)
    with torch.no_grad():
        whole = layer(x)
        assert whole.shape[2] == layer.length(steps)
        torch.testing.assert_close(stepped(layer, x, sizes), whole)


@settings(max_examples=40, deadline=None)
@given(LAYERS, st.lists(st.integers(1, 40), min_size=2, max_size=4))
def test_convolutions_of_padded_batches(layer: Conv1d, lengths: list[int]) -> None:
    if layer.length(min(lengths)) < 1:
        return
    x, n = signal(2, max(lengths), batch=len(lengths)), torch.tensor(lengths)
    with torch.no_grad():
        together = layer(x, n)
        for i, length in enumerate(lengths):
            alone = layer(x[i : i + 1, :, :length])
            assert layer.length(n)[i] == alone.shape[2]
            torch.testing.assert_close(together[i : i + 1, :, : alone.shape[2]], alone)


def test_needs_is_what_streams_need() -> None:
    """`needs(n)` inputs are enough for n outputs, and one fewer is not."""
    layers: list[Layer] = [Conv1d(1, 1, 7, padding=Padding.same(7, mode="reflect")), Conv1d(1, 1, 8, 4)]
    layers.append(Conv1d(1, 1, 8, 4, padding=Padding.same(8, 4, causal=True, mode="reflect")))
    layers += [ConvTranspose1d(1, 1, 8, 4, 2, 2), ConvTranspose1d(1, 1, 6, 3, 0, 3)]
    layers += [Sum([Identity(), Conv1d(1, 1, 5, padding=Padding(2, 2))]), Chain(layers[:2])]
    for layer in layers:
        for n in range(1, 30):
            for given_steps, enough in ((layer.needs(n), True), (layer.needs(n) - 1, False)):
                came = layer.step(signal(1, given_steps), layer.begin()).shape[2]
                assert (came >= n) == enough, (layer, n)


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("sizes", [[1], [24], [7, 0, 100], [1000]], ids=str)
def test_streams_give_codes_and_samples_of_the_whole(name: str, sizes: list[int]) -> None:
    codec, x = CODECS[name], signal(1, 241 if sizes == [1] else 2001, batch=2)
    with torch.no_grad():
        tokens = codec.encode(x)
        whole = codec.render(codec.quantizer.decode(tokens.codes)).clamp(-1, 1)
    stream = codec.stream()
    codes = torch.cat([stream.encode(piece, last) for piece, last in cut(x, sizes)], 2)
    assert torch.equal(codes, tokens.codes)
    frames = [max(0, n // codec.hop) or n % 2 for n in sizes]
    x_hat = torch.cat([stream.decode(piece, last) for piece, last in cut(codes, frames if any(frames) else [1])], 2)
    torch.testing.assert_close(x_hat, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", STREAMING)
def test_latency_is_when_codes_come(name: str) -> None:
    codec, stream, worst, seen = CODECS[name], CODECS[name].stream(), 0, 0
    x = signal(1, stream.encode_latency + 2 * codec.hop)
    for t in range(x.shape[2]):
        codes = stream.encode(x[:, :, t : t + 1])
        for _ in range(codes.shape[2]):
            worst = max(worst, t + 1 - seen * codec.hop)
            seen += 1
    assert worst == stream.encode_latency
    assert stream.latency >= stream.encode_latency
    if name in CAUSAL and "reflect" not in name:
        assert stream.encode_latency == stream.latency == codec.hop


@pytest.mark.parametrize("name", CAUSAL)
def test_the_future_changes_nothing(name: str) -> None:
    """A causal codec's frames do not move when later samples do; reflect padding alone looks at the first few."""
    codec, x = CODECS[name], signal(1, 2400)
    at = 1200
    changed = torch.cat([x[:, :, :at], signal(1, 1200, seed=9)], 2)
    before, after = codec.encode(x).codes, codec.encode(changed).codes
    assert torch.equal(before[:, :, : at // codec.hop], after[:, :, : at // codec.hop])
    assert not torch.equal(before, after)


def test_streams_take_turns() -> None:
    codec = CODECS["mimi"]
    signals = [signal(1, 960, seed=i) for i in range(3)]
    streams = [codec.stream() for _ in signals]
    came: list[list[Tensor]] = [[] for _ in signals]
    for t in range(0, 960, 48):
        for i, stream in enumerate(streams):
            came[i].append(stream.encode(signals[i][:, :, t : t + 48], t + 48 == 960))
    for x, codes in zip(signals, came, strict=True):
        assert torch.equal(torch.cat(codes, 2), codec.encode(x).codes)


@pytest.mark.parametrize("name", ALL)
def test_padded_batches_give_what_single_clips_give(name: str) -> None:
    codec = CODECS[name]
    lengths = torch.tensor([1201, 480, 961, 7, 1, 500])
    x = signal(codec.spec.channels, 1201, batch=6)  # noise behind the ends must not matter
    with torch.no_grad():
        tokens = codec.encode(x, lengths=lengths)
        x_hat = codec.decode(tokens)
        for i, n in enumerate(lengths.tolist()):
            alone = codec.encode(x[i : i + 1, :, :n])
            assert torch.equal(tokens[i].codes, alone.codes), n
            torch.testing.assert_close(x_hat[i : i + 1, :, :n], codec.decode(alone), atol=1e-5, rtol=0)
    assert not x_hat[3, :, 7:].any()


@pytest.mark.parametrize("name", ["encodec causal reflect", "encodec look-ahead", "dac, odd stride", "mimi",
                                  "windowed stereo", "windowed mono"])  # fmt: skip
@pytest.mark.parametrize("step", [130, 1000])
def test_long_signals_in_pieces(name: str, step: int) -> None:
    codec = CODECS[name]
    x = signal(codec.spec.channels, 3001, batch=2)
    whole = codec.encode(x)
    tokens = encode_pieces(codec, x.split(step, 2))
    assert torch.equal(tokens.codes, whole.codes) and torch.equal(tokens.size, whole.size)
    if whole.gains is not None:
        torch.testing.assert_close(tokens.gains, whole.gains)
    x_hat = torch.cat(list(decode_pieces(codec, tokens)), 2)
    torch.testing.assert_close(x_hat, codec.decode(whole).detach(), atol=1e-5, rtol=0)
    assert torch.equal(encode_pieces(codec, x.split(step, 2), 1).codes, whole.codes[:, :1])


def test_what_cannot_stream_wants_windows() -> None:
    codec = CODECS["encodec bidirectional"]
    x = signal(1, 4801)
    with pytest.raises(InputError, match="backwards"):
        codec.stream().encode(x)
    with pytest.raises(InputError, match="windows"):
        encode_pieces(codec, [x])
    with pytest.raises(InputError, match="seconds at least"):
        encode_pieces(codec, [x], windows=Windows(0.0))
    whole = codec.encode(x).codes
    near = [encode_pieces(codec, x.split(n, 2), windows=Windows(0.4, 0.1)) for n in (37, 960, 5000)]
    assert all(torch.equal(near[0].codes, other.codes) for other in near)
    assert near[0].codes.shape == whole.shape and int(near[0].size) == 4801
    assert (near[0].codes == whole).float().mean() > 0.8  # the context is short here
    assert torch.equal(encode_pieces(codec, [x], windows=Windows(10.0)).codes, whole)
    with pytest.raises(InputError, match="no tokens"):
        encode_pieces(codec, [], windows=Windows(1.0))


def test_windows_of_a_decoder() -> None:
    codec = CODECS["encodec group norm"]
    tokens = codec.encode(signal(1, 2000))
    with pytest.raises(InputError, match="decoder"):
        list(decode_pieces(codec, tokens))
    whole = torch.cat(list(decode_pieces(codec, tokens, Windows(10.0))), 2)
    torch.testing.assert_close(whole, codec.decode(tokens).detach(), atol=1e-5, rtol=0)
    assert torch.cat(list(decode_pieces(codec, tokens, Windows(0.1, 0.05))), 2).shape == whole.shape


def test_windows_have_their_own_loudness() -> None:
    """A codec of windows gives the same codes for a quieter signal; its spec says that it is no continuous stream."""
    codec, x = CODECS["windowed mono"], signal(1, 1300)
    loud, quiet = codec.encode(x), codec.encode(x / 8)
    assert torch.equal(loud.codes, quiet.codes)
    assert loud.gains is not None and quiet.gains is not None
    torch.testing.assert_close(quiet.gains, loud.gains / 8, atol=1e-6, rtol=1e-4)
    assert codec.spec.window == (500, 480) and CODECS["mimi"].spec.window is None
    with pytest.raises(InputError, match="gains"):
        codec.decode(type(loud)(loud.spec, loud.streams, loud.size))
    stream = codec.stream()
    codes = stream.encode(x, last=True)
    with pytest.raises(InputError, match="windows have"):
        stream.decode(codes, torch.stack(stream.gains, 1)[:, :1])


def test_wrong_media_is_refused() -> None:
    codec = CODECS["mimi"]
    with pytest.raises(InputError, match=r"\(B, 1, any\)"):
        codec.encode(signal(2, 100))
    with pytest.raises(InputError, match=r"\(B, 1, any\)"):
        codec.stream().encode(signal(2, 100))
    with pytest.raises(InputError, match="n_codebooks"):
        codec.encode(signal(1, 100), n_codebooks=4)


@pytest.mark.parametrize("name", WHOLE | {"mimi": 0, "dac, odd stride": 0})
def test_training_pass_fits_its_input(name: str) -> None:
    codec = build(name).train()
    x = signal(codec.spec.channels, 490, batch=2)
    found = codec(x)
    assert found.x_hat.shape == x.shape and found.tokens.codes.shape[0] == 2
    (found.x_hat.square().sum() + sum(found.losses.values())).backward()
    unused = [key for key, p in codec.named_parameters() if p.grad is None]
    assert not unused, unused
    assert codec.last_layer().grad is not None
