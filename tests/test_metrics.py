"""Metrics: hand-computed values, agreement with torchmetrics and numpy, closed forms."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codeczoo.core.errors import InputError, MissingError
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.metrics import inception
from codeczoo.metrics.bits import bits_per_pixel, nominal_bits
from codeczoo.metrics.codebook import CodebookUse
from codeczoo.metrics.fid import Gaussian, ReconstructionFID, frechet_distance
from codeczoo.metrics.image import ms_ssim, psnr, ssim

TWO_STREAMS = TokenSpec(
    "image", "image",
    (StreamSpec((4,), ("position",), (3,), 3.0, "coarse"), StreamSpec((8, 5), ("row", "column"), (2, 2), 4.0, "fine")),
    prefixes=("codebooks", "streams"),
)
ONE_STREAM = TokenSpec("image", "image", (StreamSpec((8,), ("position",), (4,), 4.0),), prefixes=("positions",))


def pictures(size: tuple[int, int], noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Two smooth pictures and noisy copies, so that all parts of SSIM matter."""
    torch.manual_seed(0)
    x = nn.functional.interpolate(torch.rand(2, 3, 8, 8), size, mode="bicubic").clamp(0, 1)
    return x, (0.8 * x + 0.1 + noise * torch.randn(2, 3, *size)).clamp(0, 1)


def batch() -> Tokens:
    torch.manual_seed(0)
    streams = torch.randint(0, 4, (6, 1, 3)), torch.cat([torch.randint(0, v, (6, 1, 2, 2)) for v in (8, 5)], 1)
    lengths = torch.tensor([3, 1, 2, 3, 0, 3]), torch.tensor([2, 1, 2, 0, 1, 2])
    return Tokens(TWO_STREAMS, streams, torch.tensor([[4, 8]] * 6), lengths)


def test_psnr_is_per_picture_and_capped() -> None:
    x = torch.zeros(3, 3, 4, 4)
    x_hat = torch.stack([x[0] + 0.1, x[1] + 0.5, x[2]])
    assert psnr(x, x_hat).tolist() == pytest.approx([20.0, -10 * math.log10(0.25), 100.0], abs=1e-4)
    with pytest.raises(InputError, match="differ in shape"):
        psnr(x, x_hat[:2])


def test_ssim_of_identical_flat_and_opposite_pictures() -> None:
    x, _ = pictures((32, 40))
    torch.testing.assert_close(ssim(x, x), torch.ones(2))
    flat, other = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(flat, other).item() == pytest.approx(luminance, abs=3e-5)
    stripes = (torch.arange(32) % 2).float().expand(1, 1, 32, 32)
    assert ssim(stripes, 1 - stripes).item() < -0.9
    with pytest.raises(InputError, match="at least 6"):
        ssim(torch.rand(1, 3, 5, 9), torch.rand(1, 3, 5, 9))


@pytest.mark.parametrize("size", [(32, 48), (33, 21), (7, 64)])
def test_ssim_equals_torchmetrics(size: tuple[int, int]) -> None:
    reference = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is not installed")
    x, x_hat = pictures(size)
    wanted = reference.structural_similarity_index_measure(x_hat, x, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(x, x_hat), wanted, rtol=0, atol=1e-5)
    wanted = reference.peak_signal_noise_ratio(x_hat, x, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(x, x_hat), wanted)


@pytest.mark.parametrize("size", [(176, 176), (192, 181)])
def test_ms_ssim_equals_torchmetrics(size: tuple[int, int]) -> None:
    reference = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is not installed")
    x, x_hat = pictures(size)
    measure = reference.multiscale_structural_similarity_index_measure
    wanted = measure(x_hat, x, data_range=1.0, reduction="none")
    torch.testing.assert_close(ms_ssim(x, x_hat), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(2))


def test_ms_ssim_refuses_small_pictures() -> None:
    with pytest.raises(InputError, match="at least 176"):
        ms_ssim(torch.rand(1, 3, 175, 200), torch.rand(1, 3, 175, 200))


