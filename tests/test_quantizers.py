"""What single quantizers and their parts are meant to compute, beside what all of them promise."""

import copy
from itertools import pairwise

import pytest
import torch
from quantizer_cases import D, V, built, latents, mask, ready
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.quantizers import lookup
from codeczoo.quantizers.dropout import ChosenDepth, Depth, PerBatch, UniformDepth, kept
from codeczoo.quantizers.estimators import DiVeQ, Gumbel, Rotation, StraightThrough
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.tables import TableVQ
from codeczoo.quantizers.tally import update
from codeczoo.quantizers.upkeep import Anchors, Restart
from codeczoo.quantizers.vq import EMAVQ, VQ, CosineEMAVQ, CosineVQ

TABLES = ["vq", "cosine", "ema", "cosine ema"]


def flat(z: Tensor) -> Tensor:
    """z (B, D, *S) as rows (n, D)."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


# --- look-up and losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_look_up_is_brute_force_in_any_chunking(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, z = ready(name), latents((3, D, 50))
    x, table = quantizer.normalise(flat(z)), quantizer.table()
    expected = torch.cdist(x.double(), table.double()).argmin(1)
    for chunk in (1, V * 7, 1 << 22):
        monkeypatch.setitem(lookup.CHUNK, "cpu", chunk)
        assert torch.equal(quantizer.encode(z).flatten(), expected)


@pytest.mark.parametrize("name", ["vq", "cosine"])
def test_losses_pull_the_right_side(name: str) -> None:
    quantizer, z = ready(name), latents("1d").requires_grad_()
    losses = quantizer(z).losses
    assert set(losses) == {"commitment", "codebook"} and torch.equal(losses["commitment"], losses["codebook"])
    losses["commitment"].backward(retain_graph=True)
    assert z.grad.abs().sum() > 0 and quantizer.codebook.grad is None
    z.grad = None
    losses["codebook"].backward()
    assert z.grad is None and quantizer.codebook.grad.abs().sum() > 0


@pytest.mark.parametrize("name", TABLES)
def test_commitment_is_the_mean_over_valid_tokens_and_channels(name: str) -> None:
    quantizer, z = ready(name), latents("1d")
    valid = mask("empty row", z)
    q = quantizer(z, valid)
    error = (quantizer.normalise(flat(z)) - flat(q.z)).square()[valid.flatten()]
    torch.testing.assert_close(q.losses["commitment"], error.mean())


@pytest.mark.parametrize("name", ["cosine", "cosine ema"])
def test_gradient_by_angle_is_that_of_the_unit_vector(name: str) -> None:
    quantizer, z, weight = ready(name), latents("1d").requires_grad_(), latents("1d", seed=1)
    (quantizer(z).z * weight).sum().backward()
    u = z.detach().clone().requires_grad_()
    (F.normalize(u, dim=1) * weight).sum().backward()
    torch.testing.assert_close(z.grad, u.grad)


# --- moving averages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cosine", [False, True])
def test_moving_averages_are_those_of_the_paper(cosine: bool) -> None:
    """N <- l N + (1 - l) n; M <- l M + (1 - l) m; E = M / N, N smoothed: with one-hot matrices, as everywhere else."""
    quantizer = (CosineEMAVQ if cosine else EMAVQ)(V, D, decay=0.7, epsilon=1e-3)
    counts, sums, table = (t.clone() for t in (quantizer.counts, quantizer.sums, quantizer.codebook))
    for step in range(4):
        z = latents((2, D, 40), seed=step)
        x = F.normalize(flat(z), dim=1) if cosine else flat(z)
        hot = F.one_hot(torch.cdist(x, table).argmin(1), V).float()
        counts = 0.7 * counts + 0.3 * hot.sum(0)
        sums = 0.7 * sums + 0.3 * hot.t() @ x
        smooth = (counts + 1e-3) / (counts.sum() + V * 1e-3) * counts.sum()
        table = sums / smooth[:, None]
        table = F.normalize(table, dim=1) if cosine else table
        quantizer(z)
        update(quantizer)
        torch.testing.assert_close(quantizer.codebook, table, rtol=1e-4, atol=1e-5)
    quantizer.eval()(z)
    update(quantizer)
    torch.testing.assert_close(quantizer.codebook, table, rtol=1e-4, atol=1e-5, msg="evaluation must not move entries")


@pytest.mark.parametrize(
    "name",
    [
        "ema restart", "ema anchors", "cosine ema anchors", "vq anchors", "cosine restart", "residual 8",
        "residual kmeans", "residual mixed",
    ],
)
def test_unequal_batches_of_one_step_add_up(name: str) -> None:
    """Forwards on parts of a batch, then one update, leave the state of one forward on all of it."""
    parts, whole = ready(name), ready(name)
    for step in range(4):
        z = latents((1, D, 60), seed=step)
        for some in z.split([11, 0, 42, 7], dim=2):
            parts(some)
        whole(z)
        update(parts)
        update(whole)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-5, atol=1e-6)


# --- upkeep ----------------------------------------------------------------------------------------------------------


def test_anchors_move_as_defined() -> None:
    """The rule of 1d-tokenizer's CVQ, written out with full distance matrices."""
    quantizer = VQ(12, D, Anchors(12))
    torch.nn.init.normal_(quantizer.codebook, generator=torch.Generator().manual_seed(1))
    prob, table = torch.zeros(12), quantizer.codebook.detach().clone()
    for step in range(3):
        z = latents((2, D, 20), seed=step)
        distance = torch.cdist(flat(z), table)
        share = torch.bincount(distance.argmin(1), minlength=12) / 40
        prob = 0.99 * prob + 0.01 * share
        alpha = torch.exp(-(prob * 12 * 10) / (1 - 0.99) - 1e-3)[:, None]
        table = (1 - alpha) * table + alpha * flat(z)[distance.argmin(0)]
        quantizer(z)
        update(quantizer)
        torch.testing.assert_close(quantizer.codebook.detach(), table, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [VQ, CosineVQ, EMAVQ, CosineEMAVQ])
