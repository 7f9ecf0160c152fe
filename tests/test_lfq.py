"""Binary quantizers: codes and their bit order, exact entropies, masks, ranks, memory."""

from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from in_ranks import in_ranks
from torch import Tensor, distributed
from torch.utils._python_dispatch import TorchDispatchMode

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.quantizers import lookup
from codeczoo.quantizers.bit_entropy import fields, joint_sums, of_bits
from codeczoo.quantizers.dropout import UniformDepth
from codeczoo.quantizers.estimators import Gumbel
from codeczoo.quantizers.lfq import BSQ, GQ, LFQ, BinaryQuantizer
from codeczoo.quantizers.residual_lfq import ResidualLFQ
from codeczoo.quantizers.tokenwise import Tokenwise

KINDS: dict[str, Callable[[], Tokenwise]] = {
    "lfq": lambda: LFQ(12),
    "little": lambda: LFQ(12, (3, 4, 5), 0.5, order="little", entropy_bits=3),
    "bsq": lambda: BSQ(12, 2, entropy_bits=4),
    "gq": lambda: GQ(3, 4, temperature=0.5),
    "residual": lambda: ResidualLFQ(12, 3),
}
SPHERE = "bsq"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def quantizer(kind: str) -> Tokenwise:
    torch.manual_seed(0)
    return KINDS[kind]()


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(losses.values(), torch.zeros(()))


# --- codes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize("make", [LFQ, BSQ])
def test_every_code_of_16_bits_round_trips(make: Any, order: str) -> None:
    quantizer, codes = make(16, order=order), torch.arange(1 << 16).view(1, 1, -1)
    assert quantizer.vocab_sizes == (1 << 16,)
    z = quantizer.decode(codes)
    assert torch.equal(quantizer.encode(z), codes)
    assert len(z[0].t().unique(dim=0)) == 1 << 16
    assert torch.allclose(z.norm(dim=1), torch.tensor(4.0 if make is LFQ else 1.0))


@pytest.mark.parametrize("widths", [(40,), (62, 1), (6, 12), (20, 20), (8,) * 8], ids=str)
def test_wide_codes_round_trip_and_are_explicit_integers(widths: tuple[int, ...]) -> None:
    z = torch.randn(1, sum(widths), 50)
    z[..., 0], z[..., 1] = 1, -1  # the last and the first code
    text = ["".join("1" if v > 0 else "0" for v in token) for token in z[0].t().tolist()]
    for order, step in (("big", 1), ("little", -1)):
        quantizer = LFQ(sum(widths), widths, order=order)
        assert quantizer.vocab_sizes == tuple(2**w for w in widths)
        codes, first = quantizer.encode(z), 0
        for k, width in enumerate(widths):
            expected = [int(bits[first : first + width][::step], 2) for bits in text]
            assert codes[0, k].tolist() == expected and expected[:2] == [2**width - 1, 0]
            first += width
        assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)
        assert torch.equal(quantizer.decode(codes), torch.where(z > 0, 1.0, -1.0))


def test_defaults_are_those_of_the_sources() -> None:
    assert GQ(4).vocab_sizes == (256,) * 4 and GQ(4).dim == 32 and GQ(4).order == "little"
    assert LFQ(18).vocab_sizes == (1 << 18,) and LFQ(18).order == "big"
    assert LFQ(18, 2).vocab_sizes == (512, 512)


@pytest.mark.parametrize("shape", [(2, 12, 11), (2, 12, 4, 5), (1, 12, 2, 3, 4)], ids=str)
def test_forward_value_is_exactly_the_decoded_code(quantizer: Tokenwise, shape: tuple[int, ...]) -> None:
    z = torch.randn(shape)
    z[0, :, 0], z[0, :3, 1] = 0, -0.0
    for training in (True, False):
        q = quantizer.train(training)(z)
        assert q.codes.shape == (shape[0], len(quantizer.vocab_sizes), *shape[2:]) and q.codes.dtype == torch.int64
        assert torch.equal(q.z, quantizer.decode(q.codes)) and torch.equal(q.codes, quantizer.encode(z))
        assert torch.equal(quantizer.encode(q.z), q.codes)


