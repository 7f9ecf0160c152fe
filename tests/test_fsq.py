"""Scalar quantizers: FSQ with both bounds, factorised and residual, and post-training dimension-wise quantization."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from in_ranks import in_ranks
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.quantizers import fsq
from codeczoo.quantizers.dimensionwise import Dimensionwise, normal_centroids
from codeczoo.quantizers.dimensionwise_fit import Extremes, Fit, Moments, Quantiles
from codeczoo.quantizers.dropout import UniformDepth
from codeczoo.quantizers.estimators import Estimator, Rotation, StraightThrough
from codeczoo.quantizers.fsq import FSQ, FactorisedFSQ, FactorisedSymmetricFSQ, SymmetricFSQ
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.residual_fsq import ResidualFSQ
from codeczoo.quantizers.tokenwise import Tokenwise

KINDS = {
    "fsq": lambda: FSQ([8, 6, 5]),
    "symmetric": lambda: SymmetricFSQ([2, 4, 5]),
    "factorised": lambda: FactorisedFSQ([7, 5, 8]),
    "factorised symmetric": lambda: FactorisedSymmetricFSQ([2, 3, 9]),
    "beyond float32": lambda: FSQ([4099, 4099, 4099]),
    "residual": lambda: ResidualFSQ([8, 5, 2], 4),
    "residual, one layer": lambda: ResidualFSQ([3, 3, 3], 1),
    "not rescaled": lambda: Residual([FSQ([8, 6, 5]) for _ in range(3)]),
    "dimension-wise": lambda: Dimensionwise(3),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=KINDS)
def quantizer(request: pytest.FixtureRequest) -> Tokenwise:
    return KINDS[request.param]()


@pytest.mark.parametrize("shape", [(2, 3, 11), (2, 3, 4, 5), (1, 3, 2, 3, 4), (2, 3, 0)], ids=str)
def test_forward_value_is_exactly_the_decoded_code(quantizer: Tokenwise, shape: tuple[int, ...]) -> None:
    z = torch.randn(shape) * 2
    for mode in (True, False):
        q = quantizer.train(mode)(z)
        assert q.codes.shape == (shape[0], len(quantizer.vocab_sizes), *shape[2:]) and q.codes.dtype == torch.int64
        assert torch.equal(q.z, quantizer.decode(q.codes)) and torch.equal(q.codes, quantizer.encode(z))
        sizes = torch.tensor(quantizer.vocab_sizes).view(1, -1, *[1] * (len(shape) - 2))
        assert ((q.codes >= 0) & (q.codes < sizes)).all() and q.losses == {}


def test_extreme_latents_have_codes_in_range(quantizer: Tokenwise) -> None:
    z = torch.tensor([0.0, -0.0, 1e-30, 1e4, -1e4, 1e30, -1e30, math.inf, -math.inf, math.nan]).expand(1, 3, -1)
    codes = quantizer.encode(z)
    assert ((codes >= 0) & (codes < torch.tensor(quantizer.vocab_sizes)[:, None])).all()
    assert quantizer.decode(codes).isfinite().all()
    some = torch.where(torch.rand(1, 3, 10) < 0.5, z, 0.3)  # some channels only
    codes = quantizer.encode(some)
    assert ((codes >= 0) & (codes < torch.tensor(quantizer.vocab_sizes)[:, None])).all()


@pytest.mark.parametrize("padding", [1e4, math.nan, math.inf])
def test_masked_positions_count_nowhere(quantizer: Tokenwise, padding: float) -> None:
    z, valid, weight = torch.randn(3, 3, 9), torch.rand(3, 9) > 0.4, torch.randn(3, 3, 9)
    valid[1] = False
    clean = torch.where(valid[:, None], z, 0.0).requires_grad_()
    dirty = torch.where(valid[:, None], z, padding).requires_grad_()
    a, b = quantizer(clean, valid), quantizer(dirty, valid)
    assert torch.equal(a.z, b.z) and torch.equal(a.codes, b.codes)
    (a.z * weight).sum().backward()
    (b.z * weight).sum().backward()
    assert torch.equal(clean.grad, dirty.grad) and clean.grad.movedim(1, -1)[valid].all()
    assert not dirty.grad.movedim(1, -1)[~valid].any() and not b.z.movedim(1, -1)[~valid].any()
    assert torch.equal(a.codes.movedim(1, -1)[valid], quantizer.encode(z).movedim(1, -1)[valid])


def test_float32_under_autocast_and_after_casts(quantizer: Tokenwise) -> None:
    z = (torch.randn(4, 3, 500) * 2).bfloat16()
    wanted = quantizer(z.float())
    for cast in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        quantizer.to(cast)
        with torch.autocast("cpu", torch.bfloat16):
            q = quantizer(z)
            assert torch.equal(quantizer.encode(z), wanted.codes) and torch.equal(q.codes, wanted.codes)
            assert torch.equal(quantizer.decode(q.codes), wanted.z)
        assert torch.equal(q.z, wanted.z.bfloat16())


def test_compiles_without_breaks(quantizer: Tokenwise) -> None:
    z, valid = torch.randn(2, 3, 6), torch.rand(2, 6) > 0.3
    torch.compiler.reset()
    whole = {"fullgraph": True, "dynamic": False, "backend": "aot_eager"}
    for mode in (True, False):
        quantizer.train(mode)
        wanted = quantizer(z, valid)
        got = torch.compile(quantizer, **whole)(z, valid)
        assert torch.equal(got.codes, wanted.codes) and torch.equal(got.z, wanted.z)
    assert torch.equal(torch.compile(quantizer.encode, **whole)(z), quantizer.encode(z))
    assert torch.equal(torch.compile(quantizer.decode, **whole)(wanted.codes), quantizer.decode(wanted.codes))


def test_wrong_widths_are_refused(quantizer: Tokenwise) -> None:
    for channels in (1, 4):
        with pytest.raises(InputError, match=f"got {channels}"):
            quantizer(torch.randn(2, channels, 5))
        with pytest.raises(InputError, match=f"got {channels}"):
            quantizer.encode(torch.randn(2, channels, 5))
    with pytest.raises(InputError):
        quantizer.decode(torch.zeros(2, len(quantizer.vocab_sizes) + 1, 5, dtype=torch.int64))


# --- FSQ ---

# Made with vector-quantize-pytorch 1.32: the codes of `ladder`, and the values of its row 3.
GOLDEN = [
    (FSQ([8, 5, 5, 5]), [680, 978, 237, 647, 937, 197, 447, 929, 187, 238, 688, 186], [0.75, -1, -0.5, 0.5]),
    (
        FSQ([7, 5, 5, 5, 5]),
        [4095, 855, 1957, 4066, 820, 1046, 3016, 812, 1039, 2833, 4102, 163],
        [1, -1, -0.5, 0.5, 1],
    ),
    (
        FSQ([8, 8, 8, 5, 5, 5]),  # Cosmos, FlexTok
        [11976, 15274, 44093, 11919, 15257, 41461, 59975, 2385, 28659, 59518, 12040, 26090],
        [0.75, -0.75, -0.5, 0.5, 1, -1],
    ),
    (SymmetricFSQ([8, 5, 4]), [40, 137, 37, 47, 97, 156, 7, 88, 147, 38, 88, 146], [1, -1, -1 / 3]),
    (SymmetricFSQ([2, 3, 4, 2]), [30, 44, 5, 31, 38, 23, 25, 38, 22, 5, 36, 20], [1, -1, -1 / 3, 1]),
    (
        ResidualFSQ([8, 5, 5, 3], 3),
        [480, 34, 363, 577, 439, 161, 37, 461, 129, 247, 500, 349, 537, 321, 515, 196, 324, 357,
         247, 210, 266, 528, 221, 349, 187, 307, 178, 238, 150, 268, 488, 83, 490, 186, 42, 550],
        [1.0245537, -0.98, -0.48, 1 / 3],
    ),
]


def ladder(d: int) -> Tensor:
    """z (1, d, 12), multiples of 1/6."""
    i = torch.arange(12).view(-1, 1)
    return (((i * 7 + torch.arange(d) * 5) % 23 - 11).float() / 6).t()[None]


@pytest.mark.parametrize(("quantizer", "codes", "values"), GOLDEN, ids=lambda v: type(v).__name__)
def test_golden_codes(quantizer: Tokenwise, codes: list[int], values: list[float]) -> None:
    q = quantizer(ladder(quantizer.dim))
    assert q.codes[0].t().flatten().tolist() == codes
    assert torch.allclose(q.z[0, :, 3], torch.tensor(values), atol=1e-6)


PACKED = [
    FSQ([8, 6, 5]),
    FSQ([7, 5, 5, 5, 5]),
    SymmetricFSQ([2] * 14),
    SymmetricFSQ([2, 3, 5, 8, 9]),
    FSQ([26, 38, 42]),  # L // 2 in 13, 19, 21, 23, 25, 49: floats that are cut off instead of rounded lose codes
    FSQ([27, 39, 43]),
    FSQ([46, 50, 98]),
    FSQ([47, 51, 99]),
    SymmetricFSQ([26, 43, 98]),
    FSQ([8] * 9),  # 2^27
    SymmetricFSQ([2] * 31),
    FSQ([46341, 46341]),  # just beyond 2^31
    FSQ([65536] * 3 + [4] * 7),  # 2^62
]


@pytest.mark.parametrize("quantizer", PACKED, ids=lambda q: "x".join(map(str, q.levels.tolist()[:5])))
def test_every_code_round_trips(quantizer: FSQ) -> None:
    (size,), levels = quantizer.vocab_sizes, quantizer.levels.tolist()
    assert size == math.prod(levels)
    corners = torch.tensor([0, 1, size // 2, size - 2, size - 1])
    codes = torch.arange(size) if size <= 1 << 16 else torch.cat([corners, torch.randint(size, (20000,))])
    value = quantizer.decode(codes[None, None])
    assert torch.equal(quantizer.codes_of(value)[0, 0], codes) and value.abs().max() <= 1
    steps = quantizer.unpack(codes[:, None])
    assert torch.equal(quantizer.pack(steps)[:, 0], codes)
    for row, code in zip(steps[:2000].tolist(), codes[:2000].tolist(), strict=True):
        rest = code
        for level, digit in zip(levels, row, strict=True):  # the first channel is the fastest
            rest, wanted = divmod(rest, level)
            assert digit == wanted


def test_factorised_codes_are_the_digits() -> None:
    z = torch.randn(2, 4, 50)
    for one, each in ((FSQ, FactorisedFSQ), (SymmetricFSQ, FactorisedSymmetricFSQ)):
        packed, single = one([8, 5, 3, 6]), each([8, 5, 3, 6])
        assert single.vocab_sizes == (8, 5, 3, 6)
        digits = packed.unpack(packed.encode(z).flatten()[:, None])
        assert torch.equal(digits, single.encode(z).movedim(1, -1).flatten(0, 1))
        assert torch.equal(packed(z).z, single(z).z) and torch.equal(single.codes_of(single(z).z), single.encode(z))
    many = FactorisedFSQ([8] * 64)  # 2^192 codes in one would not fit
    q = many(torch.randn(1, 64, 3))
    assert torch.equal(many.decode(q.codes), q.z)


def test_bound_is_that_of_the_paper() -> None:
    """In float64, written out per channel; and its slope is the gradient that arrives."""
    z = torch.randn(2, 3, 40)
    weight = torch.randn_like(z)
    for symmetric, quantizer in ((False, FSQ([8, 5, 4])), (True, SymmetricFSQ([8, 5, 2]))):
        x = z.double().requires_grad_()
        parts = []
        for channel, level in zip(x.unbind(1), quantizer.levels.tolist(), strict=True):
            if symmetric:
                bounded = channel.tanh()
                parts.append((bounded, 2 / (level - 1) * ((level - 1) * (bounded + 1) / 2 + 0.5).floor() - 1))
                continue
            half, offset = (level - 1) * 1.001 / 2, 0.5 if level % 2 == 0 else 0.0
            bounded = (channel + math.atanh(offset / half)).tanh() * half - offset
            parts.append((bounded / (level // 2), bounded.round() / (level // 2)))
        bounded, value = (torch.stack(p, 1) for p in zip(*parts, strict=True))
        (bounded * weight).sum().backward()
        given = z.clone().requires_grad_()
        q = quantizer(given)
        (q.z * weight).sum().backward()
        assert torch.allclose(q.z.double(), value, atol=1e-6)
        assert torch.allclose(given.grad.double(), x.grad, rtol=1e-4, atol=1e-5)
        rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(quantizer.bound, rows)

    layer = ResidualFSQ([8, 5, 2], 3).layers[2]
    for quantizer in (FSQ([8, 5, 4]), SymmetricFSQ([8, 5, 2]), layer):
        latent = quantizer.bound(rows) / quantizer.span
        torch.testing.assert_close(torch.autograd.grad(latent.sum(), rows)[0], quantizer.slope(rows))


class Plainly(Estimator):
    """Straight through, but nothing that a quantizer knows to do in one pass."""

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        return StraightThrough()(x, value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["fsq", "symmetric", "factorised", "beyond float32"])
def test_one_pass_is_what_autograd_makes_of_the_formulas(kind: str, dtype: torch.dtype) -> None:
    ours, plain = KINDS[kind](), KINDS[kind]()
    plain.estimator = Plainly()
    for shape in ((3, 3, 20), (2, 3, 4, 5), (2, 3), (1, 3, 0)):
        z, weight = torch.randn(shape, dtype=dtype) * 2, torch.randn(shape, dtype=dtype)
        some = torch.rand(shape[:1] + shape[2:]) > 0.5
        for valid in (None, some):
            for strided in (False, True):  # channels last in memory too
                given = [z.movedim(1, -1).contiguous().movedim(-1, 1) if strided else z.clone() for _ in range(2)]
                if valid is not None:
                    given = [torch.where(valid[:, None], x, math.nan) for x in given]
                found = []
                for quantizer, x in zip((ours, plain), given, strict=True):
                    q = quantizer(x.requires_grad_(), valid)
                    (q.z * weight).sum().backward()
                    found.append([q.z.detach(), q.codes, x.grad])
                torch.testing.assert_close(*found, rtol=1e-2 if dtype is torch.bfloat16 else 1e-5, atol=1e-6)


def test_training_keeps_nothing_but_the_latents() -> None:
    kept: list[Tensor] = []
    z = torch.randn(2, 6, 50, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x), x)[1], lambda x: x):
        FSQ([8, 8, 8, 5, 5, 5])(z)
    assert [x.data_ptr() for x in kept] == [z.data_ptr()]


@pytest.mark.parametrize("make", [FSQ, SymmetricFSQ, FactorisedFSQ])
def test_other_estimators_get_latent_and_value(make: type[FSQ]) -> None:
    quantizer, z = make([8, 5, 4], Rotation()), torch.randn(2, 3, 9, requires_grad=True)
    q = quantizer(z)
    q.z.sum().backward()
    straight = make([8, 5, 4])(given := z.detach().requires_grad_())
    straight.z.sum().backward()
    assert torch.equal(q.z, straight.z) and torch.equal(q.codes, straight.codes)
    assert not torch.allclose(z.grad, given.grad) and z.grad.isfinite().all()


@pytest.mark.parametrize("make", [FSQ, FactorisedSymmetricFSQ])
def test_encode_is_the_same_in_any_chunking(make: type[FSQ], monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, z = make([8, 6, 5]), torch.randn(5, 3, 7, 2)
    whole = quantizer.encode(z)
    for chunk in (1, 84, 100):  # one sample at a time; two, three times
        monkeypatch.setattr(fsq, "CHUNK", chunk)
        assert torch.equal(quantizer.encode(z), whole) and torch.equal(quantizer(z).codes, whole)


def test_symmetric_levels_are_symmetric() -> None:
    for level in (2, 3, 4, 7, 8, 43, 98):
        values = SymmetricFSQ([level]).decode(torch.arange(level).view(1, 1, -1)).flatten()
        assert torch.equal(values, -values.flip(0)) and values[-1] == 1
    z = torch.randn(1, 3, 1000)
    quantizer = SymmetricFSQ([2, 4, 5])
    assert torch.equal(quantizer(-z).z, -quantizer(z).z)


@pytest.mark.parametrize("make", [FSQ, SymmetricFSQ])
def test_normal_latents_use_all_codes(make: type[FSQ]) -> None:
    for levels in ([8, 6, 5], [5, 5, 5], [8, 5, 5, 5]):
        codes = make(levels).encode(torch.randn(1, len(levels), 60000))
        assert len(codes.unique()) >= 0.99 * math.prod(levels)


def test_many_levels_stay_in_range() -> None:
    """The bound of the paper reaches beyond the last level from 1001 levels on."""
    z = torch.tensor([[[-50.0, 0.0, 50.0]]])
    for level in (1000, 1001, 5000, 65536):
        assert FSQ([level]).encode(z).flatten().tolist() == [0, level // 2, level - 1]


def test_impossible_levels_are_refused() -> None:
    for make, wrong in ((FSQ, [2, 65537, 4.5]), (SymmetricFSQ, [1, -3]), (FactorisedFSQ, [2])):
        for levels in ([], *([8, n] for n in wrong)):
            with pytest.raises(ConfigError, match="levels must be"):
                make(levels)
    assert FSQ([4] * 31).vocab_sizes == (1 << 62,)
    for levels in ([4] * 30 + [5], [4] * 31 + [3]):
        with pytest.raises(ConfigError, match=r"2\^62"):
            FSQ(levels)


# --- residual ---


@pytest.mark.parametrize("layers", [1, 2, 5, 8])
def test_residual_gradient_has_gain_one(layers: int) -> None:
    z, weight = torch.randn(2, 3, 30, requires_grad=True), torch.randn(2, 3, 30)
    plain = Residual([FSQ([8, 5, 5]) for _ in range(layers)])
    (plain(z).z * weight).sum().backward()
    assert torch.equal(z.grad, weight)
    z.grad = None
    quantizer = ResidualFSQ([8, 5, 5], layers)
    (quantizer(z).z * weight).sum().backward()
    limit = torch.tensor([8 / 7, 5 / 4, 5 / 4])[:, None]
    slope = 1 - (z.detach() / limit).tanh().square()  # of the soft clamp, once
    assert torch.allclose(z.grad, weight * slope, atol=1e-6)


def test_residual_layers_refine() -> None:
    """Each layer leaves at most the reach of the next; any prefix decodes; dropped layers add nothing."""
    z = torch.randn(4, 3, 200) * 2
    quantizer = ResidualFSQ([8, 5, 2], 5, UniformDepth())
    levels = torch.tensor([8.0, 5.0, 2.0])[:, None]
    limit = levels / (levels - 1)
    clamped, codes = (z / limit).tanh() * limit, quantizer.encode(z)
    for n in range(1, 6):
        assert torch.equal(quantizer.encode(z, n_codebooks=n), codes[:, :n])
        error = (quantizer.decode(codes[:, :n]) - clamped).abs().amax(2)
        assert (error <= limit[:, 0] * levels[:, 0] ** -n + 1e-6).all()
        assert len(codes[:, n - 1].unique()) >= 0.97 * 80
    q = quantizer(z)
    for i, depth in enumerate(q.depth.tolist()):
        assert torch.equal(q.z[i], quantizer.decode(codes[i : i + 1, :depth])[0])
        assert torch.equal(q.codes[i, :depth], codes[i, :depth]) and not q.codes[i, depth:].any()


def test_residual_without_rescaling_is_that_of_cosmos() -> None:
    z = torch.randn(1, 3, 200)
    quantizer, layer = Residual([FSQ([8, 6, 5]) for _ in range(3)]), FSQ([8, 6, 5])
    rest, total = z, 0.0
    for k in range(3):
        part = layer(rest)
        assert torch.equal(part.codes, quantizer.encode(z)[:, k : k + 1])
        rest, total = rest - part.z, total + part.z
    assert torch.equal(quantizer(z).z, total)


def test_residual_beyond_float32_is_refused() -> None:
    assert len(ResidualFSQ([8], 9).vocab_sizes) == 9
    for layers in (0, 10):
        with pytest.raises(ConfigError, match="n_layers"):
            ResidualFSQ([3, 8], layers)


# --- dimension-wise ---


def centroids(levels: int, width: float) -> np.ndarray:
    """Conditional means by summing a fine grid, numpy only."""
    x = np.linspace(-9, 9, 3_600_001)
    mass = np.exp(-x * x / 2)
    share = np.cumsum(mass) / mass.sum()
    ends = np.interp(np.arange(1, levels) / levels, share, x)
    ends = np.array([-width, *ends, width])
    return np.array([np.average(x[m], weights=mass[m]) for m in ((x >= a) & (x < b) for a, b in pairwise(ends))])


def test_dimensionwise_is_that_of_tokenbridge() -> None:
    place = centroids(64, 3.0)
    quantizer = Dimensionwise(4)
    assert np.allclose(quantizer.entries.numpy(), place / 3 * 5, atol=2e-5)
    assert quantizer.vocab_sizes == (64,) * 4
    z = torch.randn(2, 4, 6, 5) * 3
    scaled = np.clip((z.numpy() + 5) / 10 * 6 - 3, -3, 3)
    distance = np.abs(scaled[..., None] - np.array(normal_centroids(64, 3.0)))
    two = np.sort(distance, -1)
    clear = two[..., 1] - two[..., 0] > 1e-5
    assert (quantizer.encode(z).numpy() == distance.argmin(-1))[clear].all() and clear.mean() > 0.99
    codes = torch.arange(64).expand(1, 4, -1)
    assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)
    x = z.clone().requires_grad_()
    quantizer(x).z.sum().backward()
    assert (x.grad == 1).all() and not list(quantizer.parameters())


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.size = max(self.size, out.numel())
        return out


def test_nothing_of_all_levels_is_held(quantizer: Tokenwise) -> None:
    z = torch.randn(1, 3, 500)
    with Largest() as largest:
        quantizer(z)
        quantizer.decode(quantizer.encode(z))
    assert largest.size <= 500 * max(3, len(quantizer.vocab_sizes))


BATCHES = [torch.randn(2, 3, 70, generator=torch.Generator().manual_seed(i)) for i in range(3)]
SPREAD = torch.tensor([1.0, 5.0, 0.01])[:, None]


def fitted(make: type[Fit], padding: float) -> tuple[Dimensionwise, np.ndarray]:
    """A quantizer of 8 levels fitted to masked batches, and the numbers that count (n, 3)."""
    quantizer, kept = Dimensionwise(3, 8), []
    fit = make(quantizer)
    for i, z in enumerate(BATCHES):
        z = z * SPREAD + 2 * SPREAD.flip(0)
        valid = torch.rand(2, 70, generator=torch.Generator().manual_seed(9 + i)) > 0.3
        kept.append(z.movedim(1, -1)[valid].double().numpy())
        fit.observe(torch.where(valid[:, None], z, padding), valid)
    fit.finish()
    return quantizer, np.concatenate(kept)


@pytest.mark.parametrize("padding", [1e4, math.nan, math.inf])
def test_fits_are_those_of_numpy(padding: float) -> None:
    place = np.array(normal_centroids(8, 3.0)) / 3
    quantizer, x = fitted(Extremes, padding)
    middle, reach = (x.max(0) + x.min(0)) / 2, (x.max(0) - x.min(0)) / 2
    assert np.allclose(quantizer.entries.numpy(), (middle + place[:, None] * reach).T, rtol=1e-6)
    quantizer, x = fitted(Moments, padding)
    assert np.allclose(quantizer.entries.numpy(), (x.mean(0) + place[:, None] * 3 * x.std(0)).T, rtol=1e-6)
    quantizer, x = fitted(Quantiles, padding)
    wanted = np.quantile(x, (np.arange(8) + 0.5) / 8, axis=0, method="inverted_cdf").T
    assert np.allclose(quantizer.entries.numpy(), wanted, rtol=1 / 128, atol=0)


def test_fitted_values_suit_the_latents() -> None:
    """Any channel of any scale gets an error of a good share of its own spread; state travels in the checkpoint."""
    for make, most in ((Extremes, 0.01), (Moments, 0.01), (Quantiles, 0.01)):
        z = torch.randn(1, 3, 20000) * SPREAD - 3
        quantizer = Dimensionwise(3)
        fit = make(quantizer)
        fit.observe(z)
        fit.finish()
        error = (quantizer(z).z - z).square().mean((0, 2)) / SPREAD.flatten().square()
        assert (error < most).all(), (make, error)
        assert all(len(c.unique()) == 64 for c in quantizer.encode(z)[0])
        again = Dimensionwise(3)
        again.load_state_dict(quantizer.state_dict())
        assert torch.equal(again(z).z, quantizer(z).z)


@pytest.mark.parametrize("make", [Extremes, Moments, Quantiles])
def test_fits_to_nothing_and_to_one_number(make: type[Fit]) -> None:
    quantizer = Dimensionwise(2, 4)
    before = quantizer.entries.clone()
    with pytest.raises(InputError, match="finite"):
        make(quantizer).finish()
    assert torch.equal(quantizer.entries, before)
    fit = make(quantizer)
    fit.observe(torch.full((1, 2, 50), 0.75))
    fit.finish()
    assert torch.allclose(quantizer(torch.full((1, 2, 5), 0.75)).z, torch.tensor(0.75), rtol=1 / 128)
    with pytest.raises(InputError, match="channels"):
        fit.observe(torch.randn(1, 3, 5))


def entries_fitted(rank: int, world: int) -> list[list[list[float]]]:
    """For each fit, entries after it saw the data divided over the ranks, and all of it on the first."""
    z = torch.randn(1, 3, 90, generator=torch.Generator().manual_seed(0))
    parts = [[z[..., :13], z[..., 13:40]], [], [z[..., 40:]]]  # unequal, one rank without any
    out = []
    for make in (Extremes, Moments, Quantiles):
        quantizers = [Dimensionwise(3, 8), Dimensionwise(3, 8)]
        fits = [make(q) for q in quantizers]
        for part in parts[rank]:
            fits[0].observe(part)
        fits[0].finish()
        if rank == 0:
            fits[1].observe(z)
        fits[1].finish()
        out.append([q.entries.tolist() for q in quantizers])
    return out


def test_fits_do_not_depend_on_ranks(tmp_path: Path) -> None:
    (results,) = in_ranks(entries_fitted, (3,), tmp_path)
    assert results[0] == results[1] == results[2]
    for divided, whole in results[0]:
        assert np.allclose(divided, whole, rtol=1e-6, atol=0)


def test_impossible_dimensionwise_arguments_are_refused() -> None:
    assert len(normal_centroids(740, 3.0)) == 740
    for wrong in ({"levels": 1}, {"levels": 741}, {"low": 5.0}, {"width": 0.0}, {"dim": 0}):
        with pytest.raises(ConfigError, match="got"):
            Dimensionwise(**({"dim": 3} | wrong))
