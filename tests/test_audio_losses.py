"""Spectra and audio terms against torchaudio, closed forms and slow sums; teachers against `transformers`."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import codeczoo
from codeczoo.core.errors import ConfigError, InputError, MissingError, WeightsError
from codeczoo.core.types import Reconstruction, StreamSpec, Tokens, TokenSpec
from codeczoo.losses.base import MediaTerm
from codeczoo.losses.distill import CosineDistillation, DimensionDistillation, TimeDistillation
from codeczoo.losses.pixel import RelativeL2
from codeczoo.losses.spectral import ComplexL1, SpectralL1, SpectralL1L2
from codeczoo.losses.teachers import Pooled, Teacher, TorchaudioTeacher, TransformersTeacher
from codeczoo.nn.spectrogram import STFT, MelSpectrogram, Spectrogram, filters_of, hann, mel_spectrograms, spectrograms

torchaudio = pytest.importorskip("torchaudio", reason="torchaudio is not installed")

CONF = Path(__file__).resolve().parents[1] / "conf" / "objective"
SPEC = TokenSpec("audio", "second", (StreamSpec((5,), ("time",), (None,), 50.0),), sample_rate=16000, channels=1)
PLAIN = ["audio_plain", "encodec", "dac", "wavtokenizer", "audio_phase.mel", "audio_phase.complex"]


def made(x_hat: Tensor | None = None, features: Tensor | None = None) -> Reconstruction:
    tokens = Tokens(SPEC, (torch.zeros(1, 1, 2, dtype=torch.int64),), torch.tensor([[640]]))
    return Reconstruction(tokens, x_hat=x_hat, features=features)


def terms(name: str) -> dict[str, Any]:
    """The terms of an objective of conf/ that compare spectra, or the one that is named behind a dot."""
    name, _, only = name.partition(".")
    tree = yaml.safe_load((CONF / f"{name}.yaml").read_text())["terms"]
    return {k: codeczoo.build(v) for k, v in tree.items() if {"spectra", "transforms"} & {*v} and only in ("", k)}


# --- spectra ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", [None, "slaney"])
@pytest.mark.parametrize(("n_mels", "n_fft", "rate", "low"), [(80, 1024, 16000, 0.0), (64, 512, 24000, 64.0)])
def test_mel_bands_are_torchaudios(
    scale: Any, norm: str | None, n_mels: int, n_fft: int, rate: int, low: float
) -> None:
    mel = MelSpectrogram(
        n_fft, 256, sample_rate=rate, n_mels=n_mels, f_min=low, scale=scale, unit_area=norm is not None
    )
    theirs = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, low, rate / 2, n_mels, rate, norm, scale)
    ours = filters_of(mel, torch.device("cpu"))
    assert ours.dtype == torch.float32 and ours.shape == (n_mels, n_fft // 2 + 1)
    torch.testing.assert_close(ours, theirs.T, rtol=1e-4, atol=1e-5 * theirs.max().item())


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_mel_spectrogram_is_torchaudios(power: float) -> None:
    x = torch.randn(2, 2, 4096)
    mel = torchaudio.transforms.MelSpectrogram(24000, 1024, hop_length=256, n_mels=80, power=power)
    ours = MelSpectrogram(1024, 256, power=power, sample_rate=24000, n_mels=80)
    torch.testing.assert_close(ours(x), mel(x), rtol=1e-3, atol=1e-4)
    mel = torchaudio.transforms.MelSpectrogram(
        24000, 512, hop_length=128, n_mels=40, power=power, normalized=True, center=False, f_min=64.0
    )
    ours = MelSpectrogram(512, 128, "same", True, power, sample_rate=24000, n_mels=40, f_min=64.0)
    padded = nn.functional.pad(x, (192, 192), mode="reflect")
    torch.testing.assert_close(ours(x), mel(padded), rtol=1e-3, atol=1e-4)


def test_stft_is_the_windowed_sum() -> None:
    x, n, hop = torch.randn(1, 1, 50), 16, 4
    found = STFT(n, hop, "none").transform(x)
    assert found.shape == (1, 1, 9, (50 - n) // hop + 1)
    for frame in (0, 3):
        for k in (0, 1, 5, 8):
            wanted = sum(
                x[0, 0, frame * hop + t].item() * (0.5 - 0.5 * math.cos(2 * math.pi * t / n))
                * complex(math.cos(2 * math.pi * k * t / n), -math.sin(2 * math.pi * k * t / n))
                for t in range(n)
            )
            assert found[0, 0, k, frame].item() == pytest.approx(wanted, abs=1e-5)


def test_unit_window_makes_white_noise_unit_power() -> None:
    x = torch.randn(1, 1, 200_000, generator=torch.Generator().manual_seed(0))
    for n in (64, 512):
        assert STFT(n, n // 4, "none", True).transform(x).abs().square().mean().item() == pytest.approx(1, rel=0.05)


def test_frames_and_clips_that_are_too_short() -> None:
    for length in (1000, 1024, 1025):
        x = torch.randn(1, 1, length)
        frames = [Spectrogram(256, 64, padding)(x).shape[-1] for padding in ("center", "same", "none")]
        assert frames == [length // 64 + 1, -(-length // 64), (length - 256) // 64 + 1]
    for padding, least in (("center", 129), ("same", 128), ("none", 256)):
        Spectrogram(256, 64, padding)(torch.randn(1, 1, least))
        with pytest.raises(InputError, match=r"256-sample windows.*at least"):
            Spectrogram(256, 64, padding)(torch.randn(1, 1, 65 if padding == "same" else least - 1))
    with pytest.raises(ConfigError, match="center, same or none"):
        Spectrogram(256, 64, "full")(torch.randn(1, 1, 999))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="htk or slaney"):
        MelSpectrogram(256, 64, sample_rate=8000, n_mels=4, scale="bark")(torch.randn(1, 1, 999))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="2 windows but 1"):
        mel_spectrograms(8000, [64, 128], [10])


def test_tables_made_without_gradients_serve_those_that_need_them() -> None:
    hann.cache_clear()
    filters_of.cache_clear()
    mel, x = MelSpectrogram(64, 16, sample_rate=8000, n_mels=8), torch.randn(1, 1, 200)
    with torch.inference_mode():
        mel(x)
    x.requires_grad_()
    mel(x).sum().backward()
    assert x.grad is not None and x.grad.any()


def test_spectra_are_float32_under_autocast_and_for_half_precision() -> None:
    mel, x = MelSpectrogram(64, 16, sample_rate=8000, n_mels=8), torch.randn(1, 1, 200).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mel(x), mel(x.float()))
        assert mel(x).dtype == torch.float32


# --- spectral terms --------------------------------------------------------------------------------------------------


def test_louder_by_a_factor_is_that_factor_in_every_log_band() -> None:
    x = torch.randn(2, 1, 8000)
    for base in (10.0, math.e):
        term = SpectralL1(mel_spectrograms(16000, [256, 1024], [20, 40]), 1e-5, base)
        assert term(x, made(3 * x)).item() == pytest.approx(2 * math.log(3, base), rel=1e-4)
    term = SpectralL1(spectrograms([512, 2048]), 1e-7, log=2.0)  # DAC's: the logarithm of the square
    assert term(x, made(x / 2)).item() == pytest.approx(4 * math.log10(2), rel=1e-4)
    term = SpectralL1(spectrograms([512]), log=0.0, linear=1.0)
    assert term(x, made(1.5 * x)).item() == pytest.approx(0.5 * Spectrogram(512, 128)(x).mean().item(), rel=1e-4)
    with pytest.raises(ConfigError, match="no spectra"):
        SpectralL1([])


def test_encodecs_term_by_torchaudio() -> None:
    x, x_hat = 0.1 * torch.randn(2, 1, 4096), 0.1 * torch.randn(2, 1, 4096)
    total = 0.0
    for n in (64, 128, 256, 512, 1024):
        transform = torchaudio.transforms.MelSpectrogram(
            24000, n, hop_length=n // 4, n_mels=64, f_min=64.0, power=2.0, normalized=True, center=False
        )
        a, b = (transform(nn.functional.pad(v, (3 * n // 8,) * 2, mode="reflect")) for v in (x, x_hat))
        total += (a - b).abs().mean() + ((1e-5 + a).log10() - (1e-5 + b).log10()).square().mean()
    (term,) = terms("encodec").values()
    assert isinstance(term, SpectralL1L2)
    assert term(x, made(x_hat)).item() == pytest.approx(float(total) / 10, rel=1e-4)


def test_dacs_and_wavtokenizers_terms_by_torchaudio() -> None:
    x, x_hat = 0.1 * torch.randn(1, 1, 8000), 0.1 * torch.randn(1, 1, 8000)
    total = 0.0
    for n, m in zip((32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320), strict=True):
        transform = torchaudio.transforms.MelSpectrogram(
            44100, n, hop_length=n // 4, n_mels=m, power=1.0, norm="slaney", mel_scale="slaney"
        )
        total += (transform(x).clamp(min=1e-5).log10() - transform(x_hat).clamp(min=1e-5).log10()).abs().mean()
    assert terms("dac")["mel"](x, made(x_hat)).item() == pytest.approx(float(total), rel=1e-3)
    transform = torchaudio.transforms.MelSpectrogram(24000, 1024, hop_length=256, n_mels=100, power=1.0)
    wanted = (transform(x).clamp(min=1e-7).log() - transform(x_hat).clamp(min=1e-7).log()).abs().mean()
    assert terms("wavtokenizer")["mel"](x, made(x_hat)).item() == pytest.approx(wanted.item(), rel=1e-3)


def test_speechtokenizers_four_mels() -> None:
    x, x_hat = 0.1 * torch.randn(1, 1, 4800), 0.1 * torch.randn(1, 1, 4800)
    found = terms("speechtokenizer")
    assert [*found] == ["mel_1024", "mel_512", "mel_256", "mel_128"]
    for name, (n, hop) in zip(found, ((1024, 240), (512, 120), (256, 60), (128, 30)), strict=True):
        transform = torchaudio.transforms.MelSpectrogram(
            16000, n, hop_length=hop, n_mels=80, power=1.0, norm="slaney", center=False
        )
        a, b = (transform(nn.functional.pad(v, ((n - hop) // 2,) * 2, mode="reflect")) for v in (x, x_hat))
        wanted = (a.clamp(min=1e-5).log() - b.clamp(min=1e-5).log()).abs().mean().item()
        assert found[name](x, made(x_hat)).item() == pytest.approx(wanted, rel=1e-3), name


@pytest.mark.parametrize("name", PLAIN)
def test_a_batch_is_the_mean_of_its_clips_and_stereo_of_its_channels(name: str) -> None:
    (term,) = (t for t in terms(name).values() if isinstance(t, MediaTerm))
    x, x_hat = 0.1 * torch.randn(3, 2, 6000), 0.1 * torch.randn(3, 2, 6000)
    whole = term(x, made(x_hat))
    one_by_one = [term(x[i : i + 1, c : c + 1], made(x_hat[i : i + 1, c : c + 1])) for i in range(3) for c in range(2)]
    torch.testing.assert_close(whole, torch.stack(one_by_one).mean(), rtol=1e-4, atol=1e-6)
    assert term(x, made(x)).item() == 0


@pytest.mark.parametrize("name", PLAIN)
def test_silence_has_finite_gradients(name: str) -> None:
    (term,) = terms(name).values()
    for x in (torch.zeros(1, 1, 6000), torch.randn(1, 1, 6000)):
        x_hat = torch.zeros(1, 1, 6000, requires_grad=True)
        term(x, made(x_hat)).backward()
        assert x_hat.grad is not None and x_hat.grad.isfinite().all()


def test_a_real_clip_gets_farther_the_more_is_taken_from_it(data_root: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    files = sorted((data_root / "audio" / "val").rglob("*.*"))
    if not files:
        pytest.skip(f"no audio below {data_root}/audio/val")
    data, rate = soundfile.read(files[0], dtype="float32", always_2d=True, frames=48000)
    x = torch.from_numpy(data.T.copy())[None, :1]
    names = ("encodec", "dac", "wavtokenizer", "audio_plain", "audio_phase.mel")  # the filters turn phases
    for term in (t for name in names for t in terms(name).values()):
        values = [0.0]
        for cutoff in (0.3, 0.15, 0.05):  # of the sample rate
            x_hat = torchaudio.functional.lowpass_biquad(x, rate, cutoff * rate)
            for _ in range(3):
                x_hat = torchaudio.functional.lowpass_biquad(x_hat, rate, cutoff * rate)
            values.append(term(x, made(x_hat)).item())
        values.append(term(x, made(torch.zeros_like(x))).item())
        assert values == sorted(values) and values[1] > 0, values


def test_complex_spectra_by_hand_see_phases() -> None:
    x = torch.randn(1, 1, 4096)
    stft = STFT(256, 64)
    wanted, found = (
        z * (z.abs() + 1e-9).pow(-0.5) for z in (stft.transform(x) / 16, stft.transform(-2 * x) / 16)
    )
    term = ComplexL1([stft, stft], power=0.5, floor=1e-7)
    assert term(x, made(-2 * x)).item() == pytest.approx(2 * (found - wanted).abs().mean().item(), rel=1e-4)
    quiet, loud = ComplexL1([stft], 0.3), ComplexL1([stft], 1.0)
    ratios = [t(0.01 * x, made(-0.01 * x)).item() / t(x, made(-x)).item() for t in (loud, quiet)]
    assert ratios[0] < 0.02 < 0.2 < ratios[1]
    for transforms, power in (([], 0.5), ([stft], 0.0), ([stft], 1.5)):
        with pytest.raises(ConfigError, match="0 < power <= 1"):
            ComplexL1(transforms, power)


# --- distillation ----------------------------------------------------------------------------------------------------


class Fixed(Teacher):
    """Always says the same."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return self.states


