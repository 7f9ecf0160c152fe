"""Quantizers made of quantizers: what all of them promise, what each is meant to compute, the originals' codes."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from in_ranks import in_ranks
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from codeczoo.core.base import Quantizer
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Quantized
from codeczoo.quantizers.cumulative import CumulativeMultiScale
from codeczoo.quantizers.dropout import ChosenDepth, UniformDepth
from codeczoo.quantizers.estimators import Rotation
from codeczoo.quantizers.grouped import Grouped
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.multiscale import MultiScale
from codeczoo.quantizers.projected import AngularVQ, Projected
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.scales import Bicubic, Linear, Nearest, Smoothing
from codeczoo.quantizers.shared_mapping import SharedMapping
from codeczoo.quantizers.split import Split
from codeczoo.quantizers.tables import TableVQ
from codeczoo.quantizers.tally import update
from codeczoo.quantizers.upkeep import Restart
from codeczoo.quantizers.vq import EMAVQ, VQ, CosineVQ

V, D = 19, 6


def emas(layers: int, dim: int = D, start: bool = False) -> list[EMAVQ]:
    return [EMAVQ(V, dim, start=KMeans(3) if start else None) for _ in range(layers)]


def dac(layers: int = 3) -> Residual:
    return Residual([Projected(AngularVQ(V, 4), D) for _ in range(layers)])


def mimi(start: bool = False, depth: UniformDepth | None = None) -> Split:
    first, rest = Residual(emas(1, 4, start)), Residual(emas(3, 4, start), depth)
    return Split([Projected(first, D, bias=False), Projected(rest, D, bias=False)])


def var(kind: type[MultiScale] = CumulativeMultiScale, **given: object) -> MultiScale:
    return kind([VQ(V, D)], [(1, 1), (2, 1), (3, 2), (5, 4)], Bicubic(), smoothing=Smoothing(D, 4, convs=2), **given)


ROWWISE: dict[str, Callable[[], Quantizer]] = {
    "projected": lambda: Projected(VQ(V, 4), D),
    "projected cosine": lambda: Projected(CosineVQ(V, 4), D, bias=False),
    "projected residual": lambda: Projected(Residual(emas(3, 4)), D),
    "dac": dac,
    "grouped": lambda: Grouped([VQ(V, 1), EMAVQ(11, 3), CosineVQ(7, 2)]),
    "grouped residual": lambda: Grouped([Residual(emas(3, 2)), Projected(Residual(emas(3, 3)), 4)]),
    "split": lambda: Split([VQ(V, D), Projected(EMAVQ(11, 3), D)]),
    "mimi": mimi,
    "residual of all": lambda: Residual([Grouped([VQ(V, 2), VQ(5, 4)]), mimi(), Projected(VQ(V, 3), D), VQ(V, D)]),
    "shared mapping": lambda: SharedMapping(V, 4, 2, 0.7),
    "angular": lambda: AngularVQ(V, D),
}
SCALED: dict[str, Callable[[], Quantizer]] = {
    "var": var,
    "scales 1d": lambda: MultiScale(emas(3), [(1,), (4,), (7,)], Linear(), size=(9,)),
    "scales 2d": lambda: var(MultiScale),
    "scales 3d": lambda: MultiScale([EMAVQ(V, D)], [(1, 1, 2), (1, 2, 3), (2, 4, 3)], Nearest()),
    "scales residual": lambda: MultiScale(
        [Projected(Residual(emas(2, 3)), D)], [(1,), (5,)], Linear(), smoothing=Smoothing(D, 2, 1, 2)
    ),
    "scales linear": lambda: CumulativeMultiScale([dac(2), mimi()], [(1, 2, 1), (2, 2, 3)], Linear(), (2, 4, 5)),
}
ALL = ROWWISE | SCALED
RESIDUAL = [name for name in ALL if name in ("dac", "residual of all", *SCALED)]


def built(name: str, quantizer: Quantizer | None = None) -> Quantizer:
    torch.manual_seed(0)
    quantizer = ALL[name]() if quantizer is None else quantizer
    for part in quantizer.modules():
        if isinstance(part, TableVQ):
            part.place(part.normalise(torch.randn_like(part.codebook)), torch.ones(len(part.codebook)))
    return quantizer


def latents(quantizer: Quantizer, seed: int = 0, batch: int = 3, shape: Sequence[int] = (8,)) -> Tensor:
    size = quantizer.size if isinstance(quantizer, MultiScale) else shape
    return torch.randn(batch, quantizer.dim, *size, generator=torch.Generator().manual_seed(seed))


def given(found: Quantized) -> Tensor | tuple[Tensor, ...]:
    """The codes as `decode` of the quantizer takes them."""
    return found.streams if len(found.streams) > 1 else found.codes


def same(a: Tensor | Sequence[Tensor], b: Tensor | Sequence[Tensor]) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else all(map(torch.equal, a, b)) and len(a) == len(b)


def learned(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by name of parameters that have one."""
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(losses.values(), torch.zeros(()))