def test_p11_restarted_entries_are_latents_that_survive(kind: type[TableVQ]) -> None:
    quantizer = kind(20, 4, Restart(20, threshold=0.1, every=3, decay=0.4))
    entries = latents((20, 4), seed=9)
    entries[10:] = entries[10:] * 1e-3 - 20  # nobody's nearest, by distance or angle
    quantizer.place(quantizer.normalise(entries), torch.ones(20))
    generator = torch.Generator().manual_seed(1)

    def step() -> tuple[Tensor, Tensor, Tensor]:
        """Latents as they are compared, which entries were hit, which entries jumped."""
        before = quantizer.table().detach().clone()
        z = torch.rand(1, 4, 200, generator=generator)
        index = quantizer(z).codes
        update(quantizer)
        hit = torch.zeros(20, dtype=torch.bool).index_fill_(0, index.flatten(), True)
        jumped = (quantizer.table() - before).norm(dim=1) > 0.5 * before.norm(dim=1)
        return quantizer.normalise(flat(z)), hit, jumped

    restarted = torch.zeros(20, dtype=torch.bool)
    for number in range(1, 7):
        x, hit, jumped = step()
        if number % 3:
            assert not jumped[~hit].any(), "only every third step restarts, and what was restarted stays"
            continue
        found = (quantizer.table()[:, None] - x).abs().sum(-1).min(1)
        assert not (jumped & hit).any() and (number > 3 or jumped[10:].all())
        assert (found.values[jumped] < 1e-6).all() and len(set(found.indices[jumped].tolist())) == jumped.sum()
        assert (quantizer.upkeep.usage[jumped] == 1).all()
        if isinstance(quantizer, EMAVQ):
            assert torch.allclose(quantizer.counts[jumped], quantizer.counts[jumped][0])
        restarted |= jumped
        kept = quantizer.table().detach().clone()
        quantizer(torch.full((1, 4, 8), 9.0))  # all in one corner: most of the new entries get nothing
        if isinstance(quantizer, EMAVQ):  # the averages alone, without the rule
            quantizer.upkeep.tally.take()
            rule, quantizer.upkeep = quantizer.upkeep, None
            update(quantizer)
            quantizer.upkeep = rule
            still = jumped & ~torch.zeros(20, dtype=torch.bool).index_fill_(
                0, quantizer.encode(torch.full((1, 4, 8), 9.0)).flatten(), True
            )
            assert still.any()
            torch.testing.assert_close(quantizer.table()[still], kept[still], rtol=1e-3, atol=1e-6)
        else:
            quantizer.upkeep.tally.take()
    assert restarted[10:].all()


