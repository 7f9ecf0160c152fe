"""Vocos: its ISTFT head against torch.istft and the definition, streams, padded batches, attention in front."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.backbones.vocos import AdaLayerNorm, Decoder, Encoder, GlobalContext, LayerNorm
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.nn.istft import CartesianISTFTHead, ISTFTHead, signs
from codeczoo.nn.spectra import Spectra
from codeczoo.nn.stream import Chain, Layer

HEADS = [(16, 4, "same"), (16, 4, "center"), (20, 8, "same"), (18, 4, "same"), (12, 5, "center"), (16, 8, "center")]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def streamed(layer: Layer, x: Tensor, piece: int) -> Tensor:
    state, parts = layer.begin(), []
    for i in range(0, x.shape[2], piece):
        parts.append(layer.step(x[:, :, i : i + piece], state))
    parts.append(layer.step(x[:, :, :0], state, last=True))
    return torch.cat(parts, 2)


def decoder(context: bool = False, padding: str = "same", **norm: int) -> Decoder:
    made = Decoder(
        6, 64, 96, 2, 16, 4, padding, partial(AdaLayerNorm, **norm) if norm else LayerNorm,
        GlobalContext(64) if context else None,
    )  # fmt: skip
    for p in made.parameters():  # small first weights would hide what is wrong
        p.data = p.data + 0.1 * torch.randn_like(p)
    return made.eval()


def by_definition(head: ISTFTHead, x: Tensor) -> Tensor:
    """Frames by F.fold; only what is cut off differs between paddings."""
    size, angle = head.out(x.mT).chunk(2, -1)
    window = torch.hann_window(head.n_fft)
    magnitude = size.exp().clip(max=100)
    spectrum = torch.complex(magnitude * angle.cos(), magnitude * angle.sin())
    frames = torch.fft.irfft(spectrum, head.n_fft).mT * window[:, None]
    squares = window.square()[None, :, None].expand_as(frames)
    total = (x.shape[2] - 1) * head.hop + head.n_fft
    added, weight = (F.fold(part, (1, total), (1, head.n_fft), stride=(1, head.hop)) for part in (frames, squares))
    inside = slice(head.cut, total - head.cut)
    return added[:, :, 0, inside] / weight[:, :, 0, inside]


@pytest.mark.parametrize(("n_fft", "hop", "padding"), HEADS)
@torch.no_grad()
def test_head_adds_frames_up(n_fft: int, hop: int, padding: str) -> None:
    head = ISTFTHead(6, n_fft, hop, padding)
    head.out.weight.mul_(20)  # so that some magnitudes are cut at 100
    for steps in (1, 2, 3, 11):
        x = torch.randn(2, 6, steps)
        y = head(x)
        assert y.shape == (2, 1, head.length(steps))
        assert head.length(steps) == (steps if padding == "same" else steps - 1) * hop
        torch.testing.assert_close(y, by_definition(head, x), atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_center_is_torchs() -> None:
    head, x = ISTFTHead(6, 16, 4, "center"), torch.randn(2, 6, 9)
    size, angle = head.out(x.mT).mT.chunk(2, 1)
    expected = torch.istft(torch.polar(size.exp(), angle), 16, 4, window=torch.hann_window(16))
    torch.testing.assert_close(head(x)[:, 0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 30])
@pytest.mark.parametrize(("n_fft", "hop", "padding"), HEADS)
@torch.no_grad()
def test_head_streams(n_fft: int, hop: int, padding: str, piece: int) -> None:
    head = ISTFTHead(6, n_fft, hop, padding)
    for steps in (1, 3, 13):
        x = torch.randn(2, 6, steps)
        torch.testing.assert_close(streamed(head, x, piece), head(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("piece", [1, 2, 5, 40])
@pytest.mark.parametrize("padding", ["same", "center"])
@torch.no_grad()
def test_decoder_streams(padding: str, piece: int) -> None:
    made = decoder(padding=padding)
    made.check_streamable()
    for steps in (1, 2, 9, 33):
        x = torch.randn(2, 6, steps)
        torch.testing.assert_close(streamed(made, x, piece), made(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_needs_is_exact() -> None:
    made, x = decoder(), torch.randn(1, 6, 40)
    whole = made(x)
    for n in (1, 5, 30, 61):
        seen = made.needs(n)
        changed = x.clone()
        changed[:, :, seen:] += 1
        torch.testing.assert_close(made(changed)[:, :, :n], whole[:, :, :n], atol=1e-6, rtol=0)
        assert made.step(x[:, :, :seen], made.begin()).shape[2] >= n
        assert made.step(x[:, :, : seen - 1], made.begin()).shape[2] < n
        changed = x.clone()
        changed[:, :, seen - 1] += 1
        assert not torch.equal(made(changed)[:, :, :n], whole[:, :, :n])


@pytest.mark.parametrize("context", [False, True])
@torch.no_grad()
def test_padded_batch_gives_what_single_signals_give(context: bool) -> None:
    made, lengths = decoder(context, conditions=3, condition=1), torch.tensor([23, 1, 9, 40])
    x = 100 * torch.randn(4, 6, 40)  # what lies behind the ends is not 0
    together = made(x, lengths)
    for i, n in enumerate(lengths.tolist()):
        alone = made(x[i : i + 1, :, :n])
        assert alone.shape[2] == made.length(n) == 4 * n
        torch.testing.assert_close(together[i : i + 1, :, : 4 * n], alone, atol=1e-5, rtol=1e-5)


def test_attention_does_not_stream_and_says_why() -> None:
    with pytest.raises(InputError, match=r"piece by piece: its (normalisation|attention) is over all of time"):
        decoder(context=True).check_streamable()


@torch.no_grad()
def test_conditions_differ() -> None:
    made, x = decoder(conditions=3, condition=1), torch.randn(1, 6, 9)
    first = made(x)
    for layer in made.modules():
        if isinstance(layer, AdaLayerNorm):
            layer.condition = 2
    assert not torch.allclose(first, made(x))


@torch.no_grad()
def test_context_sees_everything_and_norms_are_32_groups() -> None:
    context = GlobalContext(64).eval()
    norm, x = context.layers[-1], torch.randn(2, 64, 7)
    torch.testing.assert_close(norm(x), F.group_norm(x, 32, norm.weight, norm.bias, 1e-6))
    torch.testing.assert_close(norm(x, torch.tensor([7, 7])), norm(x), atol=1e-5, rtol=1e-5)
    changed = x.clone()
    changed[:, :, -1] += torch.randn(64)
    assert (context(changed)[:, :, 0] - context(x)[:, :, 0]).abs().max() > 1e-4
    assert isinstance(context, Chain) and len(context.layers) == 6


def test_gradients_reach_everything() -> None:
    made = decoder(context=True).train()
    made(torch.randn(2, 6, 9)).square().mean().backward()
    without = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert all(name.endswith(".k.bias") for name in without)  # softmax does not see it


def test_loud_frames_are_cut_without_nan() -> None:
    head = ISTFTHead(2, 16, 4)
    head.out.bias.data[:9] = 200.0
    y = head(torch.randn(1, 2, 5))
    y.sum().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in head.parameters())


def test_what_cannot_be_is_refused() -> None:
    for n_fft, hop in ((15, 4), (16, 9), (16, 0), (16, 5)):
        with pytest.raises(ConfigError, match="at most half"):
            ISTFTHead(4, n_fft, hop)
    with pytest.raises(ConfigError, match="'same' or 'center', got 'valid'"):
        ISTFTHead(4, 16, 4, "valid")
    for first in (-1, 9):
        with pytest.raises(ConfigError, match=rf"noise_from must be 0\.\.8 or null, got {first}"):
            CartesianISTFTHead(4, 16, 4, noise_from=first)
    with pytest.raises(ConfigError, match=r"condition must be 0\.\.3, got 4"):
        AdaLayerNorm(8, 4, 4)
    with pytest.raises(ConfigError, match="32 must divide"):
        GlobalContext(48)


@torch.no_grad()
def test_cartesian_spectra_are_squares_of_what_the_layer_tells() -> None:
    head = CartesianISTFTHead(6, 16, 4)
    x = torch.randn(2, 6, 9)
    a, b = head.out(x.mT).chunk(2, -1)
    wanted = torch.polar(5 * (a.square() + b.square()), torch.atan2(b, a))
    torch.testing.assert_close(head.spectra(a, b, 0), wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(streamed(head, x, 2), head(x))


def test_silent_cartesian_spectra_have_finite_slopes() -> None:
    a = torch.zeros(1, 2, 9, requires_grad=True)
    CartesianISTFTHead(6, 16, 4).spectra(a, a, 0).abs().sum().backward()
    assert a.grad is not None and a.grad.isfinite().all()


@torch.no_grad()
def test_noise_is_no_hum_at_the_rate_of_the_frames() -> None:
    plain, noisy = CartesianISTFTHead(6, 96, 32), CartesianISTFTHead(6, 96, 32, noise_from=20)
    noisy.load_state_dict(plain.state_dict())
    x = torch.randn(1, 6, 1).expand(1, 6, 400)  # the same frame, again and again
    powers = [torch.fft.rfft(head(x)[0, 0, 96:-96]).abs().square() for head in (plain, noisy)]
    n = len(powers[0])
    lines, high = torch.arange(n) % (400 - 6) == 0, torch.arange(n) > 24 / 96 * 2 * n  # multiples of the frames' rate
    shares = [float(power[lines & high].sum() / power[high].sum()) for power in powers]
    assert shares[0] > 0.99 and shares[1] < 0.1
    assert powers[1][high].sum() > 0.2 * powers[0][high].sum()
    low = torch.arange(n) < 16 / 96 * 2 * n
    torch.testing.assert_close(powers[1][lines & low], powers[0][lines & low], rtol=0.05, atol=1e-2)
    for chunk in (1, 3, 50):
        torch.testing.assert_close(streamed(noisy, x, chunk), noisy(x))
    again = signs(7, 5, 9, torch.device("cpu"))
    assert torch.equal(again, signs(0, 12, 9, torch.device("cpu"))[7:]) and set(again.unique().tolist()) == {-1.0, 1.0}
    assert again[0].tolist() == [-1, 1, 1, 1, 1, 1, 1, 1, -1]  # on every machine


# --- the encoder ---


def by_windows(x: Tensor, n_fft: int, hop: int) -> Tensor:
    """Spectra of zero-padded windows, one by one."""
    side, frames = (n_fft - hop) // 2, -(-x.shape[2] // hop)
    padded = F.pad(x[0, 0], (side, side + frames * hop - x.shape[2]))
    window, found = torch.hann_window(n_fft), []
    for t in range(frames):
        s = torch.fft.rfft(padded[t * hop : t * hop + n_fft] * window) / (n_fft / 2) ** 0.5
        size = s.abs().clamp(min=1e-5)
        found.append(torch.cat([s.real / size**0.7, s.imag / size**0.7, 0.3 * size.log()]))
    return torch.stack(found, 1)[None]


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (12, 12), (18, 6)])
def test_spectra_are_those_of_windows(n_fft: int, hop: int) -> None:
    for samples in (1, hop, 3 * hop + 1, 50):
        x = torch.randn(1, 1, samples)
        torch.testing.assert_close(Spectra(n_fft, hop)(x), by_windows(x, n_fft, hop), rtol=1e-4, atol=1e-5)


def test_white_noise_has_spectra_of_about_one_at_any_window() -> None:
    for n_fft in (64, 1024):
        log_size = Spectra(n_fft, n_fft // 4)(torch.randn(1, 1, 1 << 16))[:, -(n_fft // 2 + 1) :] / 0.3
        assert abs(log_size[:, 1:-1, 8:-8].exp().square().mean().sqrt() - 0.87) < 0.02  # sqrt(3/4): a Hann window's


def test_the_encoder_sees_the_window_of_a_frame_and_the_past() -> None:
    encoder = Encoder(6, 32, 48, 2, 72, 24, causal=True)
    x = torch.randn(1, 1, 480, requires_grad=True)
    (seen,) = torch.autograd.grad(encoder(x)[0, :, 10].square().sum(), x)
    assert seen[0, 0].nonzero().max() == 10 * 24 - 24 + 72 - 1  # the window's last sample


def test_spectra_that_make_no_sense_are_refused() -> None:
    for n_fft, hop in ((15, 4), (16, 5), (16, 17), (16, 0)):
        with pytest.raises(ConfigError, match=f"got {n_fft} and {hop}"):
            Spectra(n_fft, hop)
