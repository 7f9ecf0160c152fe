"""What every quantizer promises, for every case of quantizer_cases.py. P1..P22: the list of the issue's fact sheet."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from quantizer_cases import (
    CASES,
    MASKS,
    PRECISIONS,
    SHAPES,
    built,
    decoded,
    latents,
    mask,
    names,
    ready,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from codeczoo.core.base import Quantizer
from codeczoo.core.types import Quantized, StreamSpec, Tokens, TokenSpec
from codeczoo.metrics.codebook import CodebookUse
from codeczoo.quantizers.tally import update

every_case = pytest.mark.parametrize("name", CASES)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def seeded(quantizer: Quantizer, *given: Any) -> Quantized:
    """One forward whose random numbers, if it draws any, are always the same."""
    torch.manual_seed(3)
    return quantizer(*given)


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(losses.values(), torch.zeros(()))


# --- values, codes, types -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
@every_case
def test_p2_p17_value_is_exactly_the_decoded_codes(name: str, shape: str, precision: str, kind: str) -> None:
    quantizer, z = ready(name), latents(shape)
    if precision == "bfloat16":
        z = z.bfloat16()
    valid = mask(kind, z)
    keep = torch.ones(z.shape[0], 1, *z.shape[2:], dtype=torch.bool) if valid is None else valid[:, None]
    for training in (True, False):
        quantizer.train(training)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            q = seeded(quantizer, z, valid)
            codes, value = quantizer.encode(z), decoded(quantizer, q.codes, q.depth)
        assert q.z.dtype == z.dtype and q.z.shape == z.shape and value.dtype == torch.float32
        if not training or "exact" not in CASES[name].excused:
            assert torch.equal(q.z, torch.where(keep, value, 0.0).to(z.dtype))
        limits = torch.tensor(quantizer.vocab_sizes).view(1, -1, *[1] * (z.ndim - 2))
        assert q.codes.dtype == codes.dtype == torch.int64
        assert q.codes.shape == codes.shape == (z.shape[0], len(quantizer.vocab_sizes), *z.shape[2:])
        assert (q.codes >= 0).all() and (q.codes < limits).all()
        assert not q.z[~keep.expand_as(z)].any() and not q.codes[~keep.expand_as(q.codes)].any()
        for value in q.losses.values():
            assert value.ndim == 0 and value.dtype == torch.float32 and value.isfinite()
        if not training:
            assert torch.equal(torch.where(keep, codes, 0), q.codes)
            assert torch.equal(codes, quantizer.encode(z.float())), "what is chosen must not depend on the precision"


@pytest.mark.parametrize("name", names("round trip"))
def test_p1_p3_every_code_round_trips(name: str) -> None:
    quantizer = ready(name).eval()
    generator = torch.Generator().manual_seed(0)
    some = [torch.cat([torch.tensor([0, v - 1]), torch.randint(v, (300,), generator=generator)])
            for v in quantizer.vocab_sizes]
    codes = torch.stack(some)[None]  # (1, K, 302)
    if len(quantizer.vocab_sizes) == 1 and quantizer.vocab_sizes[0] <= 1 << 16:
        codes = torch.arange(quantizer.vocab_sizes[0]).view(1, 1, -1)
    assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)
    codes = quantizer.encode(latents("1d"))
    assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)


@every_case
def test_p13_state_and_choice_stay_float32_in_narrow_modules(name: str) -> None:
    for convert in (nn.Module.half, nn.Module.bfloat16, nn.Module.double):
        quantizer = ready(name).eval()
        before = state(quantizer)
        convert(quantizer)
        assert all(v.dtype in (torch.float32, torch.int64, torch.bool) for v in quantizer.state_dict().values())
        assert same(before, state(quantizer))
        z = latents("1d").bfloat16()
        assert torch.equal(quantizer.encode(z), quantizer.encode(z.float()))
        assert quantizer(z).z.dtype == torch.bfloat16


@every_case
def test_p15_evaluation_draws_nothing_and_changes_nothing(name: str) -> None:
    quantizer, z = ready(name).eval(), latents("1d")
    before, found = state(quantizer), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        generator = torch.get_rng_state()
        found.append((quantizer(z).z, quantizer(z, mask("ragged", z)).codes, quantizer.encode(z)))
        assert torch.equal(torch.get_rng_state(), generator)
        update(quantizer)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert same(before, state(quantizer))


@every_case
def test_p6_tokens_do_not_see_each_other(name: str) -> None:
    quantizer, z = ready(name).eval(), latents((4, ready(name).dim, 30))
    generator = torch.Generator().manual_seed(0)
    order, rows = torch.randperm(30, generator=generator), torch.tensor([2, 0, 3, 1])
    q = quantizer(z)
    assert torch.equal(quantizer(z[:, :, order]).codes, q.codes[:, :, order])
    assert torch.equal(quantizer(z[rows]).z, q.z[rows])
    assert torch.equal(torch.cat([quantizer.encode(one[None]) for one in z]), q.codes)
    for i in (0, 13, 29):
        assert torch.equal(quantizer.encode(z[:1, :, i : i + 1]), q.codes[:1, :, i : i + 1])


# --- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MASKS[1:])
@every_case
def test_p5_masked_positions_count_nowhere(name: str, kind: str) -> None:
    def train(padding: float) -> tuple[Quantized, dict[str, Tensor], Tensor]:
        quantizer, z = ready(name), latents("1d")
        valid = mask(kind, z)
        given = torch.where(valid[:, None], z, padding).requires_grad_()
        for _ in range(2):  # both steps of the rules that act every second step
            q = seeded(quantizer, given, valid)
            update(quantizer)
        (q.z.sum() + total(q.losses)).backward()
        return q, state(quantizer), given.grad

    q, after, grad = train(0.0)
    for padding in (1e4, torch.nan, torch.inf):
        other, state_after, other_grad = train(padding)
        assert torch.equal(other.z, q.z) and torch.equal(other.codes, q.codes) and same(other.losses, q.losses)
        assert same(state_after, after) and torch.equal(other_grad, grad)


@pytest.mark.parametrize("name", names("random"))
def test_p5_masked_equals_the_ragged_rows_alone(name: str) -> None:
    padded, alone, z = ready(name), ready(name), latents("1d")
    valid = mask("empty row", z)
    for _ in range(1 if "untied" in CASES[name].excused else 2):  # both steps of the rules that act every second step
        a, b = padded(z, valid), alone(z.movedim(1, -1)[valid].t()[None])
        update(padded)
        update(alone)
    assert torch.equal(a.codes.movedim(1, -1)[valid], b.codes[0].t())
    torch.testing.assert_close(a.losses, b.losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state(padded), state(alone), rtol=1e-5, atol=1e-6)


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("gain"))
def test_p9_reconstruction_gradient_passes_with_gain_one(name: str) -> None:
    quantizer, z, weight = ready(name), latents("1d").requires_grad_(), latents("1d", seed=1)
    (quantizer(z).z * weight).sum().backward()
    assert torch.equal(z.grad, weight)
    assert not any(p.grad is not None and p.grad.any() for p in quantizer.parameters())


@pytest.mark.parametrize("kind", MASKS[1:])
@every_case
def test_p9_masked_positions_get_no_gradient(name: str, kind: str) -> None:
    quantizer, z = ready(name), latents("1d").requires_grad_()
    valid = mask(kind, z)
    q = seeded(quantizer, z, valid)
    above = torch.where(valid[:, None], 1.0, torch.nan).expand_as(z)  # as from a loss that reads padding
    torch.autograd.backward([q.z, *q.losses.values()], [above, *torch.ones(len(q.losses))])
    assert z.grad.isfinite().all() and not z.grad.movedim(1, -1)[~valid].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in quantizer.parameters())
    assert (z.grad.movedim(1, -1)[valid] != 0).any(1).all()


@pytest.mark.parametrize("name", [n for n in names("random", "commitment") if n.startswith("residual")])
def test_p9_commitment_of_every_layer_reaches_the_latent(name: str) -> None:
    """The gradient is 2 / (tokens D layers) times the sum over layers of what is left after them."""
    quantizer, z = ready(name), latents("1d").requires_grad_()
    q = quantizer(z)
    q.losses["commitment"].backward()
    most = len(quantizer.vocab_sizes)
    left = [z.detach() - quantizer.decode(q.codes[:, : k + 1]) for k in range(most)]
    torch.testing.assert_close(z.grad, sum(left) * 2 / z.numel() / most, rtol=1e-4, atol=1e-7)


# --- scale, size, memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["1e-4", "1e4", "zeros", "constant", "one token", "no token", "no row"])
@every_case
def test_p18_losses_gradients_and_state_stay_finite(name: str, kind: str) -> None:
    quantizer = ready(name)
    d = quantizer.dim
    z = {
        "1e-4": latents((2, d, 50)) * 1e-4,
        "1e4": latents((2, d, 50)) * 1e4,
        "zeros": torch.zeros(2, d, 50),
        "constant": torch.full((2, d, 50), 0.7),
        "one token": latents((1, d, 1)),
        "no token": torch.zeros(2, d, 0),
        "no row": torch.zeros(0, d, 5),
    }[kind].to(torch.float16 if kind == "zeros" else torch.float32)
    for _ in range(3):
        given = z.clone().requires_grad_()
        q = seeded(quantizer, given)
        (q.z.float().sum() + total(q.losses)).backward()
        update(quantizer)
        assert q.z.shape == z.shape and q.z.isfinite().all() and given.grad.isfinite().all()
        assert all(loss.isfinite() for loss in q.losses.values())
        assert all(value.isfinite().all() for value in quantizer.state_dict().values())
        assert quantizer.encode(z).shape == q.codes.shape
    for p in quantizer.parameters():
        assert p.grad is None or p.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["zeros", "constant", "one token", "no token"])
@pytest.mark.parametrize("name", [n for n in CASES if built(n).starting])
def test_p18_starts_from_poor_data(name: str, kind: str) -> None:
    quantizer = built(name)
    d = quantizer.dim
    z = {
        "zeros": torch.zeros(2, d, 9), "constant": torch.full((2, d, 9), 0.7), "one token": latents((1, d, 1)),
        "no token": torch.zeros(2, d, 0),
    }[kind]
    while quantizer.starting:
        quantizer.initialize(z)
    for _ in range(3):
        q = quantizer(z)
        update(quantizer)
        assert all(value.isfinite().all() for value in quantizer.state_dict().values())
        assert all(loss.isfinite() for loss in q.losses.values())


class Largest(TorchDispatchMode):
    """The most numbers that a tensor made inside has."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.untyped_storage().nbytes():
            self.numel = max(self.numel, out.untyped_storage().nbytes() // 4)
        return out


@every_case
def test_p16_no_tensor_of_tokens_by_entries(name: str) -> None:
    torch.manual_seed(0)
    quantizer = CASES[name].build(8192, 4)
    z = torch.randn(4, quantizer.dim, 1024)
    limit = 4096 * 8192 // 16
    with Largest() as made:
        if quantizer.starting:
            for part in quantizer.modules():
                if getattr(part, "start", None) is not None:
                    part.start.iterations = 1
            while quantizer.starting:
                quantizer.initialize(z)
        given = z.requires_grad_()
        q = quantizer(given)
        (q.z.sum() + total(q.losses)).backward()
        update(quantizer)
        quantizer.encode(z)
    assert made.numel <= limit, f"{made.numel} numbers in one tensor"


# --- golden codes ---------------------------------------------------------------------------------------------------

GOLDEN = {  # seed of the latents, hash of the codes
    "vq": (5, "b61b5a8732488e16"),
    "cosine": (5, "030ee61e2a10a159"),
    "angular": (5, "030ee61e2a10a159"),
    "shared mapping": (5, "ca5934e5230af6e6"),
    "residual 3": (5, "8a75153b546d3d82"),
    "residual 8": (15, "0dc876d4c50cbf61"),
    "residual mixed": (5, "b7e19dea3071e47d"),
    "grouped": (5, "e7e56d9d23acf3d9"),
    "lfq": (7, "499d0344fdef1db1"),
    "lfq groups": (7, "46b06bc90173fc35"),
    "bsq": (7, "499d0344fdef1db1"),
    "gq": (7, "46b06bc90173fc35"),
    "residual lfq": (95, "9b2a551891a2760e"),
    "fsq": (5, "815570a5bcfaa3d1"),
    "fsq symmetric": (6, "3450321fdfdf4c61"),
    "fsq factorised": (5, "6e030ddeb0149335"),
    "residual fsq": (95, "15f5fb90c35e067f"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_codes(name: str) -> None:
    """Codes of fixed latents never change.

    Entries and latents are made of integers, so they have the same bits on every machine. Only codes are compared, and
    the latents are such that moving each by about 1e-4, far more than rounding can, leaves all codes: no order of
    summation, vector width or library decides anything.
    """
    quantizer = ready(name, 61).eval()
    seed, golden = GOLDEN[name]
    z = latents((1, quantizer.dim, 40), seed)
    codes = quantizer.encode(z)
    for draw in range(20):
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(draw))
        assert torch.equal(quantizer.encode(z + 1e-4 * noise), codes), "too near a tie: take another seed"
    found = hashlib.sha256(codes.numpy().astype("<i8").tobytes()).hexdigest()[:16]
    assert found == golden, f'"{name}": ({seed}, "{found}")'


# --- metrics --------------------------------------------------------------------------------------------------------


def test_p22_use_of_codebooks_equals_numpy() -> None:
    quantizer = ready("residual mixed").eval()
    z = latents((5, quantizer.dim, 40))
    spec = TokenSpec("audio", "second", (StreamSpec(quantizer.vocab_sizes, ("time",), (None,), 1.0),))
    lengths = torch.tensor([40, 3, 0, 17, 1])
    codes, use = quantizer.encode(z), CodebookUse(spec)
    for part in (slice(0, 2), slice(2, 5)):
        use.update(Tokens(spec, (codes[part],), torch.ones(5, 1, dtype=torch.int64)[part], (lengths[part],)))
    for k, (size, found) in enumerate(zip(quantizer.vocab_sizes, use.result(), strict=True)):
        counted = np.concatenate([codes[b, k, : lengths[b]].numpy() for b in range(5)])
        p = np.bincount(counted, minlength=size) / len(counted)
        entropy = -(p[p > 0] * np.log2(p[p > 0])).sum()
        assert found.codes == 61 and found.share == pytest.approx((p > 0).mean())
        assert found.bits == pytest.approx(entropy) and found.perplexity == pytest.approx(2**entropy)