def test_p11_an_entry_that_was_just_used_stays_however_rarely_it_is() -> None:
    quantizer = VQ(3, 2, Restart(3, threshold=0.5, every=1, decay=0.0))
    quantizer.codebook.data.copy_(torch.tensor([[0, 0], [5, 0], [90, 90.0]]))
    z = torch.zeros(1, 2, 100)
    z[0, 0, 0] = 5.2  # one token of a hundred: usage 0.03
    quantizer(z)
    update(quantizer)
    table = quantizer.codebook.detach()
    assert torch.equal(table[:2], torch.tensor([[0, 0], [5, 0.0]]))
    assert table[2].tolist() in ([0, 0], z[0, :, 0].tolist())


@pytest.mark.parametrize("kind", [EMAVQ, CosineEMAVQ])
def test_p19_nearly_all_entries_get_used(kind: type[TableVQ]) -> None:
    torch.manual_seed(0)
    quantizer = kind(256, 8, Restart(256))
    quantizer.codebook.mul_(0.01)
    for _ in range(150):
        quantizer(torch.randn(4, 8, 256))
        update(quantizer)
    used = torch.bincount(quantizer.eval().encode(torch.randn(16, 8, 1024)).flatten(), minlength=256) > 0
    assert used.float().mean() >= 0.95


# --- k-means ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EMAVQ, CosineEMAVQ])
def test_p12_a_step_with_the_same_data_leaves_the_centres(kind: type[TableVQ]) -> None:
    """With the sums not scaled by the counts, as in encodec, centres would shrink to nothing here."""
    quantizer = kind(6, D, start=KMeans(20))
    spots = latents((6, D), seed=3)
    x = spots[torch.arange(300) % 6] + 0.01 * latents((300, D), seed=4)
    quantizer.initialize(x.t()[None])
    centres = quantizer.codebook.clone()
    quantizer(x.t()[None])
    update(quantizer)
    assert ((quantizer.codebook - centres).norm(dim=1) <= 1e-5 * centres.norm(dim=1)).all()
    own = quantizer.encode(x.t()[None]).flatten()
    means = [quantizer.normalise(x)[own == i].mean(0) for i in range(6)]
    torch.testing.assert_close(centres, quantizer.normalise(torch.stack(means)))


@pytest.mark.parametrize("tokens", [1, 5, 36])
def test_p12_fewer_latents_than_centres(tokens: int) -> None:
    quantizer, z = EMAVQ(V, D, start=KMeans()), latents((1, D, tokens))
    quantizer.initialize(z)
    centres = quantizer.codebook.clone()
    assert len(centres.unique(dim=0)) == V, "copies must differ"
    assert (torch.cdist(flat(z), centres).min(1).values < 0.3).all()
    quantizer(z)
    update(quantizer)
    torch.testing.assert_close(quantizer.codebook, centres, rtol=1e-2, atol=1e-2)


def test_p12_many_equal_latents_take_one_centre() -> None:
    x = torch.cat([latents((1, D)).expand(500, -1), latents((V - 1, D), seed=1)])
    quantizer = EMAVQ(V, D, start=KMeans())
    quantizer.initialize(x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))].t()[None])
    assert (torch.cdist(x, quantizer.codebook).min(1).values < 1e-3).all()


def test_kmeans_counts_no_masked_latent() -> None:
    z, other = latents((2, D, 60)), latents((2, D, 60))
    valid = mask("ragged", z)
    other = torch.where(valid[:, None], other, torch.nan)
    tables = []
    for given in (z, other):
        quantizer = EMAVQ(V, D, start=KMeans())
        quantizer.initialize(given, valid)
        tables.append(quantizer.codebook)
    assert torch.equal(*tables)


def test_layers_start_one_a_batch_and_take_no_part_before() -> None:
    quantizer, z = built("residual kmeans"), latents((4, D, 60))
    with pytest.raises(InputError, match="starts from data"):
        quantizer.encode(z)
    for k in range(3):
        assert quantizer.starting
        quantizer.initialize(z)
        assert [layer.starting for layer in quantizer.layers] == [i > k for i in range(3)]
        waiting = copy.deepcopy(quantizer.layers[k + 1:].state_dict())
        q = quantizer(z)
        assert not q.codes[:, k + 1:].any() and torch.equal(q.z, quantizer.decode(q.codes[:, : k + 1]))
        update(quantizer)
        assert all(torch.equal(value, waiting[key]) for key, value in quantizer.layers[k + 1:].state_dict().items())
    assert not quantizer.starting