def test_residual_layers_halve_and_any_prefix_decodes() -> None:
    quantizer = ResidualLFQ(4, 8)
    z = torch.rand(2, 4, 30) * 4 - 2
    codes = quantizer.encode(z)
    for k in range(1, 9):
        assert (z - quantizer.decode(codes[:, :k])).abs().max() <= 2.0 ** (1 - k) + 1e-6
        assert torch.equal(quantizer.encode(z, k), codes[:, :k])
    codes = torch.randint(16, (1, 24, 500))
    deep = ResidualLFQ(4, 24)
    assert torch.equal(deep.encode(deep.decode(codes)), codes)


def test_random_choice_follows_the_softmax_over_codes() -> None:
    quantizer = LFQ(3, estimator=Gumbel(0.7))
    z = torch.tensor([0.3, -0.2, 0.1]).view(1, 3, 1).expand(1, 3, 200_000)
    torch.manual_seed(0)
    counts = torch.bincount(quantizer(z).codes.flatten(), minlength=8) / 200_000
    table = quantizer.decode(torch.arange(8).view(1, 1, 8))[0]
    assert torch.allclose(counts, torch.softmax(z[0, :, 0] @ table / 0.7, 0), atol=5e-3)
    assert len(quantizer.eval()(z).codes.unique()) == 1


# --- entropies ------------------------------------------------------------------------------------------------------


def brute(latent: Tensor, scale: float, temperature: float) -> tuple[Tensor, Tensor]:
    """Sample entropy and minus the batch entropy of latents (n, d) by listing all 2^d codes."""
    d = latent.shape[1]
    table = ((torch.arange(2**d)[:, None] >> torch.arange(d)) & 1) * 2 * scale - scale
    logs = torch.log_softmax(2 * latent @ table.to(latent.dtype).t() / temperature, 1)
    p = logs.exp()
    return -(p * logs).sum(1).mean(), torch.xlogy(p.mean(0), p.mean(0)).sum()


@pytest.mark.parametrize("chunk", [1 << 20, 64])
@pytest.mark.parametrize("d", [1, 2, 5, 8, 10])
@pytest.mark.parametrize("make", [LFQ, BSQ])
def test_entropies_are_those_over_all_codes(make: Any, d: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lookup.CHUNK, "cpu", chunk)
    torch.manual_seed(d)
    quantizer = make(d, temperature=1.3, entropy_bits=d)
    z = torch.randn(2, d, 15, requires_grad=True)
    losses = quantizer(z).losses
    exact = z.detach().double().requires_grad_()
    flat = exact.movedim(1, -1).reshape(-1, d)
    latent = torch.nn.functional.normalize(flat, dim=1) if make is BSQ else flat
    expected = brute(latent, d**-0.5 if make is BSQ else 1.0, 1.3)
    for name, wanted in zip(("sample_entropy", "batch_entropy"), expected, strict=True):
        assert torch.allclose(losses[name].double(), wanted, rtol=1e-5, atol=1e-6)
        grads = [torch.autograd.grad(*pair, retain_graph=True)[0] for pair in ((losses[name], z), (wanted, exact))]
        assert torch.allclose(grads[0].double(), grads[1], rtol=1e-4, atol=1e-7)
        assert d == 1 or grads[1].abs().max() > 1e-5


@pytest.mark.parametrize("sharpness", [1.0, 100.0])
def test_published_temperature_keeps_precision(sharpness: float) -> None:
    z = torch.randn(1, 8, 300) * sharpness / 1000
    z.requires_grad_()
    losses = LFQ(8)(z).losses
    exact = z.detach().double().requires_grad_()
    expected = brute(exact[0].t(), 1.0, 0.01)
    for name, wanted in zip(("sample_entropy", "batch_entropy"), expected, strict=True):
        grads = [torch.autograd.grad(*pair, retain_graph=True)[0] for pair in ((losses[name], z), (wanted, exact))]
        assert torch.allclose(losses[name].double(), wanted, rtol=1e-5)
        assert (grads[0] - grads[1]).abs().max() < 1e-5 * grads[1].abs().max()