def test_measures_take_half_precision() -> None:
    x, x_hat = pictures((16, 16))
    torch.testing.assert_close(ssim(x.bfloat16(), x_hat.bfloat16()), ssim(x, x_hat), rtol=0, atol=0.03)
    assert psnr(x.bfloat16(), x_hat.bfloat16()).dtype == torch.float32


def test_codebook_use_equals_numpy() -> None:
    tokens, use = batch(), CodebookUse(TWO_STREAMS)
    for i in range(0, 6, 2):
        part = Tokens(
            TWO_STREAMS, tuple(c[i : i + 2] for c in tokens.streams), tokens.size[i : i + 2],
            tuple(n[i : i + 2] for n in tokens.lengths or ()),
        )
        use.update(part)
    found = {(u.stream, u.codebook): u for u in use.result()}
    assert set(found) == {("coarse", 0), ("fine", 0), ("fine", 1)}
    for (name, k), u in found.items():
        s = ["coarse", "fine"].index(name)
        valid = [tokens.streams[s][i, k, : int(n)].flatten() for i, n in enumerate(tokens.stream_lengths(s))]
        counts = np.bincount(torch.cat(valid).numpy(), minlength=u.vocab_size)
        p = counts[counts > 0] / counts.sum()
        assert len(counts) == u.vocab_size == TWO_STREAMS.streams[s].vocab_sizes[k]
        assert u.codes == counts.sum() and u.share == pytest.approx((counts > 0).mean())
        assert u.bits == pytest.approx(-(p * np.log2(p)).sum()) and u.perplexity == pytest.approx(2**u.bits)