# --- what all of them promise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_value_is_exactly_the_decoded_codes(name: str, training: bool) -> None:
    quantizer = built(name).train(training)
    for shape in [(8,)] if name in SCALED else [(8,), (3, 4), (2, 3, 2)]:
        z = latents(quantizer, shape=shape)
        found = quantizer(z)
        assert torch.equal(found.z, quantizer.decode(given(found))) and same(given(found), quantizer.encode(z))
        ends = list(quantizer.vocab_sizes)
        for stream in found.streams:
            for codes in stream.unbind(1):
                assert codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() < ends.pop(0)
        assert not ends


@pytest.mark.parametrize("name", ["dac", "grouped residual", "mimi", "projected residual", "residual of all", "split"])
def test_a_prefix_decodes_to_what_that_depth_gives(name: str) -> None:
    quantizer = built(name)
    z, ends = latents(quantizer), torch.tensor(quantizer.layer_sizes).cumsum(0).tolist()
    for layers, n in enumerate(ends, 1):
        depth = torch.full((3,), layers)
        found = quantizer(z, depth=depth)
        codes = quantizer.encode(z, n)
        assert torch.equal(found.codes[:, :n], codes) and not found.codes[:, n:].any()
        assert torch.equal(found.z, quantizer.decode(codes)) and torch.equal(found.depth, torch.full((3,), n))
    per_sample = torch.tensor([1, len(ends), 2])
    found = quantizer(z, depth=per_sample)
    for k in range(3):
        alone = quantizer(z[k : k + 1], depth=per_sample[k : k + 1])
        torch.testing.assert_close(found.z[k : k + 1], alone.z)
        assert torch.equal(found.codes[k], alone.codes[0])
    for n in {*range(1, ends[-1])} - {*ends}:
        with pytest.raises(InputError):
            quantizer.decode(quantizer.encode(z)[:, :n])
    for n in (0, ends[-1] + 1):
        with pytest.raises(InputError):
            quantizer.encode(z, n)
    with pytest.raises(InputError):
        quantizer.decode(torch.zeros(1, ends[-1] + 1, 4, dtype=torch.int64))


@pytest.mark.parametrize("name", SCALED)
def test_a_prefix_of_streams_decodes_to_what_that_depth_gives(name: str) -> None:
    quantizer = built(name)
    z = latents(quantizer)
    for n in range(1, len(quantizer.scales) + 1):
        found = quantizer(z, depth=torch.full((3,), n))
        streams = quantizer.encode(z, n)
        assert len(streams) == n and same(found.streams[:n], streams) and not any(s.any() for s in found.streams[n:])
        assert torch.equal(found.z, quantizer.decode(streams)) and (found.depth == n).all()
    with pytest.raises(InputError):
        quantizer.decode(streams[1:])
    with pytest.raises(InputError):
        quantizer.decode(())
    with pytest.raises(InputError):
        quantizer.encode(z, n + 1)
    with pytest.raises(InputError, match="streams"):
        _ = found.codes


@pytest.mark.parametrize("name", [*RESIDUAL, "dac 1", "dac 8"])
def test_residuals_pass_the_gradient_with_gain_one_and_train_all_projections(name: str) -> None:
    quantizer = built(name, dac(int(name[4:])) if name[4:].isdigit() else None)
    z = latents(quantizer).requires_grad_()
    weight = torch.randn(z.shape)
    (quantizer(z).z * weight).sum().backward()
    torch.testing.assert_close(z.grad, weight, rtol=0, atol=0)
    if not isinstance(quantizer, CumulativeMultiScale):  # VAR's learns all from its codebook loss
        wanted = {name for name, _ in quantizer.named_parameters() if "_proj" in name or "convs" in name}
        assert learned(quantizer).keys() == wanted  # and no codebook