def test_fields_are_exact_each_and_bound_the_joint_entropy() -> None:
    torch.manual_seed(0)
    z = torch.randn(1, 7, 200)
    z[:, 3:6] = z[:, :3] + 0.3 * z[:, 3:6]  # dependent bits
    found = {}
    for most, cuts in ((7, [7]), (4, [4, 3]), (3, [3, 3, 1]), (2, [2, 2, 2, 1]), (1, [1] * 7)):
        losses = LFQ(7, temperature=2.0, entropy_bits=most)(z).losses
        expected = sum(brute(part, 1.0, 2.0)[1] for part in z[0].t().double().split(cuts, 1))
        assert torch.allclose(losses["batch_entropy"].double(), expected, rtol=1e-5)
        found[most] = -losses["batch_entropy"]
    assert found[7] < found[4] < found[2] < found[1] <= 7 * log(2) + 1e-5
    assert found[7] < found[1] - 0.05


def test_entropies_are_averaged_over_codebooks() -> None:
    z = torch.randn(1, 12, 60)
    losses = LFQ(12, (3, 4, 5), 0.5, 0.7)(z).losses
    parts = [brute(part, 0.5, 0.7) for part in z[0].t().double().split((3, 4, 5), 1)]
    for i, name in enumerate(("sample_entropy", "batch_entropy")):
        assert torch.allclose(losses[name].double(), sum(p[i] for p in parts) / 3, rtol=1e-5)


def test_gradients_of_the_smooth_parts() -> None:
    logits = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    keep = torch.tensor([True, True, False, True, False, True])
    assert torch.autograd.gradcheck(lambda x: joint_sums(x, keep), logits)
    assert torch.autograd.gradcheck(lambda x: joint_sums(x, None), logits)
    assert torch.autograd.gradcheck(of_bits, logits)
    flat = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: joint_sums(fields(x, (5, 7), 4), keep), flat)


def test_masks_and_chunks_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, keep = torch.randn(2, 5, 40, dtype=torch.float64, requires_grad=True), torch.rand(40) > 0.5
    weight, found = torch.randn(2, 4, 8, dtype=torch.float64), []
    for chunk in (1 << 20, 7 * 24):
        monkeypatch.setitem(lookup.CHUNK, "cpu", chunk)
        sums = joint_sums(logits, keep)
        found.append((sums, torch.autograd.grad((sums * weight).sum(), logits)[0]))
    torch.testing.assert_close(*found)
    assert not found[1][1][..., ~keep].any() and torch.allclose(sums.sum((1, 2)), keep.sum().double())


def test_minimising_makes_tokens_sure_and_uses_all_codes() -> None:
    torch.manual_seed(1)
    z = torch.full((1, 4, 64), 0.4) + 0.1 * torch.randn(1, 4, 64)
    z.requires_grad_()
    quantizer, optimizer = LFQ(4, temperature=1.0), torch.optim.Adam([z], 0.03)
    assert len(quantizer.encode(z).unique()) == 1
    for _ in range(200):
        losses = quantizer(z).losses
        optimizer.zero_grad()
        (losses["sample_entropy"] + losses["batch_entropy"]).backward()
        optimizer.step()
    assert losses["sample_entropy"] < 0.1 and losses["batch_entropy"] < -0.9 * 4 * log(2)
    assert len(quantizer.encode(z).unique()) >= 15


# --- masks, ranks, precision ----------------------------------------------------------------------------------------


def test_masked_positions_count_nowhere(quantizer: Tokenwise) -> None:
    z = torch.randn(3, 12, 9)
    valid = torch.rand(3, 9) > 0.4
    valid[1] = False
    found = []
    for padding in (0.0, 1e4, torch.nan, torch.inf):
        given = torch.where(valid[:, None], z, padding).requires_grad_()
        q = quantizer(given, valid)
        (q.z.square().sum() + total(q.losses)).backward()
        assert not given.grad.movedim(1, -1)[~valid].any()
        assert not q.z.movedim(1, -1)[~valid].any() and not q.codes.movedim(1, -1)[~valid].any()
        found.append((q.z, q.codes, given.grad, *q.losses.values()))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    alone = z.movedim(1, -1)[valid].t()[None].requires_grad_()
    kept = quantizer(alone)
    (kept.z.square().sum() + total(kept.losses)).backward()
    torch.testing.assert_close(kept.losses, q.losses)
    assert torch.equal(kept.codes[0].t(), q.codes.movedim(1, -1)[valid])
    torch.testing.assert_close(alone.grad[0].t(), found[0][2].movedim(1, -1)[valid], rtol=1e-4, atol=1e-7)