# --- residual --------------------------------------------------------------------------------------------------------


def test_p4_each_layer_lessens_the_error_and_prefixes_decode() -> None:
    torch.manual_seed(0)
    quantizer = Residual([EMAVQ(32, D, Restart(32), KMeans(), decay=0.9) for _ in range(6)])
    z = latents((8, D, 100))
    for _ in range(30):
        if quantizer.starting:
            quantizer.initialize(z)
        quantizer(z)
        update(quantizer)
    quantizer.eval()
    codes, errors = quantizer.encode(z), [z.square().mean().item()]
    for k in range(1, 7):
        prefix = quantizer.decode(codes[:, :k])
        q = quantizer(z, depth=torch.full((8,), k))
        assert torch.equal(q.z, prefix) and torch.equal(q.codes[:, :k], codes[:, :k]) and not q.codes[:, k:].any()
        assert torch.equal(quantizer.encode(z, n_codebooks=k), codes[:, :k])
        errors.append((z - prefix).square().mean().item())
    assert all(later < 0.9 * earlier for earlier, later in pairwise(errors)), errors


def test_each_sample_has_its_own_depth() -> None:
    quantizer, z, depth = ready("residual 8"), latents((4, D, 9)).requires_grad_(), torch.tensor([1, 8, 3, 5])
    q = quantizer(z, depth=depth)
    for i, n in enumerate(depth.tolist()):
        one = quantizer(z[i : i + 1], depth=depth[i : i + 1])
        assert torch.equal(q.z[i], one.z[0]) and torch.equal(q.codes[i], one.codes[0])
        assert torch.equal(q.z[i], quantizer.decode(q.codes[i : i + 1, :n])[0])
    layers, left = [], z
    for k, layer in enumerate(quantizer.layers):
        taking_part = depth > k
        layers.append((left - layer.decode(q.codes[:, k : k + 1]))[taking_part].square().mean())
        left = torch.where(taking_part[:, None, None], left - layer.decode(q.codes[:, k : k + 1]), left)
    expected = sum(layers) / 8
    torch.testing.assert_close(q.losses["commitment"], expected)
    gradients = [torch.autograd.grad(3 * loss, z)[0] for loss in (q.losses["commitment"], expected)]
    torch.testing.assert_close(*gradients)


def test_dropped_layers_learn_nothing_from_the_samples_they_miss() -> None:
    some, alone, z = ready("residual 8"), ready("residual 8"), latents((4, D, 30))
    some(z, depth=torch.tensor([8, 2, 2, 8]))
    alone(z[[0, 3]])
    update(some)
    update(alone)
    for k in range(2, 8):
        torch.testing.assert_close(some.layers[k].state_dict(), alone.layers[k].state_dict())
    assert not torch.allclose(some.layers[1].codebook, alone.layers[1].codebook)


class Kept(dict[int, Tensor]):
    """What a graph saves, each tensor once."""

    def __call__(self, saved: Tensor) -> Tensor:
        return self.setdefault(saved.data_ptr(), saved)


@pytest.mark.parametrize("dropout", [False, True])
def test_memory_of_a_step_does_not_grow_with_the_layers(dropout: bool) -> None:
    """Nothing but codes: neither for the backward pass nor until the update, where layers get what they got before."""
    sizes = []
    for layers in (2, 8):
        quantizer = Residual([EMAVQ(V, D) for _ in range(layers)], UniformDepth() if dropout else None)
        z, kept = latents((4, D, 30)).requires_grad_(), Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept, lambda t: t):
            q = quantizer(z)
        sizes.append(sum(t.untyped_storage().nbytes() for t in kept.values() if t.is_floating_point()))
        assert not any(layer.tally.held for layer in quantizer.layers)
        q.losses["commitment"].backward()
        before = [layer.counts.clone() for layer in quantizer.layers]
        quantizer.update()  # layers have nothing left to do: they learned one after the other
        assert quantizer.held is None and not any(layer.tally.held for layer in quantizer.layers)
        assert not any(torch.equal(layer.counts, old) for layer, old in zip(quantizer.layers, before, strict=True))
    assert 0 < sizes[0] == sizes[1] <= 2 * z.nbytes