def test_distillation_terms_by_hand() -> None:
    torch.manual_seed(0)
    wanted, found = torch.randn(2, 3, 5), torch.randn(2, 3, 5, requires_grad=True)
    x, seen = torch.randn(2, 1, 1600), found.detach()

    def cosine(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum() / (a.norm() * b.norm()))

    def penalty(c: float) -> float:
        return math.log(1 + math.exp(-c))

    over_time = [penalty(cosine(wanted[b, d], seen[b, d])) for b in range(2) for d in range(3)]
    over_dims = [cosine(wanted[b, :, t], seen[b, :, t]) for b in range(2) for t in range(5)]
    value = DimensionDistillation(Fixed(wanted))(x, made(features=found))
    assert value.item() == pytest.approx(sum(over_time) / 6, rel=1e-5)
    value.backward()
    assert found.grad is not None and found.grad.any()
    value = TimeDistillation(Fixed(wanted), similarity=0.5)(x, made(features=found))
    by_hand = (wanted - seen).abs().mean().item() + 0.5 * sum(map(penalty, over_dims)) / 10
    assert value.item() == pytest.approx(by_hand, rel=1e-5)
    value = CosineDistillation(Fixed(wanted))(x, made(features=found))
    assert value.item() == pytest.approx(1 - sum(over_dims) / 10, rel=1e-5)
    assert CosineDistillation(Fixed(wanted))(x, made(features=3 * wanted)).item() == pytest.approx(0, abs=1e-6)