def losses_of_steps(rank: int, world: int) -> list[Tensor]:
    """Losses and gradients of four steps, averaged over the ranks as DDP does."""
    quantizers = [LFQ(6, 2, temperature=0.5), BSQ(6, entropy_bits=4), ResidualLFQ(6, 2, temperature=0.5)]
    generator = torch.Generator().manual_seed(5)
    weight = (torch.randn(6, 4, generator=generator) / 2).requires_grad_()
    results = []
    for step in range(4):
        x = torch.randn(30, 4, generator=generator)
        valid = torch.rand(30, generator=generator) > 0.3
        cut = [7, 0, 30, 12][step]  # unequal, one rank with nothing at all
        if step == 3:
            valid[:cut] = False  # one rank with padding alone
        mine = slice(0, 30) if world == 1 else (slice(0, cut), slice(cut, 30))[rank]
        for quantizer in quantizers:
            for mask in (valid[None, mine], None):
                losses = quantizer((x[mine] @ weight.t()).t()[None], mask).losses
                for name, loss in losses.items():
                    (grad,) = torch.autograd.grad(loss, weight, retain_graph=True)
                    loss = loss.detach().clone()
                    if name == "batch_entropy":
                        results.append(loss.clone())  # the same on every rank
                    for tensor in (grad, loss):
                        if world > 1:
                            distributed.all_reduce(tensor)
                        results.append(tensor / world)
    return results