@pytest.mark.parametrize("name", ["vq", "vq gumbel", "ema restart", "simvq", "angular"])
def test_quantizers_that_only_commit(name: str) -> None:
    """Residual may then sum what losses pull by, and keep no graph."""
    quantizer, z = ready(name), latents("1d").requires_grad_()
    assert quantizer.only_commits
    q = quantizer(z)
    sum(q.losses.values()).backward()
    torch.testing.assert_close(z.grad, 2 * (z - q.z).detach() / z.numel())


def test_quantizers_that_do_more_than_commit() -> None:
    for name in ("cosine", "cosine ema", "shared mapping", "ibq", "lfq", "bsq", "projected", "residual 8", "split"):
        assert not ready(name).only_commits, name


@pytest.mark.parametrize("kind", [EMAVQ, CosineEMAVQ])
def test_layers_learn_in_a_stack_what_they_learn_alone(kind: type[EMAVQ]) -> None:
    stack = Residual([kind(V, D, Restart(V, every=2)) for _ in range(3)])
    for step in range(3):
        z, alone = latents((4, D, 30), seed=step), copy.deepcopy(stack)
        stack(z)
        update(stack)
        for layer in alone.layers:
            z = z - layer(z).z
            update(layer)
        torch.testing.assert_close(stack.state_dict(), alone.state_dict(), rtol=1e-5, atol=1e-6)


def test_layers_in_evaluation_do_not_learn() -> None:
    quantizer = ready("residual 8")
    quantizer.layers[2].eval()
    before = [layer.codebook.clone() for layer in quantizer.layers]
    quantizer(latents("1d"))
    update(quantizer)
    still = [torch.equal(layer.codebook, table) for layer, table in zip(quantizer.layers, before, strict=True)]
    assert still == [k == 2 for k in range(8)]


def test_a_layer_is_not_trained_by_what_it_leaves_to_later_ones() -> None:
    quantizer = ready("residual projected")
    sum(quantizer(latents("1d")).losses.values()).backward()
    ways_out = [layer.out_proj.weight.grad for layer in quantizer.layers]
    assert all(grad is None or not grad.any() for grad in ways_out)
    assert all(layer.in_proj.weight.grad.any() for layer in quantizer.layers)


def test_what_residual_refuses() -> None:
    with pytest.raises(ConfigError, match="equal dim"):
        Residual([VQ(4, 3), VQ(4, 5)])
    with pytest.raises(ConfigError, match="at least one"):
        Residual([])
    with pytest.raises(InputError):
        ready("residual 3").decode(torch.zeros(1, 4, 2, dtype=torch.int64))
    for n in (0, 4):
        with pytest.raises(InputError):
            ready("residual 3").encode(latents("1d"), n_codebooks=n)


@pytest.mark.parametrize(
    ("rule", "shares"),
    [
        (UniformDepth(), {1: 0.25, 2: 0.25, 3: 0.25, 4: 0.25}),
        (UniformDepth(0.5, least=2), {2: 1 / 6, 3: 1 / 6, 4: 2 / 3}),
        (ChosenDepth((1, 4)), {1: 0.5, 4: 0.5}),
    ],
)
def test_depths_are_drawn_as_said(rule: Depth, shares: dict[int, float]) -> None:
    torch.manual_seed(0)
    drawn = rule(20_000, 4, torch.device("cpu"))
    found = {n: c / 20_000 for n, c in zip(*(t.tolist() for t in drawn.unique(return_counts=True)), strict=True)}
    assert found == pytest.approx(shares, abs=0.02)
    whole = [PerBatch(rule)(5, 4, torch.device("cpu")) for _ in range(40)]
    assert all(len(depth.unique()) == 1 for depth in whole) and {int(depth[0]) for depth in whole} == set(shares)
    with pytest.raises(ConfigError, match="wants"):
        ChosenDepth((1, 9))(2, 4, torch.device("cpu"))


# --- estimators ------------------------------------------------------------------------------------------------------


def test_rotation_turns_the_gradient_with_the_latent() -> None:
    x, value, above = latents((50, D)).requires_grad_(), latents((50, D), seed=1), latents((50, D), seed=2)
    estimator = Rotation(most=1e6)
    out = estimator(x, value)
    assert torch.equal(out, value)
    out.backward(above)
    size = value.norm(dim=1) / x.detach().norm(dim=1)
    torch.testing.assert_close(x.grad.norm(dim=1), size * above.norm(dim=1), rtol=1e-4, atol=1e-5)
    angle = F.cosine_similarity(x.detach(), x.grad), F.cosine_similarity(value, above)
    torch.testing.assert_close(*angle, rtol=1e-4, atol=1e-4)