def test_one_frame_more_or_less_is_cut_and_anything_else_refused() -> None:
    wanted, x = torch.randn(1, 3, 5), torch.randn(1, 1, 1600)
    term = CosineDistillation(Fixed(wanted))
    assert term(x, made(features=wanted[..., :4])).item() == pytest.approx(0, abs=1e-6)
    assert term(x, made(features=torch.cat([wanted, wanted[..., :1]], 2))).item() == pytest.approx(0, abs=1e-6)
    for wrong in (wanted[..., :3], wanted[:, :2]):
        with pytest.raises(InputError, match=r"the teacher gives \(1, 3, 5\), the codec"):
            term(x, made(features=wrong))
    with pytest.raises(InputError, match="reads features"):
        term(x, made())


def small_model(kind: str, large: bool = False) -> Any:
    """A random HuBERT or WavLM of two blocks."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    shape = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
        "do_stable_layer_norm": large, "feat_extract_norm": "layer" if large else "group",
    }
    return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**shape)).eval()


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("hubert")
    model = small_model("Hubert")
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    return model, folder


def test_a_teacher_gives_a_frame_for_every_20_ms(hubert: tuple[Any, Path]) -> None:
    model, folder = hubert
    x = torch.randn(2, 1, 16000)
    teacher = TransformersTeacher(folder, 16000).eval()
    assert teacher(x).shape == (2, 16, 50)
    normal = (x[:, 0] - x[:, 0].mean(1, keepdim=True)) / x[:, 0].std(1, correction=0, keepdim=True)
    states = model(nn.functional.pad(normal, (40, 40)), output_hidden_states=True).hidden_states
    torch.testing.assert_close(teacher(x), torch.stack(states).mean(0).transpose(1, 2), rtol=1e-4, atol=1e-5)
    for layer in (0, 2, -1):
        one = TransformersTeacher(folder, 16000, layer=layer).eval()(x)
        torch.testing.assert_close(one, states[layer].transpose(1, 2), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"layer must be within -3\.\.2, got 3"):
        TransformersTeacher(folder, 16000, layer=3)(x)
    t = torch.arange(48000) / 48000
    tone = torch.sin(2 * math.pi * 440 * t).expand(1, 2, -1)  # stereo at another rate
    resampled = TransformersTeacher(folder, 48000).eval()(tone)
    direct = teacher(torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000).expand(1, 1, -1))
    assert resampled.shape == direct.shape
    assert (resampled - direct)[..., 3:-3].abs().mean() < 0.05 * direct.std()


def test_pooled_teacher_averages_eight_frames_every_four() -> None:
    states = torch.randn(1, 3, 50)
    with torch.no_grad():
        pooled = Pooled(Fixed(states))(torch.randn(1, 1, 16000))
    assert pooled.shape == (1, 3, 12)
    torch.testing.assert_close(pooled[..., 0], states[..., :6].mean(2))
    torch.testing.assert_close(pooled[..., 5], states[..., 18:26].mean(2))


@pytest.mark.parametrize(("kind", "large"), [("Hubert", False), ("Hubert", True), ("WavLM", False)])
def test_torchaudios_layout_agrees_with_transformers(
    kind: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchaudio import models
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    model = small_model(kind, large)
    model.save_pretrained(tmp_path)
    theirs = import_huggingface_model(model)
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    monkeypatch.setattr(models, "hubert_base", lambda: import_huggingface_model(small_model(kind, large)))
    x = torch.randn(1, 1, 6400)
    for layer in (None, 0, 1, 2):
        a = TorchaudioTeacher(tmp_path / "model.pth", "hubert_base", 16000, layer).eval()(x)
        b = TransformersTeacher(tmp_path, 16000, layer, normalise=False).eval()(x)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match="did you mean"):
        TorchaudioTeacher(tmp_path / "model.pth", "hubert_bse", 16000)
    with pytest.raises(MissingError, match=r"no file nowhere\.pth.*HUBERT_BASE.*without the distillation"):
        TorchaudioTeacher("nowhere.pth", "hubert_base", 16000)


def test_teachers_are_frozen_and_say_what_they_lack(hubert: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = hubert
    term = DimensionDistillation(TransformersTeacher(folder, 16000)).train()
    assert not term.state_dict() and not list(term.parameters()) and not term.teacher.net.training
    features = torch.randn(1, 16, 50, requires_grad=True)
    term(torch.randn(1, 1, 16000), made(features=features)).backward()
    assert features.grad is not None and not any(p.requires_grad for p in term.teacher.net.parameters())
    with pytest.raises(MissingError, match=r"no folder is given.*hf download.*without the distillation"):
        TransformersTeacher(None, 16000)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json says nothing"):
        TransformersTeacher(tmp_path, 16000)
    with pytest.raises(WeightsError, match="cannot read it"):
        TransformersTeacher(tmp_path, 16000, normalise=True)
    for name in ("speechtokenizer", "mimi"):
        with pytest.raises(MissingError, match="no folder is given"):
            codeczoo.build(yaml.safe_load((CONF / f"{name}.yaml").read_text()), ("codeczoo.",))


def test_a_teacher_with_missing_weights_is_refused(hubert: tuple[Any, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _, folder = hubert
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    state.pop("encoder.layers.1.attention.k_proj.weight")
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack encoder\.layers\.1\.attention\.k_proj\.weight"):
        TransformersTeacher(tmp_path, 16000, normalise=True)


def test_published_distillation_trees_build_with_a_folder(hubert: tuple[Any, Path]) -> None:
    tree = yaml.safe_load((CONF / "speechtokenizer.yaml").read_text())
    tree["terms"]["distill"]["teacher"]["folder"] = str(hubert[1])
    objective = codeczoo.build(tree)
    assert objective.weights == {
        "l1": 500, "mel_1024": 45, "mel_512": 1, "mel_256": 1, "mel_128": 1, "commitment": 10, "distill": 120
    }
    assert objective.media == ["l1", "mel_1024", "mel_512", "mel_256", "mel_128"]
    x = 0.1 * torch.randn(1, 1, 16000)
    reconstruction = made(0.5 * x, torch.randn(1, 16, 50))
    reconstruction.losses["commitment"] = torch.tensor(0.25)
    losses = objective(x, reconstruction)
    assert losses.own.item() == pytest.approx(2.5 + 120 * losses.values["distill"].item(), rel=1e-5)
    wanted = sum(objective.weights[name] * value.item() for name, value in losses.values.items())
    assert losses.total.item() == pytest.approx(wanted, rel=1e-5)


def test_relative_l2_is_the_inverse_of_the_signal_to_noise_ratio() -> None:
    x = torch.randn(3, 1, 4000) * torch.tensor([1.0, 0.1, 10.0])[:, None, None]
    noise = torch.randn(3, 1, 4000)
    noise *= (0.1 * x.square().mean((1, 2)) / noise.square().mean((1, 2))).sqrt()[:, None, None]  # 10 dB for each
    term = RelativeL2(floor=1e-9)
    torch.testing.assert_close(term.compare(x, x + noise), torch.tensor(0.1), rtol=1e-4, atol=0)
    torch.testing.assert_close(term.compare(x, 0 * x), torch.tensor(1.0), rtol=1e-4, atol=0)
    with pytest.raises(ConfigError, match="above 0, got 0"):
        RelativeL2(floor=0)
