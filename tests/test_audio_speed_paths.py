"""The fast paths of layers over time give what the plain ones give, and leave training alone."""

import copy
from itertools import product
from unittest.mock import patch

import pytest
import torch
from audio_cases import ALL, build, signal
from hypothesis import given, settings
from hypothesis import strategies as st

from codeczoo.backbones.seanet import ResBlock, Style, activation_named
from codeczoo.nn import fast1d
from codeczoo.nn.conv1d import (
    Conv1d,
    ConvTranspose1d,
    Padding,
    PadMode,
    WeightNormConv1d,
    WeightNormConvTranspose1d,
    pad,
)
from codeczoo.nn.lstm import LSTM, SHORT, BiLSTM
from codeczoo.nn.snake import Snake
from codeczoo.nn.stream import Chain, Coder, Layer

FAST = torch.backends.mkldnn.is_available()
pytestmark = pytest.mark.skipif(not FAST, reason="torch without oneDNN has no fast paths")


def check(layer: Layer, x: torch.Tensor) -> None:
    """Without gradient as with it, from either layout, convolved or as a product of few windows, short or large."""
    plain, before = layer(x).detach(), x.clone()
    for given_x, few, large in product((x, rows(x)), (0, fast1d.FEW), (1, fast1d.LARGE)):
        with torch.no_grad(), patch.object(fast1d, "FEW", few), patch.object(fast1d, "LARGE", large):
            fast = layer(given_x)
            assert fast.shape == plain.shape
            torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
            assert torch.equal(given_x, before)


def rows(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).contiguous().transpose(1, 2)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([Conv1d, WeightNormConv1d]), st.integers(1, 5), st.integers(1, 7), st.integers(1, 8),
    st.integers(1, 5), st.integers(1, 3), st.booleans(), st.integers(1, 3), st.integers(1, 61),
    st.sampled_from(["constant", "reflect", "replicate"]), st.integers(0, 9),
)  # fmt: skip
def test_convolutions(
    kind: type[Conv1d], inputs: int, outputs: int, kernel: int, stride: int, dilation: int, bias: bool, batch: int,
    samples: int, mode: PadMode, right: int,
) -> None:  # fmt: skip
    padding = Padding((kernel - 1) * dilation, right, mode, whole=True)
    check(kind(inputs, outputs, kernel, stride, dilation, padding=padding, bias=bias), signal(inputs, samples, batch))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([ConvTranspose1d, WeightNormConvTranspose1d]), st.integers(1, 5), st.integers(1, 7),
    st.integers(1, 5), st.integers(0, 7), st.booleans(), st.integers(1, 3), st.integers(1, 21),
)  # fmt: skip
def test_transposed_convolutions(
    kind: type[ConvTranspose1d], inputs: int, outputs: int, stride: int, more: int, bias: bool, batch: int, samples: int
) -> None:
    check(kind(inputs, outputs, stride + more, stride, bias=bias), signal(inputs, samples, batch))


@pytest.mark.parametrize("groups", [1, 4])
def test_groups(groups: int) -> None:
    check(Conv1d(4, 8, 3, groups=groups), signal(4, 9, 2))
    check(ConvTranspose1d(4, 8, 4, 2, groups=groups), signal(4, 9, 2))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("left, right", [(3, 2), (0, 4), (4, 0), (2, -3), (0, 0), (9, 2)])