@pytest.mark.parametrize("name", ALL)
def test_losses_train_latent_codebooks_and_projections(name: str) -> None:
    quantizer = built(name)
    z = latents(quantizer).requires_grad_()
    losses = quantizer(z).losses
    (at_latent,) = torch.autograd.grad(losses["commitment"], z, retain_graph=True)
    assert at_latent.abs().sum() > 0
    total(losses).backward()
    inward = {name for name, _ in quantizer.named_parameters() if "in_proj" in name or "codebook" in name}
    if isinstance(quantizer, CumulativeMultiScale):
        assert inward <= learned(quantizer).keys()
    else:  # residuals are detached: what one layer gives out learns nothing from the losses of the next
        assert inward == learned(quantizer).keys()
    assert all(loss.ndim == 0 and loss.dtype == torch.float32 and loss > 0 for loss in losses.values())


@pytest.mark.parametrize("name", ["dac", "mimi", "grouped residual", "scales 2d", "scales 1d"])
def test_commitment_of_every_layer_reaches_the_latent(name: str) -> None:
    quantizer = built(name)
    layers = len(quantizer.scales if isinstance(quantizer, MultiScale) else quantizer.layer_sizes)
    z = latents(quantizer).requires_grad_()
    before = torch.zeros(())
    for n in range(1, layers + 1):
        loss = quantizer(z, depth=torch.full((3,), n)).losses["commitment"]
        (gradient,) = torch.autograd.grad(loss - before, z, retain_graph=True)  # of layer n alone
        assert gradient.abs().sum() > 1e-3
        before = loss


