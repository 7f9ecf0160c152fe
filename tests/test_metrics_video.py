"""Measures of video: hand-computed values, blocks that change nothing, the network of FVD against its definition."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import InputError, MissingError, WeightsError
from codeczoo.metrics import i3d, image, video
from codeczoo.metrics.fid import ReconstructionFID


def clips(frames: int = 37, batch: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = F.interpolate(torch.rand(batch, 3, 6, 4, 4), (frames, 12, 10), mode="trilinear")
    return x, (x + 0.1 * torch.randn_like(x)).clamp(0, 1)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
@pytest.mark.parametrize("frames", [1, 16, 37])
def test_measures_are_means_over_frames(name: str, frames: int) -> None:
    x, x_hat = clips(frames)
    one_by_one = [getattr(image, name)(x[:, :, t], x_hat[:, :, t]) for t in range(frames)]
    torch.testing.assert_close(getattr(video, name)(x, x_hat), torch.stack(one_by_one).mean(0))


def test_the_mean_of_frames_is_not_that_of_all_pixels() -> None:
    x = torch.zeros(1, 3, 2, 4, 4)
    x_hat = x.clone()
    x_hat[:, :, 1] = 0.1
    assert float(video.psnr(x, x_hat)) == pytest.approx((100 + 20) / 2, abs=1e-3)
    x, x_hat = torch.cat([x, x]), torch.cat([x_hat, x_hat])
    assert video.over_frames(image.psnr, x, x_hat, torch.tensor([1, 2])).tolist() == pytest.approx([100, 60], abs=1e-3)


def test_flicker_is_what_changes_of_the_error() -> None:
    x, noisy = clips(37)
    assert video.flicker(x, x).tolist() == [0, 0]
    assert video.flicker(x, x + 0.3).max() < 1e-3  # a large error that stands still
    assert video.flicker(x, x + torch.rand(3, 1, 12, 10)).max() < 1e-3
    wanted = 255 * ((noisy - x)[:, :, 1:] - (noisy - x)[:, :, :-1]).abs().mean((1, 2, 3, 4))
    torch.testing.assert_close(video.flicker(x, noisy), wanted)
    blinking = x + 0.04 * (torch.arange(37) % 2).view(-1, 1, 1)
    assert video.flicker(x, blinking).tolist() == pytest.approx([255 * 0.04] * 2, rel=1e-4)
    normal = 0.01 * torch.randn(1, 3, 60, 40, 40)
    assert float(video.flicker(torch.zeros_like(normal), normal)) == pytest.approx(1.128 * 2.55, rel=0.02)


@pytest.mark.parametrize("frames", [2, 15, 16, 17, 18, 32, 33])
def test_flicker_misses_no_pair_of_frames(frames: int) -> None:
    x, x_hat = torch.zeros(1, 1, frames, 1, 1), torch.rand(1, 1, frames, 1, 1)
    wanted = sum(abs(float(a - b)) for a, b in pairwise(x_hat.flatten())) * 255 / (frames - 1)
    assert float(video.flicker(x, x_hat)) == pytest.approx(wanted, rel=1e-4)


def test_flicker_of_one_picture_has_no_value() -> None:
    assert math.isnan(float(video.flicker(torch.rand(1, 3, 1, 4, 4), torch.rand(1, 3, 1, 4, 4))))


@pytest.mark.parametrize("measure", [video.psnr, video.ssim, video.flicker])
def test_shapes_are_checked(measure: object) -> None:
    for a, b in [((1, 3, 4, 8, 8), (1, 3, 5, 8, 8)), ((3, 4, 8, 8), (3, 4, 8, 8)), ((1, 3, 0, 8, 8), (1, 3, 0, 8, 8))]:
        with pytest.raises(InputError):
            measure(torch.zeros(a), torch.zeros(b))  # type: ignore[operator]


# --- FVD -------------------------------------------------------------------------------------------------------------

BLOCKS = ["3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"]


def random_state() -> dict[str, Tensor]:
    """A state dict of the published layout whose activations stay in range."""
    torch.manual_seed(0)
    state = {}
    for key, value in i3d.I3D().state_dict().items():
        fan = value[0].numel() if value.ndim > 1 else 1
        state[key] = torch.randn(value.shape) * (2 / fan) ** 0.5
        if key.endswith(("running_var", "bn.weight")):
            state[key] = 0.5 + torch.rand(value.shape)
        if key.endswith(("bn.bias", "running_mean")):
            state[key] = 0.1 * torch.randn(value.shape)
        if key.endswith("running_var"):
            state[key.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return state


def padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float = 0.0) -> Tensor:
    """As the authors' PyTorch code has it: what is missing to the last window, an odd zero behind."""
    around: list[int] = []
    for axis in (2, 1, 0):
        size, k, s = x.shape[2 + axis], kernel[axis], stride[axis]
        missing = max(k - s, 0) if size % s == 0 else max(k - size % s, 0)
        around += [missing // 2, missing - missing // 2]
    return F.pad(x, around, value=value)


def reference(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The published network, read off its state dict."""

    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        h = F.conv3d(padded(x, tuple(weight.shape[2:]), (stride,) * 3), weight, stride=stride)
        mean, var = (state[f"{name}.bn.running_{what}"] for what in ("mean", "var"))
        return F.batch_norm(h, mean, var, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"], eps=1e-5).relu()

    def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        return F.max_pool3d(padded(x, kernel, stride, -math.inf), kernel, stride)

    x = pool(unit(x, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
    x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    for block in BLOCKS:
        if block == "4b":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if block == "5b":
            x = pool(x, (2, 2, 2), (2, 2, 2))
        name = f"Mixed_{block}"
        side = [unit(unit(x, f"{name}.b{i}a"), f"{name}.b{i}b") for i in (1, 2)]
        x = torch.cat([unit(x, f"{name}.b0"), *side, unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b")], 1)
    x = F.avg_pool3d(x, (2, 7, 7), 1)
    return F.conv3d(x, state["logits.conv3d.weight"], state["logits.conv3d.bias"]).flatten(2).mean(2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("i3d") / "i3d_pretrained_400.pt"
    torch.save(random_state(), path)
    return path


def test_the_network_is_the_published_one(weights: Path) -> None:
    assert sum(p.numel() for p in i3d.I3D().parameters()) == 12_697_264
    units = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
    units += [f"Mixed_{block}.{branch}" for block in BLOCKS for branch in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")]
    tensors = ("conv3d.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    keys = {f"{unit}.{tensor}" for unit in units for tensor in tensors} | {"logits.conv3d.weight", "logits.conv3d.bias"}
    assert set(i3d.I3D().state_dict()) == keys
    x = torch.randint(0, 256, (1, 3, 11, 224, 224), dtype=torch.uint8)
    found, wanted = i3d.ClipFeatures(weights)(x), reference(x.float() / 127.5 - 1, random_state())
    assert found.shape == (1, 400) and float(found.std()) > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_clips_are_fitted_to_the_middle() -> None:
    x = torch.zeros(1, 3, 2, 56, 120, dtype=torch.uint8)
    x[..., 32:88] = 255  # the middle square
    found = i3d.fitted(x)
    assert found.shape == (1, 3, 2, 224, 224) and found.mean() > 0.98 and i3d.fitted(255 - x).mean() < -0.98
    ramp = torch.arange(224, dtype=torch.uint8).view(1, 1, 1, 1, -1).expand(2, 3, 1, 224, 224)
    torch.testing.assert_close(i3d.fitted(ramp), ramp / 127.5 - 1)
    assert i3d.fitted(torch.zeros(1, 3, 1, 100, 31, dtype=torch.uint8)).shape[3:] == (224, 224)


class Scripted(nn.Module):
    """Called as the networks in the archives are."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        assert return_features and not rescale and not resize
        return x.mean((2, 3, 4)).repeat(1, 134)[:, :400]


def test_archives_of_torchscript_are_taken(tmp_path: Path) -> None:
    torch.jit.script(Scripted()).save(tmp_path / "i3d_torchscript.pt")
    x = torch.full((2, 3, 9, 32, 32), 255, dtype=torch.uint8)
    assert i3d.ClipFeatures(tmp_path / "i3d_torchscript.pt")(x).tolist() == [[1.0] * 400] * 2


def test_wrong_weights_and_short_clips_are_told(tmp_path: Path) -> None:
    for path in (None, tmp_path / "nowhere.pt"):
        with pytest.raises(MissingError, match="i3d_pretrained_400"):
            i3d.ClipFeatures(path)
    state = random_state()
    torch.save({key: value for key, value in state.items() if "Mixed_5c.b0" not in key}, tmp_path / "less.pt")
    with pytest.raises(WeightsError, match="lack 5 tensors"):
        i3d.ClipFeatures(tmp_path / "less.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        i3d.ClipFeatures(tmp_path / "text.pt")
    torch.jit.script(Scripted()).save(tmp_path / "script.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "script.pt").read_bytes()[:-30])
    with pytest.raises(WeightsError):
        i3d.ClipFeatures(tmp_path / "cut.pt")
    with pytest.raises(InputError, match="at least 9 frames, got 8"):
        i3d.ClipFeatures(tmp_path / "script.pt")(torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8))


class Motion(nn.Module):
    """Mean of each channel in the first and the last frame, out of 8-bit clips."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8 and x.ndim == 5
        return x.double()[:, :, [0, -1]].mean((3, 4)).flatten(1)


def test_fvd_is_zero_for_equals_and_grows() -> None:
    torch.manual_seed(0)
    x, found = torch.rand(40, 3, 9, 8, 8), []
    for noise in (0.0, 0.1, 0.3):
        fvd = ReconstructionFID(Motion(), dim=6)
        for part in x.split(9):
            fvd.update(part, part + noise)
        found.append(fvd.result())
    assert found[0] == pytest.approx(0, abs=1e-4) and 1 < found[1] < found[2]