def test_padding_of_rows(mode: str, left: int, right: int) -> None:
    x = signal(3, 8, 2)
    padded = pad(rows(x), left, right, mode)  # type: ignore[arg-type]
    torch.testing.assert_close(padded, pad(x, left, right, mode), rtol=0, atol=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("shortcut", ["identity", "conv"])
def test_sums_are_added_in_the_last_convolution(shortcut: str) -> None:
    layer = ResBlock(6, 3, 1, 2, shortcut, Style("none", True, "reflect"), activation_named("elu"))
    x, added = signal(6, 33, 2), []
    conv1d = fast1d.Packed.conv1d
    with patch.object(fast1d.Packed, "conv1d", lambda *a, **k: added.append("plus" in k) or conv1d(*a, **k)):
        check(layer, x)
        assert sum(added) == 8
        with torch.no_grad():
            whole, state, before = layer(x), layer.begin(), x.clone()
            pieces = [layer.step(piece, state) for piece in x.split([1, 0, 5, 27], 2)]
    torch.testing.assert_close(torch.cat(pieces, 2), whole)
    assert torch.equal(x, before)


def test_who_listens_to_calls_hears_them_all() -> None:
    """FSDP gathers the weights of a layer when it is called."""
    layer = ResBlock(6, 3, 1, 2, "conv", Style("none", True, "reflect"), activation_named("elu"))
    heard: list[str] = []
    for name, part in layer.named_modules():
        if isinstance(part, Layer):
            part.register_forward_pre_hook(lambda *_, name=name: heard.append(name))
    with torch.no_grad():
        layer(signal(6, 33, 2))
    assert sorted(heard) == sorted(name for name, part in layer.named_modules() if isinstance(part, Layer))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("most", [1 << 7, 1 << 9, 1 << 12])
def test_long_signals_go_through_in_pieces(name: str, most: int) -> None:
    codec = build(name)
    x = signal(codec.spec.channels or 1, 999, 2)
    with torch.no_grad():
        tokens = codec.encode(x)
        x_hat = codec.decode(tokens)
        with patch.object(fast1d, "MOST", most), patch.object(fast1d, "LARGE", 1):
            pieces = codec.encode(x)
            torch.testing.assert_close(codec.decode(tokens), x_hat, rtol=1e-5, atol=1e-5)
    assert torch.equal(pieces.codes, tokens.codes)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_pieces_are_as_long_as_memory_says(half: str) -> None:
    """Two signals of 240000 samples of 32 channels are two pieces of 8 Mi numbers each."""
    layer = build("encodec causal reflect").get_submodule(half)
    assert isinstance(layer, Coder) and layer.widest
    layer.widest, sizes, step = 32, [], Chain.step
    shape = (2, 1, 240_000) if half == "encoder" else (2, layer.dim, 240_000 // layer.hop)
    counting = patch.object(Chain, "step", lambda self, x, *a: sizes.append((self, x.shape[2])) or step(self, x, *a))
    with counting, torch.no_grad():
        layer(torch.zeros(shape))
    sizes = [size for part, size in sizes if part is layer]
    assert len(sizes) == 2
    assert sum(sizes) == shape[2]


@pytest.mark.parametrize("samples", [1, 2, SHORT, SHORT + 1])
@pytest.mark.parametrize("batch", [1, 3])
def test_lstm_and_snake(samples: int, batch: int) -> None:
    check(LSTM(6, 2), signal(6, samples, batch))
    snake = Snake(6)
    torch.nn.init.uniform_(snake.alpha, 0.2, 3)
    check(snake, signal(6, samples, batch))


def test_lstm_carries_its_state_between_both_ways() -> None:
    layer, x = LSTM(6, 2), signal(6, 2 * SHORT + 6, 2)
    whole = layer(x).detach()
    with torch.no_grad():
        state = layer.begin()
        y = torch.cat([layer.step(piece, state) for piece in x.split([3, SHORT + 1, SHORT + 2], 2)], 2)
    torch.testing.assert_close(y, whole)


def test_lstm_takes_changed_weights_and_autocast() -> None:
    layer, x = LSTM(6, 2), signal(6, 3, 2)
    check(layer, x)
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(2)
    check(layer, x)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("torch has no LSTM in bf16 on this processor")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), layer.lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0).float() + x,
                                   rtol=0.05, atol=0.05)  # fmt: skip
    check(copy.deepcopy(layer), x)


def test_lstms_are_in_float32_where_torch_has_none_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast1d, "lacks", lambda x: fast1d.precision(x) == torch.bfloat16)
    x, lengths = signal(6, 40, 2), torch.tensor([40, 25])
    for layer, n in ((LSTM(6, 2), None), (BiLSTM(6, 2), None), (BiLSTM(6, 2), lengths)):
        with torch.no_grad():
            plain = layer(x, n)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(layer(x, n), plain)


@pytest.mark.parametrize("name", ALL)
def test_codecs(name: str) -> None:
    codec = build(name)
    x = signal(codec.spec.channels or 1, 333, 2)
    with torch.no_grad():
        fast = codec.encode(x)
        fast_x_hat = codec.decode(fast)
        with torch.backends.mkldnn.flags(enabled=False):
            plain = codec.encode(x)
            torch.testing.assert_close(codec.decode(fast), fast_x_hat, rtol=1e-5, atol=1e-5)
    assert torch.equal(fast.codes, plain.codes)