def test_rotation_is_the_identity_where_it_is_not_defined() -> None:
    x = torch.stack([torch.zeros(D), torch.ones(D), torch.ones(D), torch.full((D,), 1e-3)]).requires_grad_()
    value = torch.stack([torch.ones(D), -torch.ones(D), torch.zeros(D), torch.full((D,), 1e3)])
    above = torch.ones(4, D)
    out = Rotation(most=10.0)(x, value)
    out.backward(above)
    assert torch.equal(out, value) and torch.equal(x.grad[:3], above[:3])
    torch.testing.assert_close(x.grad[3], 10 * above[3])


def test_diveq_has_the_size_of_the_error_and_gradients_both_ways() -> None:
    torch.manual_seed(0)
    x, value = latents((50, D)).requires_grad_(), latents((50, D), seed=1).requires_grad_()
    out = DiVeQ(1e-6)(x, value)
    torch.testing.assert_close(out, value, atol=2e-2, rtol=0)
    torch.testing.assert_close((out - x).norm(dim=1), (value - x).norm(dim=1))
    out.sum().backward()
    assert x.grad.any() and value.grad.any()
    near = latents((3, D)).requires_grad_()
    DiVeQ()(near, near.detach().clone()).sum().backward()
    assert near.grad.isfinite().all()
    quantizer = ready("vq diveq")
    quantizer(latents("1d")).z.sum().backward()
    assert quantizer.codebook.grad.any()


def test_gumbel_chooses_as_often_as_the_softmax_says() -> None:
    torch.manual_seed(0)
    quantizer = VQ(5, 2, estimator=Gumbel(0.5))
    quantizer.codebook.data.copy_(torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [2, 2.0]]))
    z = torch.tensor([0.3, 0.4]).view(1, 2, 1).expand(1, 2, 20_000)
    scores = -(torch.tensor([0.3, 0.4]) - quantizer.codebook.detach()).square().sum(1) / 2
    found = torch.bincount(quantizer(z).codes.flatten(), minlength=5) / 20_000
    torch.testing.assert_close(found, (scores / 0.5).softmax(0), atol=0.012, rtol=0)
    assert len(quantizer.eval()(z).codes.unique()) == 1


def test_straight_through_keeps_bits_that_a_sum_would_lose() -> None:
    x, value = torch.full((1, 3), 1e6), torch.full((1, 3), 0.1234567)
    assert torch.equal(StraightThrough()(x, value), value) and not torch.equal(x + (value - x), value)


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EMAVQ(V, D, decay=1.0), lambda: EMAVQ(V, D, epsilon=0), lambda: Restart(V, threshold=1.0),
        lambda: Restart(V, every=0), lambda: Anchors(V, decay=-0.1), lambda: KMeans(0), lambda: KMeans(noise=0),
        lambda: Rotation(0), lambda: DiVeQ(-1), lambda: Gumbel(0), lambda: UniformDepth(1.5), lambda: ChosenDepth(()),
    ],
)
def test_wrong_arguments_are_config_errors(wrong: object) -> None:
    with pytest.raises(ConfigError):
        wrong()  # type: ignore[operator]


def test_wrong_masks_are_input_errors() -> None:
    z = latents("1d")
    for valid in (torch.ones(3, 11), torch.ones(3, 6, 11, dtype=torch.bool), torch.ones(3, 10, dtype=torch.bool)):
        with pytest.raises(InputError, match="valid must be bool"):
            ready("vq")(z, valid)


def test_tail_drop_is_a_mask_of_fixed_shape() -> None:
    torch.manual_seed(0)
    mask = kept(UniformDepth()(4000, 8, torch.device("cpu")), 8)
    assert mask.shape == (4000, 8) and mask.dtype == torch.bool
    assert (mask.int().diff(dim=1) <= 0).all(), "only the tail goes"
    shares = torch.bincount(mask.sum(1), minlength=9)[1:] / 4000
    assert (shares - 1 / 8).abs().max() < 0.03 and not (mask.sum(1) == 0).any()
