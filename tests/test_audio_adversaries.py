"""Audio adversaries: who gets gradient, what each discriminator can see, formulas by hand, the published networks."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import codeczoo
from codeczoo.adversaries.losses import Hinge, LeastSquares, TwoSidedHinge
from codeczoo.adversaries.multi import (
    AudioDiscriminator,
    FeatureMatching,
    Judged,
    MultiAdversary,
    RelativeFeatureMatching,
    levelled,
)
from codeczoo.adversaries.period import PeriodDiscriminator, multi_period
from codeczoo.adversaries.resolution import BandDiscriminator, multi_resolution
from codeczoo.adversaries.scale import ScaleDiscriminator, multi_scale
from codeczoo.adversaries.stft import STFTDiscriminator, multi_stft
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.engine.contest import Contest, FixedWeight

CONF = Path(__file__).resolve().parents[1] / "conf" / "adversary"
NAMES = sorted(path.stem for path in CONF.glob("m*.yaml"))
SMALL = {
    "stft": lambda channels: multi_stft([64, 128], 4, channels=channels),
    "period": lambda channels: multi_period([2, 3], 2, channels=channels),
    "resolution": lambda channels: multi_resolution([64, 128], 4, channels=channels),
    "scale": lambda channels: multi_scale([0, 1], 16, channels=channels),
}


def small(kind: str, channels: int = 1, **arguments: Any) -> MultiAdversary:
    torch.manual_seed(0)
    given = {"loss": LeastSquares(), "features": FeatureMatching(average=True), "average": True} | arguments
    return MultiAdversary(SMALL[kind](channels), **given)


def sounds(batch: int = 2, channels: int = 1, length: int = 600) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    real = 0.3 * torch.randn(batch, channels, length, generator=generator)
    return real, 0.1 * torch.randn(batch, channels, length, generator=generator)


# --- formulas --------------------------------------------------------------------------------------------------------


def test_games_by_hand() -> None:
    real, fake = torch.tensor([[3.0], [0.5]]), torch.tensor([[-2.0], [1.0]])
    assert Hinge(1.0).adversary(real, fake).item() == pytest.approx(0.25 + 1.0)
    assert Hinge(1.0).codec(fake).item() == pytest.approx(0.5)
    assert TwoSidedHinge(1.0).adversary(real, fake) == Hinge(1.0).adversary(real, fake)
    assert TwoSidedHinge(1.0).codec(torch.tensor([[-2.0], [4.0]])).item() == pytest.approx(1.5)
    assert LeastSquares().adversary(real, fake).item() == pytest.approx((4 + 0.25) / 2 + (4 + 1) / 2)
    assert LeastSquares().codec(fake).item() == pytest.approx(4.5)


class Scripted(AudioDiscriminator):
    """Features and logits that are multiples of the audio."""

    def __init__(self, factors: tuple[float, ...]) -> None:
        super().__init__(1)
        self.factors = nn.Parameter(torch.tensor(factors))

    def judge(self, x: Tensor) -> Judged:
        *features, logits = (factor * x for factor in self.factors)
        return logits, features


def test_feature_matching_by_hand() -> None:
    real = torch.tensor([[[1.0, 1.0]], [[4.0, 4.0]]])
    fake = torch.tensor([[[2.0, 1.0]], [[4.0, 5.0]]])  # mean |difference| 0.5 in each sample
    both = [Scripted((1.0, 3.0, 2.0)), Scripted((5.0, 1.0))]  # the last one is that of the logits

    def matched(features: FeatureMatching, average: bool) -> float:
        losses = MultiAdversary(both, LeastSquares(), features, average).codec_loss(real, fake)
        return losses["feature_matching"].item()

    assert matched(FeatureMatching(average=False), False) == pytest.approx(0.5 * (1 + 3) + 0.5 * 5)  # DAC
    assert matched(FeatureMatching(average=True), True) == pytest.approx((0.5 * 2 + 0.5 * 5) / 2)  # AudioCraft
    with_logits = FeatureMatching(average=False, with_logits=True)
    assert matched(with_logits, True) == pytest.approx((0.5 * 6 + 0.5 * 6) / 2)  # Vocos
    relative = RelativeFeatureMatching(average=True)  # 0.5 / 1 and 0.5 / 4, whatever the factors
    assert matched(relative, True) == pytest.approx((0.5 + 0.125) / 2)
    assert matched(relative, False) == pytest.approx(0.5 + 0.125)


def test_adversarial_losses_are_summed_or_averaged_over_the_discriminators() -> None:
    real, fake = sounds(length=20)
    both = [Scripted((1.0, 2.0)), Scripted((1.0, 3.0))]
    for loss in (LeastSquares(), TwoSidedHinge(1.0)):
        wanted = [loss.adversary(f * real, f * fake).item() for f in (2, 3)]
        of_codec = [loss.codec(f * fake).item() for f in (2, 3)]
        for average, share in ((True, 0.5), (False, 1.0)):
            adversary = MultiAdversary(both, loss, None, average)
            value, logs = adversary.adversary_loss(real, fake)
            assert value.item() == pytest.approx(share * sum(wanted), rel=1e-5)
            assert logs["logits_real"].item() == pytest.approx(2.5 * real.mean().item(), rel=1e-4)
            losses = adversary.codec_loss(real, fake)
            assert set(losses) == {"adversarial"}
            assert losses["adversarial"].item() == pytest.approx(share * sum(of_codec), rel=1e-5)
    with pytest.raises(ConfigError, match="no discriminators"):
        MultiAdversary([], LeastSquares(), None, True)


def test_level_takes_away_gain_and_offset() -> None:
    x = torch.randn(3, 2, 50)
    found = levelled(x)
    assert found.abs().amax((1, 2)).tolist() == pytest.approx([0.8] * 3)
    assert found.mean(2).abs().max() < 1e-6
    torch.testing.assert_close(levelled(0.01 * x + torch.tensor([[[0.5], [-0.2]]])), found, rtol=1e-3, atol=1e-4)
    assert levelled(torch.zeros(1, 1, 9)).isfinite().all()
    adversary, (real, fake) = small("period", level=True), sounds()
    a, b = (adversary.codec_loss(real, gain * fake)["adversarial"].item() for gain in (1, 0.01))
    assert a == pytest.approx(b, rel=1e-4)
    assert small("period").codec_loss(real, 9 * fake)["adversarial"] != a


# --- who learns from whom --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("channels", [1, 2])
def test_gradients_go_to_the_right_side_only(kind: str, channels: int) -> None:
    adversary = small(kind, channels)
    real, fake = (v.requires_grad_() for v in sounds(channels=channels))
    value, logs = adversary.adversary_loss(real, fake)
    value.backward()
    assert real.grad is None and fake.grad is None and not any(v.requires_grad for v in logs.values())
    for name, parameter in adversary.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    adversary.zero_grad()
    adversary.requires_grad_(False)
    for loss in adversary.codec_loss(real, fake).values():
        fake.grad = None
        loss.backward(retain_graph=True)
        assert fake.grad is not None and fake.grad.isfinite().all()
        assert all(fake.grad[:, c].any() for c in range(channels))  # no channel is dropped
    assert real.grad is None and all(p.grad is None for p in adversary.parameters())


@pytest.mark.parametrize("kind", SMALL)
def test_every_discriminator_matters(kind: str) -> None:
    adversary, (real, fake) = small(kind), sounds()

    def values() -> list[float]:
        with torch.no_grad():
            losses = [*adversary.codec_loss(real, fake).values(), adversary.adversary_loss(real, fake)[0]]
        return [loss.item() for loss in losses]

    for i in range(len(adversary.discriminators)):
        before = values()
        with torch.no_grad():
            for parameter in adversary.discriminators[i].parameters():
                parameter.mul_(1.3)
        assert all(a != b for a, b in zip(before, values(), strict=True)), i


@pytest.mark.parametrize("kind", SMALL)
def test_a_batch_is_the_mean_of_its_clips(kind: str) -> None:
    adversary, (real, fake) = small(kind, features=RelativeFeatureMatching(average=True), level=True), sounds(3)
    whole = adversary.codec_loss(real, fake) | {"loss": adversary.adversary_loss(real, fake)[0]}
    for name, value in whole.items():
        parts = []
        for i in range(3):
            a, b = real[i : i + 1], fake[i : i + 1]
            parts.append((adversary.codec_loss(a, b) | {"loss": adversary.adversary_loss(a, b)[0]})[name])
        torch.testing.assert_close(value, torch.stack(parts).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", SMALL)
def test_losses_are_float32_under_autocast(kind: str) -> None:
    adversary, (real, fake) = small(kind), sounds()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = adversary.codec_loss(real, fake.bfloat16()) | {"loss": adversary.adversary_loss(real, fake)[0]}
    plain = adversary.codec_loss(real, fake) | {"loss": adversary.adversary_loss(real, fake)[0]}
    for name, value in losses.items():
        assert value.dtype == torch.float32 and value.item() == pytest.approx(plain[name].item(), rel=0.2), name


def test_training_tells_real_from_fake() -> None:
    real, fake = sounds(2, length=400)
    for kind in SMALL:
        adversary, values = small(kind), []
        optimizer = torch.optim.Adam(adversary.parameters(), 3e-3)
        for _ in range(20):
            optimizer.zero_grad()
            value, logs = adversary.adversary_loss(real, fake)
            value.backward()
            optimizer.step()
            values.append(value.item())
        assert values[-1] < 0.7 * values[0] and logs["logits_real"] > logs["logits_fake"], kind


# --- what each can see -----------------------------------------------------------------------------------------------


def test_a_period_discriminator_never_mixes_columns() -> None:
    discriminator, x = PeriodDiscriminator(5, width=2), torch.randn(1, 1, 500)
    other = x.clone()
    other[..., 203] += 1  # column 203 % 5
    difference = (discriminator(x)[0] - discriminator(other)[0]).detach()
    assert difference[..., 3].any() and not difference[..., [0, 1, 2, 4]].any()


@pytest.mark.parametrize(("length", "rows"), [(500, 100), (501, 101), (504, 101)])
def test_padding_rules_of_periods(length: int, rows: int) -> None:
    x = torch.randn(1, 1, length)

    def first(discriminator: PeriodDiscriminator) -> Tensor:
        return discriminator(x)[1][0]

    torch.manual_seed(0)
    hifigan = PeriodDiscriminator(5, width=2)
    torch.manual_seed(0)
    dac = PeriodDiscriminator(5, width=2, always_pad=True)
    assert first(hifigan).shape[2] == math.ceil(rows / 3)
    extra = length % 5 == 0
    assert first(dac).shape[2] == math.ceil((rows + extra) / 3)
    padded = nn.functional.pad(x, (0, 5), mode="reflect") if extra else x
    assert torch.equal(first(dac), hifigan(padded)[1][0])
    with pytest.raises(InputError, match="too few"):
        hifigan(torch.randn(1, 1, 2))


def test_scales_really_see_lower_rates() -> None:
    x = 0.1 * torch.randn(1, 1, 2048)
    nyquist = x + 0.5 * (-1.0) ** torch.arange(2048)  # which averaging four samples takes away
    moved = []
    for halvings in (0, 1, 2):
        discriminator = ScaleDiscriminator(halvings, 16)
        moved.append((discriminator(x)[1][0] - discriminator(nyquist)[1][0])[..., 16:-16].abs().max().item())
    assert moved[0] > 1e-2 and max(moved[1:]) < 1e-6
    fractions = [ScaleDiscriminator(n, 16)(x)[0].shape[-1] for n in (0, 1, 2)]
    assert fractions == [32, 17, 9]
    with pytest.raises(ConfigError, match="multiple of 16"):
        ScaleDiscriminator(0, 20)


def test_bands_cover_the_spectrum_and_see_nothing_else() -> None:
    discriminator, n = BandDiscriminator(256, 4), 256
    assert sum(discriminator.band_sizes) == n // 2 + 1
    assert discriminator.band_sizes == [12, 20, 32, 32, 33]
    x = 0.1 * torch.randn(1, 1, 4096)
    time = torch.arange(4096)
    for band, bin_ in enumerate((6, 22, 48, 80, 112)):
        tone = torch.cos(2 * math.pi * bin_ / n * time)
        with torch.no_grad():
            pairs = zip(discriminator(x)[1], discriminator(x + tone)[1], strict=True)
            moved = torch.stack([(a - b)[:, :, 8:-8].abs().mean() for a, b in pairs]).view(5, 5)  # band, layer
        assert moved[:, 0].argmax() == band
        assert all(moved[other, 0] < 1e-3 * moved[band, 0] for other in range(5) if other != band)


def test_skipped_layers_are_those_of_every_band() -> None:
    x = torch.randn(1, 1, 1000)
    torch.manual_seed(0)
    every = BandDiscriminator(256, 4)(x)[1]
    torch.manual_seed(0)
    skipped = BandDiscriminator(256, 4, skip=1)(x)[1]
    assert len(every) == 25 and len(skipped) == 20
    kept = [f for i, f in enumerate(every) if i % 5]
    assert all(torch.equal(a, b) for a, b in zip(skipped, kept, strict=True))
    assert len(PeriodDiscriminator(2, 2)(x)[1]) == 5 and len(PeriodDiscriminator(2, 2, skip=1)(x)[1]) == 4


def test_spectral_shapes_and_clips_that_do_not_fit() -> None:
    logits, features = STFTDiscriminator(128, 4)(torch.randn(2, 1, 1024))
    frames = (1024 - 128) // 32 + 1
    assert logits.shape == (2, 1, frames, 9) and len(features) == 5
    assert [f.shape[3] for f in features] == [65, 33, 17, 9, 9]
    for kind, make in SMALL.items():
        with pytest.raises(InputError, match=r"takes \(B, 1, T\), got \(1, 2, 600\)"):
            make(1)[0](torch.randn(1, 2, 600))
        assert kind
    with pytest.raises(InputError, match="at least 128"):
        STFTDiscriminator(128, 4)(torch.randn(2, 1, 100))


def test_complex_spectra_go_in_as_torchaudios_real_and_imaginary_parts() -> None:
    torchaudio = pytest.importorskip("torchaudio", reason="torchaudio is not installed")
    x = torch.randn(2, 2, 1024)

    def planes(x: Tensor, **arguments: Any) -> Tensor:
        transform = torchaudio.transforms.Spectrogram(256, hop_length=64, center=False, power=None, **arguments)
        spectrum = transform(x)
        return torch.cat([spectrum.real, spectrum.imag], 1).transpose(2, 3)  # (B, 2 C, frames, F)

    stft = STFTDiscriminator(256, 4, slope=0.3, channels=2)
    wanted = nn.functional.leaky_relu(stft.layers[0](planes(x, normalized=True)), 0.3)
    torch.testing.assert_close(stft(x)[1][0], wanted, rtol=1e-4, atol=1e-5)
    band = BandDiscriminator(256, 4, channels=2)
    padded = nn.functional.pad(x, (96, 96), mode="reflect")
    wanted = nn.functional.leaky_relu(band.bands[1][0](planes(padded)[..., 12:32]), 0.1)  # type: ignore[index]
    torch.testing.assert_close(band(x)[1][5], wanted, rtol=1e-4, atol=1e-4)


# --- the published networks ------------------------------------------------------------------------------------------


def tree_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_published_trees_build_and_play(name: str) -> None:
    tree = tree_of(name)
    with torch.device("meta"):
        whole = codeczoo.build(tree)
    assert len(whole.discriminators) in (3, 5)
    tree["discriminators"] |= {"width": 16 if name == "msd" else 2, "channels": 2}
    losses = codeczoo.build(tree).codec_loss(*sounds(1, 2, 4000))
    assert set(losses) == {"adversarial", "feature_matching"}


def test_published_sizes() -> None:
    def millions(name: str) -> float:
        with torch.device("meta"):
            adversary = codeczoo.build(tree_of(name))
        return sum(p.numel() for p in adversary.parameters()) / 1e6

    mpd = 5 * (5 * (32 + 32 * 128 + 128 * 512 + 512 * 1024 + 1024**2) + 3 * 1024 + 2 * 2721) / 1e6  # weight norm: + g
    assert millions("mpd") == millions("mpd_dac") == millions("mpd_vocos") == pytest.approx(mpd)
    assert mpd == pytest.approx(41.1, abs=0.05)  # HiFi-GAN's
    band = 27 * 2 * 32 + 3 * 27 * 32 * 32 + 9 * 32 * 32 + 2 * 5 * 32
    assert millions("mrd_dac") == pytest.approx(3 * (5 * band + 9 * 32 + 2) / 1e6)
    stft = 27 * 2 * 32 + 32 + 3 * (27 * 32 * 32 + 64) + (9 * 32 * 32 + 64) + 9 * 32 + 2
    assert millions("ms_stft") == pytest.approx(5 * stft / 1e6)
    assert millions("msd") == pytest.approx(29.6, abs=0.2)  # HiFi-GAN's


# --- updates by chance -----------------------------------------------------------------------------------------------


def test_updates_by_chance_are_the_same_everywhere_and_as_often_as_asked() -> None:
    def contest(probability: float) -> Contest:
        return Contest(small("period"), None, None, FixedWeight(1.0), probability=probability)  # type: ignore[arg-type]

    often = contest(2 / 3)
    drawn = [often.learns(0, step) for step in range(3000)]
    assert sum(drawn) / 3000 == pytest.approx(2 / 3, abs=0.03)
    torch.manual_seed(99)  # as on another rank, or after a resume
    assert [contest(2 / 3).learns(0, step) for step in range(50)] == drawn[:50]
    assert [often.learns(1, step) for step in range(50)] != drawn[:50]
    assert all(contest(1.0).learns(0, step) for step in range(50))
    for wrong in (0.0, 1.5):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            contest(wrong)