def test_codebook_use_of_uniform_single_and_no_codes() -> None:
    use = CodebookUse(ONE_STREAM)
    (nothing,) = use.result()
    assert (nothing.codes, nothing.share, nothing.bits, nothing.perplexity) == (0, 0.0, 0.0, 1.0)
    codes = torch.arange(8).view(2, 1, 4)
    use.update(Tokens(ONE_STREAM, (codes,), torch.ones(2, 2, dtype=torch.int64)))
    (uniform,) = use.result()
    assert (uniform.share, uniform.bits, uniform.perplexity) == (1.0, 3.0, 8.0)
    use.reset()
    use.update(Tokens(ONE_STREAM, (codes // 8,), torch.ones(2, 2, dtype=torch.int64)))
    (single,) = use.result()
    assert (single.codes, single.share, single.bits) == (8, 1 / 8, 0.0)
    assert not use.state_dict()


def test_codebook_use_counts_prefixes() -> None:
    use = CodebookUse(TWO_STREAMS)
    use.update(batch().prefix(streams=1))
    assert [u.codes for u in use.result()] == [12, 0, 0]
    use.update(batch().prefix(codebooks=1))
    assert [u.codes for u in use.result()] == [24, 16, 0]


def test_nominal_bits_count_valid_positions_of_what_is_there() -> None:
    tokens = batch()
    per_row = 2 * (3 + math.log2(5))
    wanted = [n * 2 + rows * per_row for n, rows in zip([3, 1, 2, 3, 0, 3], [2, 1, 2, 0, 1, 2], strict=True)]
    assert nominal_bits(tokens).tolist() == pytest.approx(wanted)
    coarse = [n * 2 + rows * 2 * 3 for n, rows in zip([3, 1, 2, 3, 0, 3], [2, 1, 2, 0, 1, 2], strict=True)]
    assert nominal_bits(tokens.prefix(codebooks=1)).tolist() == coarse
    assert bits_per_pixel(tokens).tolist() == pytest.approx([w / 32 for w in wanted])
    prefix = Tokens(ONE_STREAM, (torch.zeros(2, 1, 4, dtype=torch.int64),), torch.tensor([[2, 3], [2, 3]])).prefix(
        positions=[1, 3]
    )
    assert nominal_bits(prefix).tolist() == [3.0, 9.0]


def test_frechet_distance_of_commuting_and_rotated_gaussians() -> None:
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 1.0, 9.0])
    mean = torch.tensor([1.0, 0.0, -2.0])
    wanted = 5.0 + float((a.sqrt() - b.sqrt()).square().sum())
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    found = frechet_distance(mean, torch.diag(a), torch.zeros(3), torch.diag(b))
    assert found == pytest.approx(wanted, rel=1e-12)
    rotated = [turn @ torch.diag(v).double() @ turn.T for v in (a, b)]
    assert frechet_distance(turn @ mean.double(), rotated[0], torch.zeros(3), rotated[1]) == pytest.approx(wanted)
    singular = torch.zeros(3, 3)  # as when there are fewer pictures than features
    assert frechet_distance(mean, singular, mean, torch.diag(a)) == pytest.approx(14.0)


def test_frechet_distance_does_not_need_commuting_covariances() -> None:
    torch.manual_seed(0)
    a, b = (m @ m.T for m in torch.randn(2, 4, 4, dtype=torch.float64))
    root = torch.linalg.eigvals(a @ b).real.clamp_min(0).sqrt().sum()  # the definition: trace (A B)^(1/2)
    zero = torch.zeros(4)
    assert frechet_distance(zero, a, zero, b) == pytest.approx(float(a.trace() + b.trace() - 2 * root))


def test_gaussian_equals_numpy_whatever_the_batches() -> None:
    features = torch.randn(50, 6) + 1000  # a large mean would spoil float32 sums
    gaussian = Gaussian(6)
    for part in features.split(7):
        gaussian.update(part)
    mean, covariance = gaussian.moments()
    np.testing.assert_allclose(mean.numpy(), features.double().mean(0).numpy())
    np.testing.assert_allclose(covariance.numpy(), np.cov(features.double().numpy().T), rtol=1e-6)
    with pytest.raises(InputError, match="at least 2"):
        Gaussian(6).moments()


class Colours(nn.Module):
    """Mean and spread of each channel, out of 8-bit pictures."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8
        return torch.cat([x.double().mean((2, 3)), x.double().std((2, 3))], 1)


def test_reconstruction_fid_is_zero_for_equals_and_grows() -> None:
    torch.manual_seed(0)
    x = torch.rand(40, 3, 8, 8)
    found = []
    for noise in (0.0, 0.1, 0.3):
        fid = ReconstructionFID(Colours(), dim=6)
        for part in x.split(9):
            fid.update(part, part + noise)  # clamped, as a file would
        found.append(fid.result())
    assert found[0] == pytest.approx(0, abs=1e-4) and 1 < found[1] < found[2]


def test_inception_asks_for_its_file() -> None:
    for path in (None, "nowhere.pth"):
        with pytest.raises(MissingError, match="curl -LO https://github"):
            inception.Inception(path)


def test_inception_pools_and_resizes_as_tensorflow_did(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {k: 0.05 * torch.randn(v.shape) for k, v in inception.network().state_dict().items()}
    state = {k: v.abs() + 0.5 if "running_var" in k or k.endswith("bn.weight") else v for k, v in state.items()}
    state = {k: v.new_zeros((), dtype=torch.int64) if "tracked" in k else v for k, v in state.items()}
    torch.save(state, tmp_path / "inception.pth")
    net = inception.Inception(tmp_path / "inception.pth")
    features = net(torch.randint(0, 256, (1, 3, 40, 30), dtype=torch.uint8))
    assert features.shape == (1, 2048) and features.isfinite().all() and features.std() > 0
    ramp = torch.arange(100.0).expand(1, 3, 100, 100)
    wanted = (torch.arange(299) * (100 / 299)).clamp(max=99)  # corners at 0, the edge repeated
    torch.testing.assert_close(inception.resize(ramp)[0, 0, 0], wanted)
    corner = inception.average(torch.ones(1, 1, 3, 3))
    torch.testing.assert_close(corner, torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize("measure", [psnr, ssim, ms_ssim])
def test_autocast_changes_no_measure(measure: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Validation runs under the trainer's autocast: in bfloat16, variances of small areas are lost."""
    x = torch.nn.functional.interpolate(torch.rand(2, 3, 24, 24), size=192, mode="bilinear")
    y = (x + 0.05 * torch.nn.functional.interpolate(torch.randn(2, 3, 48, 48), size=192)).clamp(0, 1)
    wanted = measure(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        found = measure(x, y)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