def test_ranks_together_equal_one_process(tmp_path: Path) -> None:
    (one,), two = in_ranks(losses_of_steps, (1, 2), tmp_path)
    results = [*two, one]
    for a, b, whole in zip(*results, strict=True):
        torch.testing.assert_close(a, whole, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(b, whole, rtol=1e-5, atol=1e-6)
    assert sum(r.abs().max() > 1e-3 for r in results[2]) > 0.9 * len(results[2])


def test_float32_whatever_comes_in(quantizer: Tokenwise) -> None:
    z = torch.randn(2, 12, 50).bfloat16()
    expected = quantizer(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        q = quantizer.bfloat16()(z)
        assert torch.equal(quantizer.encode(z), expected.codes)
    assert q.z.dtype == torch.bfloat16 and torch.equal(q.z, expected.z.bfloat16())
    assert all(v.dtype == torch.float32 and torch.equal(v, expected.losses[k]) for k, v in q.losses.items())
    assert torch.equal(q.codes, expected.codes)


# --- gradients, scale, graphs, memory -------------------------------------------------------------------------------


def test_straight_through_gradient_is_one(quantizer: Tokenwise, kind: str) -> None:
    z, weight = torch.randn(2, 12, 5, requires_grad=True), torch.randn(2, 12, 5)
    (quantizer(z).z * weight).sum().backward()
    if kind == SPHERE:  # straight through to the unit vector, then its own gradient
        u = z.detach().clone().requires_grad_()
        (torch.nn.functional.normalize(u, dim=1) * weight).sum().backward()
        weight = u.grad
    assert torch.allclose(z.grad, weight, atol=1e-6)


def test_commitment_is_the_mean_squared_error(quantizer: Tokenwise, kind: str) -> None:
    z = torch.randn(2, 12, 5, requires_grad=True)
    q = quantizer(z)
    latent = torch.nn.functional.normalize(z, dim=1) if kind == SPHERE else z
    parts = [latent - q.z.detach()]
    if kind == "residual":
        parts = [z - quantizer.decode(q.codes[:, : k + 1]) for k in range(3)]
    expected = sum((part.square().mean() for part in parts), torch.zeros(())) / len(parts)
    assert torch.allclose(q.losses["commitment"], expected)
    grads = [torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (q.losses["commitment"], expected)]
    assert torch.allclose(*grads, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4, 0.0, 1e30])
@pytest.mark.parametrize("tokens", [0, 1, 20])
def test_losses_and_gradients_stay_finite(quantizer: Tokenwise, scale: float, tokens: int) -> None:
    z = (torch.randn(2, 12, tokens) * scale).requires_grad_()
    q = quantizer(z)
    (q.z.sum() + total({k: v for k, v in q.losses.items() if scale < 1e30 or k != "commitment"})).backward()
    assert z.grad.isfinite().all() and q.z.isfinite().all()
    assert all(v.isfinite() for k, v in q.losses.items() if scale < 1e30 or k != "commitment")


def test_compiles_without_a_break(quantizer: Tokenwise) -> None:
    z, valid = torch.randn(2, 12, 20), torch.rand(2, 20) > 0.3
    torch._dynamo.reset()
    for training in (True, False):
        quantizer.train(training)
        forward = torch.compile(lambda z, valid: quantizer(z, valid), fullgraph=True, backend="aot_eager")
        grads = []
        for run in (quantizer, forward):
            given = z.clone().requires_grad_()
            q = run(given, valid)
            (q.z.sum() + total(q.losses)).backward()
            grads.append((given.grad, q.z, *q.losses.values()))
        torch.testing.assert_close(*grads)
    codes = torch.compile(lambda z: quantizer.encode(z), fullgraph=True, backend="aot_eager")(z)
    assert torch.equal(codes, quantizer.encode(z))
    decode = torch.compile(lambda c: quantizer.decode(c), fullgraph=True, backend="aot_eager")
    assert torch.equal(decode(codes), quantizer.decode(codes))


class Largest(TorchDispatchMode):
    """Bytes of the largest storage that is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("bits", [18, 62])
def test_memory_does_not_grow_with_the_number_of_codes(bits: int) -> None:
    z, saved = torch.randn(16, bits, 1024, requires_grad=True), {}
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.setdefault(t.data_ptr(), t), lambda t: t)
    with hooks, Largest() as largest:
        q = LFQ(bits)(z)
        total(q.losses).backward()
    latents = z.numel() * 4
    assert largest.bytes <= max(2 * latents, 4 << 20)  # codes' bits are int64; chunks have 4 MB
    assert sum(t.untyped_storage().nbytes() for t in saved.values()) <= 8 * latents
    assert q.losses["sample_entropy"].isfinite()


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: LFQ(63),
        lambda: LFQ(10, 3),
        lambda: LFQ(10, (5, 4)),
        lambda: LFQ(10, (10, 0)),
        lambda: LFQ(10, 0),
        lambda: LFQ(0),
        lambda: LFQ(8, scale=0),
        lambda: LFQ(8, temperature=0),
        lambda: LFQ(8, order="middle"),
        lambda: LFQ(8, entropy_bits=0),
        lambda: BSQ(0),
        lambda: BSQ(8, temperature=-1),
        lambda: GQ(0),
        lambda: GQ(2, 63),
        lambda: ResidualLFQ(8, 0),
        lambda: ResidualLFQ(8, 25),
    ],
)
def test_bad_arguments_are_told(make: Callable[[], BinaryQuantizer]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_wrong_shapes_are_told(quantizer: Tokenwise) -> None:
    with pytest.raises(InputError):
        quantizer(torch.randn(1, 11, 3))
    with pytest.raises(InputError):
        quantizer.encode(torch.randn(1, 13, 3))
    with pytest.raises(InputError):
        quantizer.decode(torch.zeros(1, 9, 3, dtype=torch.int64))


def test_residual_dropout_takes_masks_per_layer() -> None:
    torch.manual_seed(0)
    quantizer, z = ResidualLFQ(6, 3, depth=UniformDepth()), torch.randn(4, 6, 8)
    depth = torch.tensor([1, 3, 2, 1])
    q = quantizer(z, depth=depth)
    single = [LFQ(6, scale=2.0**-k) for k in range(3)]
    rest, expected = z, []
    for k, layer in enumerate(single):
        part = layer(rest[depth > k])
        expected.append(part.losses["batch_entropy"])
        rest = rest.clone()
        rest[depth > k] -= part.z
    assert torch.allclose(q.losses["batch_entropy"], sum(expected) / 3, atol=1e-6)