@pytest.mark.parametrize("kind", [Conv1d, WeightNormConv1d, ConvTranspose1d, WeightNormConvTranspose1d])
def test_changed_weights_are_packed_again(kind: type[Layer]) -> None:
    layer, x = kind(3, 4, 4, 2), signal(3, 12, 1)  # type: ignore[call-arg]
    check(layer, x)
    optimizer = torch.optim.SGD(layer.parameters(), 0.5)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    optimizer.step()
    check(layer, x)
    other = kind(3, 4, 4, 2)  # type: ignore[call-arg]
    layer.load_state_dict(other.state_dict())
    check(layer, x)
    check(layer.double().float(), x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), other(x))


def test_copies_pack_their_own() -> None:
    layer, x = WeightNormConv1d(3, 4, 3), signal(3, 12, 1)
    check(layer, x)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight_g.mul_(2)
    check(twin, x)
    check(layer, x)


def test_made_and_used_in_inference_mode() -> None:
    with torch.inference_mode():
        layer, x = WeightNormConv1d(3, 4, 3), signal(3, 12, 1)
        y = layer(x)
        torch.testing.assert_close(layer(rows(x)), y)
    assert y.shape == (1, 4, 10)


def test_autocast_convolves_in_bfloat16() -> None:
    layer, x = Conv1d(3, 4, 3), signal(3, 12, 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x).detach(), rtol=0.05, atol=0.05)
    check(layer, x)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("samples", [40, 41, 42, 43])
def test_strides_that_fold_lose_no_steps(mode: PadMode, causal: bool, samples: int) -> None:
    """In bfloat16, steps behind the last whole stride are seen by windows that reach into the padding."""
    torch.manual_seed(0)
    layer = Conv1d(8, 8, 8, 4, padding=Padding.same(8, 4, causal=causal, mode=mode))
    x = torch.randn(2, 8, samples)
    for large in (1, fast1d.LARGE):
        with torch.no_grad(), patch.object(fast1d, "LARGE", large):
            y = layer(x)
            with torch.autocast("cpu", torch.bfloat16):
                found = layer(x)
        assert found.dtype == torch.bfloat16 and found.shape == y.shape
        torch.testing.assert_close(found.float(), y, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("kernel", "stride", "dilation", "pad", "samples"), [
    (2, 3, 2, 4, 1), (7, 2, 2, 17, 1), (1, 4, 2, 5, 2), (4, 4, 2, 23, 1), (7, 3, 3, 22, 2), (3, 4, 1, 31, 1),
])  # fmt: skip
def test_windows_that_see_nothing(kernel: int, stride: int, dilation: int, pad: int, samples: int) -> None:
    """No window has a tap on a step of x: all are the bias. oneDNN as torch 2.11 has it reads from address 0 there."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, samples), torch.randn(3, 4, kernel), torch.randn(3)
    with torch.no_grad():
        found = fast1d.Packed().conv1d(x, weight, bias, stride, dilation, (pad, pad))
    windows = (2 * pad + samples - (kernel - 1) * dilation - 1) // stride + 1
    torch.testing.assert_close(found, bias[None, :, None].expand(2, 3, windows), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("channels", "kernel", "stride"), [(8, 16, 8), (12, 8, 8), (16, 8, 4), (16, 4, 4), (24, 8, 4)])
@pytest.mark.parametrize("kind", [Conv1d, WeightNormConv1d, ConvTranspose1d, WeightNormConvTranspose1d])
def test_bfloat16_where_onednn_is_wrong(kind: type[Layer], channels: int, kernel: int, stride: int) -> None:
    """On processors with AMX, strided convolutions of few channels in bfloat16 were wrong by as much as their size."""
    torch.manual_seed(0)
    transposed = issubclass(kind, ConvTranspose1d)
    layer = kind(32, channels, kernel, stride) if transposed else kind(channels, 32, kernel, stride)  # type: ignore[call-arg]
    x = torch.randn(2, 32 if transposed else channels, 7 * kernel + 3, requires_grad=True)

    def run(bf16: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = layer(x)
        gradients = torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return [y.detach(), layer(x), *gradients]

    for found, wanted in zip(run(bf16=True), run(bf16=False), strict=True):
        assert found.shape == wanted.shape
        assert (found.float() - wanted).norm() < 0.03 * wanted.norm()