@pytest.mark.parametrize("padding", [1e4, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ALL)
def test_masked_positions_count_nowhere(name: str, padding: float) -> None:
    found = []
    for fill in (0.0, padding):
        quantizer = built(name)
        clean = latents(quantizer)
        valid = torch.rand(3, *clean.shape[2:], generator=torch.Generator().manual_seed(1)) > 0.4
        valid[1] = False
        z = torch.where(valid[:, None], clean, fill).requires_grad_()
        layers = len(quantizer.scales if isinstance(quantizer, MultiScale) else quantizer.layer_sizes)
        depth = () if layers == 1 else (torch.tensor([2, 1, 1]),)
        q = quantizer(z, valid, *depth)
        ((q.z * clean).sum() + total(q.losses)).backward()
        update(quantizer)
        grads = {name: p.grad for name, p in quantizer.named_parameters() if p.grad is not None}
        found.append([q.z, *q.streams, *q.losses.values(), z.grad, *quantizer.state_dict().values(), *grads.values()])
        assert all(value.isfinite().all() for value in found[-1])
        assert not q.z.movedim(1, -1)[~valid].any() and not z.grad.movedim(1, -1)[~valid].any()
        assert all(not stream[1].any() for stream in q.streams)
        whole = quantizer.eval()(z.detach(), valid)
        decoded = quantizer.decode(given(whole))
        assert torch.equal(whole.z.movedim(1, -1)[valid], decoded.movedim(1, -1)[valid])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", ROWWISE)
def test_masked_equals_the_valid_rows_alone(name: str) -> None:
    quantizer, alone = built(name), built(name)
    z = latents(quantizer)
    valid = torch.rand(3, 8, generator=torch.Generator().manual_seed(1)) > 0.4
    a, b = quantizer(z, valid), alone(z.movedim(1, -1)[valid].t()[None])
    assert torch.equal(a.codes.movedim(1, -1)[valid], b.codes[0].t())
    for key in a.losses:
        torch.testing.assert_close(a.losses[key], b.losses[key])
    update(quantizer), update(alone)
    for x, y in zip(quantizer.state_dict().values(), alone.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("name", ["residual of all", "mimi dropout", "var", "scales 1d", "scales 3d"])
def test_compiles_as_one_graph(name: str) -> None:
    torch._dynamo.reset()
    quantizer = built(name, mimi(depth=UniformDepth(0.5)) if name == "mimi dropout" else None)
    z = latents(quantizer).requires_grad_()
    valid = torch.rand(3, *z.shape[2:]) > 0.4

    def work(method: Callable) -> Callable:
        return torch.compile(method, fullgraph=True, dynamic=False, backend="aot_eager")

    torch.manual_seed(3)
    wanted = quantizer(z, valid)
    torch.manual_seed(3)
    found = work(quantizer)(z, valid)
    assert same(found.streams, wanted.streams)
    torch.testing.assert_close(found.z, wanted.z)
    torch.testing.assert_close(found.losses, wanted.losses)
    (found.z.sum() + total(found.losses)).backward()
    codes = work(quantizer.encode)(z)
    assert same(codes, quantizer.encode(z))
    torch.testing.assert_close(work(quantizer.decode)(codes), quantizer.decode(codes))


@pytest.mark.parametrize("name", ["dac", "mimi", "scales 2d", "shared mapping"])
def test_float32_under_autocast_and_in_narrow_modules(name: str) -> None:
    quantizer = built(name).eval()
    z = latents(quantizer).bfloat16()
    wanted = quantizer.encode(z.float())
    quantizer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(z)
        assert same(given(found), wanted) and same(quantizer.encode(z), wanted)
        decoded = quantizer.decode(wanted)
        assert decoded.dtype == torch.float32 and torch.equal(decoded.bfloat16(), found.z)
    assert all(t.dtype == torch.float32 for t in quantizer.state_dict().values() if t.is_floating_point())


# --- learning -------------------------------------------------------------------------------------------------------


def test_state_is_that_of_the_quantizers_alone() -> None:
    torch.manual_seed(0)
    together = Split([Projected(EMAVQ(V, 4, Restart(V, every=1)), D), Grouped([EMAVQ(V, 2), EMAVQ(V, 4)])])
    z = torch.randn(3, D, 8)
    projected, grouped = together.inner
    x = z.movedim(1, -1)
    inputs = [projected.in_proj(x), x[..., :2], x[..., 2:]]
    parts = [projected.quantizer, *grouped.inner]
    alone = [EMAVQ(V, 4, Restart(V, every=1)), EMAVQ(V, 2), EMAVQ(V, 4)]
    for one, part, given_to in zip(alone, parts, inputs, strict=True):
        one.load_state_dict(part.state_dict())
        one(given_to.detach().movedim(-1, 1))
        update(one)
    together(z)
    update(together)
    for one, part in zip(alone, parts, strict=True):
        for key, value in one.state_dict().items():
            torch.testing.assert_close(part.state_dict()[key], value, msg=key)


DEPTH = UniformDepth(0.5)
NESTED: dict[str, Callable[[], Quantizer]] = {
    "mimi": lambda: mimi(True, DEPTH),
    "dac": lambda: Residual([Projected(VQ(V, 3, start=KMeans(3)), D) for _ in range(3)], ChosenDepth([1, 3])),
    "grouped": lambda: Grouped([Projected(Residual(emas(2, 2, True), DEPTH), 3) for _ in range(2)]),
    "1d": lambda: MultiScale(emas(3, D, True), [(2,), (5,), (9,)], Linear(), smoothing=Smoothing(D, 3, 1, 1)),
    "2d": lambda: MultiScale(emas(1, D, True), [(1, 2), (2, 2), (3, 3)], Bicubic(), depth=DEPTH),
    "3d": lambda: CumulativeMultiScale(
        [mimi(True)], [(1, 1, 1), (1, 2, 3)], Nearest(), smoothing=Smoothing(D, 2, 3, 1)
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_combinations_start_and_train(name: str) -> None:
    torch.manual_seed(0)
    quantizer, encoder, calls, errors = NESTED[name](), nn.Linear(D, D), 0, []
    mix = torch.randn(2, D) * 3  # latents lie in a plane, so few codes can tell much
    optimizer = torch.optim.Adam([*encoder.parameters(), *quantizer.parameters()], 3e-2)
    for step in range(30):
        like = latents(quantizer, step, 12, (9,)).movedim(1, -1)
        target = (like[..., :2] @ mix).movedim(-1, 1)
        z = encoder(target.movedim(1, -1)).movedim(-1, 1)
        if quantizer.starting:
            quantizer.initialize(z)
            calls += 1
        found = quantizer(z)
        error = (found.z - target).square().mean()
        optimizer.zero_grad()
        (error + total(found.losses)).backward()
        assert all(p.grad is not None for p in quantizer.parameters())  # DDP waits for all
        optimizer.step()
        update(quantizer)
        errors.append(error.item())
    assert not quantizer.starting and calls == {"dac": 3, "mimi": 3, "grouped": 2, "1d": 3, "2d": 1, "3d": 3}[name]
    assert sum(errors[-5:]) < 0.6 * sum(errors[:5]), errors


def test_what_waits_takes_no_part_and_starts_layer_by_layer() -> None:
    torch.manual_seed(0)
    quantizer = Residual([Projected(EMAVQ(V, 4, start=KMeans(3)), D) for _ in range(2)])
    z = torch.randn(4, D, 30)
    with pytest.raises(InputError, match="starts from data"):
        quantizer.layers[0](z)
    for started in range(3):
        assert [layer.starting for layer in quantizer.inner] == [k >= started for k in range(2)]
        assert not quantizer(z).codes[:, started:].any()
        quantizer.initialize(z)
    assert not quantizer.starting


def losses_and_states(rank: int, world: int) -> list[dict[str, Tensor]]:
    """What a step leaves, losses and gradients averaged over the ranks as DDP does."""
    found = []
    for name in ("mimi", "dac", "grouped residual", "var", "scales 3d", "1d"):
        torch.manual_seed(0)
        quantizer = built(name) if name in ALL else NESTED[name]()
        whole = latents(quantizer, batch=4)
        valid = torch.rand(4, *whole.shape[2:], generator=torch.Generator().manual_seed(1)) > 0.3
        mine = slice(None) if world == 1 else (slice(3), slice(3, 4))[rank]
        z = whole[mine].requires_grad_()
        while quantizer.starting:
            quantizer.initialize(z, valid[mine])
        layers = quantizer.layer_sizes if name in ALL and name not in SCALED else quantizer.scales
        depth = torch.tensor([1, len(layers), 2, 2])[mine]
        q = quantizer(z, valid[mine], depth)
        total(q.losses).backward()
        update(quantizer)
        values = {"loss " + key: loss.detach() for key, loss in q.losses.items()}
        values |= {key: p.grad for key, p in quantizer.named_parameters() if p.grad is not None}
        if world > 1:
            for value in values.values():
                distributed.all_reduce(value)
                value /= world
        found.append({"mean " + key: value for key, value in values.items()} | quantizer.state_dict())
    return found


def test_ranks_with_unequal_batches_equal_one_process(tmp_path: Path) -> None:
    (one,), two = in_ranks(losses_and_states, (1, 2), tmp_path)
    results = [*two, one]
    for a, b, whole in zip(*results, strict=True):
        assert a.keys() == whole.keys() and any("mean" in key for key in whole)
        for key, value in whole.items():
            assert torch.equal(a[key], b[key]), key
            torch.testing.assert_close(a[key], value, msg=key)


# --- Projected, AngularVQ -------------------------------------------------------------------------------------------


def test_projected_by_itself_has_the_natural_gradient() -> None:
    quantizer = built("projected")
    z = latents(quantizer).requires_grad_()
    weight = torch.randn(z.shape)
    (quantizer(z).z * weight).sum().backward()
    into, out = quantizer.in_proj.weight.detach(), quantizer.out_proj.weight.detach()
    expected = torch.einsum("bdt,de,ef->bft", weight, out, into)
    torch.testing.assert_close(z.grad, expected)
    assert {"in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias"} == learned(quantizer).keys()


def test_projected_in_residual_trains_projections_straight_through_the_code() -> None:
    quantizer = built("dac", dac(1))
    (layer,) = quantizer.inner
    z = latents(quantizer)
    weight = torch.randn(z.shape)
    (quantizer(z).z * weight).sum().backward()
    g, x = weight.movedim(1, -1).reshape(-1, D), z.movedim(1, -1).reshape(-1, D)
    code = layer.quantizer.codebook[quantizer.encode(z).flatten()].detach()
    torch.testing.assert_close(layer.out_proj.weight.grad, g.t() @ code)
    torch.testing.assert_close(layer.in_proj.weight.grad, (g @ layer.out_proj.weight).t() @ x)
    assert layer.quantizer.codebook.grad is None


def test_other_estimators_stand_around_the_sum() -> None:
    torch.manual_seed(0)
    quantizer = built("dac", Residual([Projected(AngularVQ(V, 4), D) for _ in range(2)], estimator=Rotation()))
    z = latents(quantizer).requires_grad_()
    found = quantizer(z)
    (found.z * torch.randn(z.shape)).sum().backward()
    assert torch.equal(found.z, quantizer.decode(found.codes)) and z.grad.isfinite().all()
    assert sum("_proj" in name for name in learned(quantizer)) == 8


def test_angular_look_up_returns_codes_with_their_length() -> None:
    """DAC's look-up, losses and gradients, written out."""
    torch.manual_seed(0)
    quantizer = AngularVQ(V, D)
    z = torch.randn(2, D, 9, requires_grad=True)
    x, table = z.movedim(1, -1).reshape(-1, D), quantizer.codebook
    index = (F.normalize(x, dim=1) @ F.normalize(table, dim=1).t()).argmax(1)
    found = quantizer(z)
    assert torch.equal(found.codes.flatten(), index)
    assert torch.equal(found.z.movedim(1, -1).reshape(-1, D), table[index])
    torch.testing.assert_close(found.losses["commitment"], F.mse_loss(x, table[index].detach()))
    torch.testing.assert_close(found.losses["codebook"], F.mse_loss(table[index], x.detach()))


# --- Grouped, Split -------------------------------------------------------------------------------------------------


def test_groups_are_ordered_by_depth() -> None:
    torch.manual_seed(0)
    groups = [Residual([VQ(5, 2), VQ(6, 2), VQ(7, 2)]), Residual([Grouped([VQ(8, 1), VQ(9, 3)]), VQ(10, 4), VQ(11, 4)])]
    quantizer = built("", Grouped(groups))
    assert quantizer.vocab_sizes == (5, 8, 9, 6, 10, 7, 11) and quantizer.layer_sizes == (3, 2, 2)
    z = torch.randn(2, 6, 4)
    a, b = groups[0].encode(z[:, :2]), groups[1].encode(z[:, 2:])
    by_depth = [a[:, :1], b[:, :2], a[:, 1:2], b[:, 2:3], a[:, 2:], b[:, 3:]]
    assert torch.equal(quantizer.encode(z), torch.cat(by_depth, 1))
    assert torch.equal(quantizer.encode(z, 4), quantizer.encode(z)[:, :4])
    coarse = torch.cat([groups[0].decode(a[:, :1]), groups[1].decode(b[:, :2])], 1)
    torch.testing.assert_close(quantizer.decode(quantizer.encode(z, 3)), coarse)


def test_losses_of_groups_and_parts_are_weighted() -> None:
    grouped, split = built("grouped residual"), built("mimi")
    z = latents(grouped)
    a, b = grouped.inner[0](z[:, :2]).losses, grouped.inner[1](z[:, 2:]).losses
    torch.testing.assert_close(grouped(z).losses["commitment"], (2 * a["commitment"] + 4 * b["commitment"]) / 6)
    a, b = (part(z).losses for part in split.inner)
    torch.testing.assert_close(split(z).losses["commitment"], (a["commitment"] + 3 * b["commitment"]) / 4)


def test_parts_see_the_same_latent_and_add_up() -> None:
    quantizer = built("mimi")
    z = latents(quantizer).requires_grad_()
    found = quantizer(z)
    first, rest = (part(z) for part in quantizer.inner)
    assert torch.equal(found.codes, torch.cat([first.codes, rest.codes], 1)) and torch.equal(found.z, first.z + rest.z)
    weight = torch.randn(z.shape)
    natural = torch.autograd.grad((found.z * weight).sum(), z)[0]
    alone = sum(torch.autograd.grad((part.z * weight).sum(), z)[0] for part in (first, rest))
    torch.testing.assert_close(natural, alone)


def test_dropout_of_a_split_counts_all_codebooks_and_leaves_the_first_part() -> None:
    quantizer = built("", mimi(depth=UniformDepth()))
    torch.manual_seed(0)
    z = latents(quantizer, batch=40)
    found = quantizer(z)
    assert set(found.depth.tolist()) == {2, 3, 4} and quantizer.eval()(z).depth is None
    full = quantizer(z)
    for k, n in enumerate(found.depth.tolist()):
        assert torch.equal(found.codes[k, :n], full.codes[k, :n]) and not found.codes[k, n:].any()
        torch.testing.assert_close(found.z[k], quantizer.decode(full.codes[k : k + 1, :n])[0])
    grouped = built("", Grouped([Residual(emas(3, 2), UniformDepth()), Residual(emas(3, 4))]))
    assert set(grouped(z).depth.tolist()) == {2, 4, 6}


def test_arguments_that_do_not_fit() -> None:
    drops = Residual(emas(2), UniformDepth())
    wrong: list[Callable[[], object]] = [
        lambda: Residual([]),
        lambda: Residual([VQ(V, 3), VQ(V, 4)]),
        lambda: Projected(VQ(V, 3), 0),
        lambda: Grouped([]),
        lambda: Grouped([VQ(V, 3), Residual(emas(2))]),
        lambda: Split([]),
        lambda: Split([drops, VQ(V, D)]),
        lambda: Split([VQ(V, 3), VQ(V, 4)]),
        lambda: SharedMapping(V, 0, 3),
        lambda: SharedMapping(V, 3, 3, 0.0),
        lambda: MultiScale([VQ(V, D)], [], Linear()),
        lambda: MultiScale([VQ(V, D)], [(1,), (0,)], Linear()),
        lambda: MultiScale([VQ(V, D)], [(4,), (2,)], Linear()),
        lambda: MultiScale([VQ(V, D)], [(1,), (2, 2)], Linear()),
        lambda: MultiScale([VQ(V, D)], [(1,), (2,)], Bicubic()),
        lambda: MultiScale([VQ(V, D), VQ(V, D)], [(1,), (2,), (3,)], Linear()),
        lambda: MultiScale([VQ(V, D)], [(1,), (2,)], Linear(), smoothing=Smoothing(D, 3, 1)),
        lambda: MultiScale([VQ(V, D)], [(1,), (2,)], Linear(), smoothing=Smoothing(D, 2, 2, 1)),
        lambda: Smoothing(D, 3, convs=4),
        lambda: Smoothing(D, 4, kernel=2),
        lambda: Smoothing(D, 4, share=1.5),
    ]
    for make in wrong:
        with pytest.raises(ConfigError):
            make()
    with pytest.raises(InputError, match="takes"):
        var()(torch.randn(1, D, 4, 5))


# --- SharedMapping --------------------------------------------------------------------------------------------------


def test_shared_mapping_minimises_the_weighted_sum_of_distances() -> None:
    quantizer = built("shared mapping")
    z = torch.randn(2, 6, 40)
    x, table = z.movedim(1, -1).reshape(-1, 6), quantizer.codebook.detach()
    unit = [[F.normalize(v[:, s], dim=1) for s in (slice(4), slice(4, None))] for v in (x, table)]
    distance = torch.cdist(unit[0][0], unit[1][0]) ** 2 + 0.7 * torch.cdist(unit[0][1], unit[1][1]) ** 2
    found = quantizer(z)
    assert torch.equal(found.codes.flatten(), distance.argmin(1))
    torch.testing.assert_close(found.z.movedim(1, -1).reshape(-1, 6), torch.cat(unit[1], 1)[distance.argmin(1)])
    assert torch.equal(quantizer.decode_semantic(found.codes), found.z[:, :4])
    assert torch.equal(quantizer.decode_pixel(found.codes), found.z[:, 4:])


# --- MultiScale -----------------------------------------------------------------------------------------------------


def test_var_as_its_formulas_say() -> None:
    """Codes, sum, losses and gradients of the published algorithm, written out straightforwardly."""
    torch.manual_seed(0)
    table = torch.randn(30, 5, requires_grad=True)
    sides, rho, beta = (1, 2, 3, 5), 0.5, 0.25
    quantizer = CumulativeMultiScale([VQ(30, 5)], [(p, p) for p in sides], Bicubic(), smoothing=Smoothing(5, 4))
    quantizer.quantizers[0].codebook.data.copy_(table)
    convs = [(conv.weight.detach().clone().requires_grad_(), conv.bias.detach()) for conv in quantizer.smoothing.convs]
    z = torch.randn(2, 5, 5, 5, requires_grad=True)

    f = z.detach().clone().requires_grad_()
    rest, f_hat, loss, codes = f.detach().clone(), torch.zeros(2, 5, 5, 5), torch.zeros(()), []
    for p, (weight, bias) in zip(sides, convs, strict=True):
        flat = F.adaptive_avg_pool2d(rest, (p, p)).permute(0, 2, 3, 1).reshape(-1, 5)
        index = torch.cdist(flat, table).argmin(1).view(2, p, p)
        h = F.interpolate(table[index].permute(0, 3, 1, 2), (5, 5), mode="bicubic")
        h = (1 - rho) * h + rho * F.conv2d(h, weight, bias, padding=1)
        f_hat = f_hat + h
        rest = rest - h.detach()
        loss = loss + F.mse_loss(f_hat, f.detach()) + beta * F.mse_loss(f_hat.detach(), f)
        codes.append(index[:, None])
    loss = loss / len(sides)
    weights = torch.randn(z.shape)
    (((f_hat - f).detach() + f) * weights).sum().backward(retain_graph=True)
    loss.backward()

    found = quantizer(z)
    assert same(found.streams, codes)
    torch.testing.assert_close(found.z, f_hat)
    ours = found.losses["codebook"] + beta * found.losses["commitment"]
    torch.testing.assert_close(ours, loss)
    (found.z * weights).sum().backward(retain_graph=True)
    ours.backward()
    torch.testing.assert_close(z.grad, f.grad)
    torch.testing.assert_close(quantizer.quantizers[0].codebook.grad, table.grad)
    for conv, (weight, _) in zip(quantizer.smoothing.convs, convs, strict=True):
        torch.testing.assert_close(conv.weight.grad, weight.grad)


def test_published_layout_of_var() -> None:
    scales = [(p, p) for p in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)]
    quantizer = CumulativeMultiScale([VQ(4096, 32)], scales, Bicubic(), smoothing=Smoothing(32, 10)).eval()
    assert quantizer.smoothing.serving == (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)
    streams = quantizer.encode(torch.randn(1, 32, 16, 16))
    assert sum(stream.numel() for stream in streams) == 680 and quantizer.vocab_sizes == (4096,) * 10
    assert quantizer.decode(streams[:3]).shape == (1, 32, 16, 16)
    assert sum(p.numel() for p in quantizer.parameters()) == 4096 * 32 + 4 * (32 * 32 * 9 + 32)


def test_smoothing_serves_neighbours_as_numpy_picks() -> None:
    import numpy as np

    for convs, scales in product(range(1, 9), range(1, 13)):
        if convs <= scales:
            edge = 1 / 3 / convs if convs == 4 else 1 / 2 / convs
            points = np.linspace(edge, 1 - edge, convs)
            wanted = [int(np.abs(points - k / max(scales - 1, 1)).argmin()) for k in range(scales)]
            assert list(Smoothing(2, scales, convs=convs).serving) == wanted


def test_one_quantizer_for_all_scales_learns_once_a_step_from_all() -> None:
    quantizer = built("scales 3d")
    (table,) = quantizer.quantizers
    z = latents(quantizer)
    seen: list[Tensor] = []
    original = table.quantize
    table.quantize = lambda x, *rest: seen.append(x.detach()) or original(x, *rest)
    alone = EMAVQ(V, D)
    alone.load_state_dict(table.state_dict())
    quantizer(z)
    update(quantizer)
    alone(torch.cat(seen).t()[None])
    update(alone)
    assert len(torch.cat(seen)) == 3 * (2 + 6 + 24)
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(table.state_dict()[key], value)


def test_one_quantizer_for_all_scales_starts_from_all() -> None:
    torch.manual_seed(0)
    quantizer = MultiScale(emas(1, start=True), [(1,), (8,)], Linear())
    z = torch.randn(30, D, 8) + 50 * torch.randn(30, D, 1)  # large means, small rests
    quantizer.initialize(z)
    norms = quantizer.quantizers[0].codebook.norm(dim=1)
    assert not quantizer.starting and norms.min() < 10 < norms.max()


def test_a_cell_is_the_mean_of_its_valid_positions() -> None:
    quantizer = built("", MultiScale([VQ(V, D)], [(2,), (4,)], Nearest())).eval()
    z = torch.randn(1, D, 4)
    valid = torch.tensor([[True, True, True, False]])
    alone = quantizer.encode(torch.cat([z[..., :3], z[..., 2:3]], -1))
    assert torch.equal(quantizer(z, valid).streams[0], alone[0])


def test_scale_dropout_is_drawn_per_sample() -> None:
    quantizer = built("", var(depth=UniformDepth()))
    torch.manual_seed(0)
    z = latents(quantizer, batch=30)
    found = quantizer(z)
    assert set(found.depth.tolist()) == {1, 2, 3, 4}
    full = quantizer.eval()(z)
    for k, n in enumerate(found.depth.tolist()):
        one = [stream[k : k + 1] for stream in full.streams[:n]]
        torch.testing.assert_close(found.z[k : k + 1], quantizer.decode(one))
        assert all(torch.equal(a[k], b[k]) for a, b in zip(found.streams[:n], full.streams, strict=False))
