"""SimVQ, IBQ, penalties, adaptive k-means, semantic ids, and the estimators: against formulas written out."""

import math
from pathlib import Path

import pytest
import torch
from in_ranks import in_ranks
from torch import Tensor, distributed
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError, InputError
from codeczoo.quantizers import ibq, lookup
from codeczoo.quantizers.adaptive import AdaptiveKMeans, CosineAdaptiveKMeans, Elbow, Silhouette
from codeczoo.quantizers.estimators import DiVeQ, Gumbel, Rotation
from codeczoo.quantizers.ibq import IBQ, Entropy, Propagation
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.penalties import Orthogonality
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.semantic_ids import RQVAE, unique_ids
from codeczoo.quantizers.simvq import SimVQ
from codeczoo.quantizers.tables import Matching
from codeczoo.quantizers.tally import update
from codeczoo.quantizers.upkeep import Restart
from codeczoo.quantizers.vq import EMAVQ, VQ, CosineVQ

V, D = 23, 6
KINDS = {
    "simvq": lambda: SimVQ(V, D),
    "simvq orthogonal": lambda: SimVQ(V, D, penalty=Orthogonality()),
    "ibq": lambda: IBQ(V, D),
    "ibq entropy": lambda: IBQ(V, D, Entropy(0.5), Orthogonality()),
}


@pytest.fixture(params=KINDS)
def quantizer(request: pytest.FixtureRequest) -> Matching:
    torch.manual_seed(0)
    return KINDS[request.param]()


def flat(z: Tensor) -> Tensor:
    return z.movedim(1, -1).reshape(-1, z.shape[1])


@pytest.mark.parametrize("shape", [(3, D), (2, D, 11), (2, D, 4, 5), (1, D, 2, 3, 4)], ids=str)
def test_forward_value_is_exactly_the_decoded_code(quantizer: Matching, shape: tuple[int, ...]) -> None:
    z = torch.randn(shape)
    for _ in range(2):
        q = quantizer(z)
        assert q.codes.shape == (shape[0], 1, *shape[2:]) and q.codes.dtype == torch.int64
        assert torch.equal(q.z, quantizer.decode(q.codes)) and torch.equal(q.codes, quantizer.encode(z))
        quantizer.eval()


def test_masked_positions_count_nowhere(quantizer: Matching) -> None:
    z, valid = torch.randn(2, D, 9), torch.rand(2, 9) > 0.4
    results = []
    for padding in (1e4, float("nan"), None):
        quantizer.zero_grad()
        if padding is None:  # the valid tokens by themselves
            given, mask = flat(z)[valid.flatten()].t()[None], None
        else:
            given, mask = torch.where(valid[:, None], z, padding), valid
        given.requires_grad_()
        q = quantizer(given, mask)
        (sum(q.losses.values()) + q.z.square().sum()).backward()
        codes, grad = q.codes[:, 0].flatten(), flat(given.grad)
        if mask is not None:
            assert not flat(q.z)[~valid.flatten()].any() and not grad[~valid.flatten()].any()
            codes, grad = codes[valid.flatten()], grad[valid.flatten()]
        results.append((codes, grad, *q.losses.values(), *(p.grad.clone() for p in quantizer.parameters())))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_all_masked_is_finite(quantizer: Matching) -> None:
    z = torch.randn(2, D, 3, requires_grad=True)
    q = quantizer(z, torch.zeros(2, 3, dtype=torch.bool))
    (sum(q.losses.values()) + q.z.sum()).backward()
    assert all(torch.isfinite(loss) for loss in q.losses.values()) and not z.grad.any() and not q.z.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in quantizer.parameters())


def test_float32_under_autocast_and_after_half(quantizer: Matching) -> None:
    z = torch.randn(4, D, 50).bfloat16().requires_grad_()
    exact = torch.autograd.grad(sum(quantizer(z.float()).losses.values()), list(quantizer.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        q = quantizer.bfloat16()(z)
    grads = torch.autograd.grad(sum(q.losses.values()), list(quantizer.parameters()))
    assert q.z.dtype == torch.bfloat16 and torch.equal(q.codes, quantizer.encode(z.float()))
    for a, b in zip(grads, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_simvq_trains_the_map_alone_and_saves_its_vectors() -> None:
    torch.manual_seed(0)
    quantizer, z = SimVQ(V, D), torch.randn(2, D, 30, requires_grad=True)
    frozen = quantizer.frozen.clone()
    table = frozen @ quantizer.map.weight.detach().clone().requires_grad_().t()
    q = quantizer(z)
    index = torch.cdist(flat(z.detach()), table.detach()).argmin(1)
    assert torch.equal(q.codes.flatten(), index) and [n for n, _ in quantizer.named_parameters()] == ["map.weight"]
    weight = quantizer.map.weight.detach().clone().requires_grad_()
    expected = (frozen[index] @ weight.t() - flat(z.detach())).square().mean()
    torch.testing.assert_close(q.losses["codebook"], expected)
    torch.testing.assert_close(q.losses["commitment"], expected)
    q.losses["commitment"].backward(retain_graph=True)
    assert quantizer.map.weight.grad is None and z.grad.any()
    q.losses["codebook"].backward()
    expected.backward()
    torch.testing.assert_close(quantizer.map.weight.grad, weight.grad)
    other = SimVQ(V, D)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other.frozen, frozen) and torch.equal(other.encode(z), quantizer.encode(z))


def test_simvq_learns_with_all_its_entries() -> None:
    torch.manual_seed(0)
    quantizer = SimVQ(64, 4)
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
    z = torch.randn(1, 4, 2000) * torch.tensor([3.0, 1.0, 0.3, 0.1])[:, None]
    for _ in range(300):
        optimizer.zero_grad()
        quantizer(z).losses["codebook"].backward()
        optimizer.step()
    q = quantizer(z)
    assert q.losses["codebook"] < z.square().mean() / 8 and q.codes.unique().numel() > 0.7 * 64


def naive_ibq(z: Tensor, table: Tensor, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The published formulas on rows (n, D), with all tokens x entries."""
    scores = z @ table.t()
    soft = scores.softmax(1)
    hard = F.one_hot(scores.argmax(1), len(table)).to(z.dtype)
    value, code = (hard - soft.detach() + soft) @ table, hard @ table
    p = (scores / temperature).softmax(1)
    mean = p.mean(0)
    return value, {
        "index": (value - z).square().mean(),
        "commitment": (code.detach() - z).square().mean(),
        "codebook": (code - z.detach()).square().mean(),
        "sample_entropy": torch.special.entr(p).sum(1).mean(),
        "batch_entropy": -torch.special.entr(mean).sum(),
    }


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_ibq_is_the_naive_formula(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setitem(lookup.CHUNK, "cpu", chunk)
    monkeypatch.setattr(ibq, "FEWEST", 7)
    torch.manual_seed(0)
    quantizer, z = IBQ(V, D, Entropy(0.3)), torch.randn(2, D, 20, requires_grad=True)
    x, table = (t.detach().double().requires_grad_() for t in (flat(z), quantizer.codebook))
    value, expected = naive_ibq(x, table, 0.3)
    q, weight = quantizer(z), torch.randn(2, D, 20)
    assert set(q.losses) == set(expected)
    pairs = {name: (q.losses[name], expected[name]) for name in expected}
    pairs["reconstruction"] = ((q.z * weight).sum(), (value * flat(weight)).sum())
    for name, (ours, naive) in pairs.items():
        torch.testing.assert_close(ours.double(), naive, rtol=1e-5, atol=1e-6, msg=name)
        a = torch.autograd.grad(ours, [z, quantizer.codebook], retain_graph=True, allow_unused=True)
        b = torch.autograd.grad(naive, [x, table], retain_graph=True, allow_unused=True)
        for mine, theirs in zip((a[0] if a[0] is None else flat(a[0]), a[1]), b, strict=True):
            if theirs is None or not theirs.any():
                assert mine is None or not mine.any(), name
            else:
                torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-6, msg=name)
    (grad,) = torch.autograd.grad((q.z * weight).sum(), quantizer.codebook)
    assert grad.any(1).all(), "every entry gets gradient"


def test_ibq_smooth_parts_pass_gradcheck() -> None:
    torch.manual_seed(0)
    x, table = torch.randn(9, 3).double().requires_grad_(), torch.randn(5, 3).double().requires_grad_()
    weight = torch.rand(9).double()
    assert torch.autograd.gradcheck(lambda a, b: ibq._Probabilities.apply(a, b, weight, 1.7), (x, table))


def test_ibq_in_a_residual_keeps_its_gradient() -> None:
    torch.manual_seed(0)
    quantizer, z = Residual([IBQ(V, D), IBQ(V, D)], estimator=Propagation()), torch.randn(1, D, 12, requires_grad=True)
    q = quantizer(z)
    assert torch.equal(q.z, quantizer.decode(q.codes))
    q.z.square().sum().backward()
    x, *tables = (t.detach().clone().requires_grad_() for t in (flat(z), *quantizer.parameters()))
    a, _ = naive_ibq(x, tables[0], 1.0)
    b, _ = naive_ibq(x - a.detach(), tables[1], 1.0)
    (a + b).square().sum().backward()
    torch.testing.assert_close(flat(z.grad), x.grad, rtol=1e-4, atol=1e-5)
    for mine, naive in zip(quantizer.parameters(), tables, strict=True):
        torch.testing.assert_close(mine.grad, naive.grad, rtol=1e-4, atol=1e-5)


def test_orthogonality_is_the_mean_squared_cosine() -> None:
    torch.manual_seed(0)
    for v, d in ((20, 6), (6, 20), (1, 3)):
        table = torch.randn(v, d, requires_grad=True)
        unit = F.normalize(table, dim=1)
        expected = (unit @ unit.t()).square().sum() / v**2 - 1 / v
        ours = Orthogonality()(table)["orthogonality"]
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
        a, b = (torch.autograd.grad(loss, table)[0] for loss in (ours, expected))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    assert Orthogonality()(torch.eye(5))["orthogonality"].abs() < 1e-7


def test_penalties_train_codebooks() -> None:
    torch.manual_seed(0)
    for quantizer in (VQ(8, 8, penalty=Orthogonality()), CosineVQ(8, 8, penalty=Orthogonality())):
        torch.nn.init.normal_(quantizer.codebook)
        optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
        for _ in range(300):
            optimizer.zero_grad()
            quantizer(torch.randn(1, 8, 3)).losses["orthogonality"].backward()
            optimizer.step()
        assert Orthogonality()(quantizer.codebook)["orthogonality"] < 1e-3


def losses_of_ibq(rank: int, world: int) -> dict[str, Tensor]:
    """Losses and the gradient, averaged over the ranks as DDP does."""
    torch.manual_seed(0)
    quantizer = IBQ(16, 4, Entropy(0.5))
    z, valid = torch.randn(30, 4), torch.rand(30) > 0.3
    mine = slice(0, 30) if world == 1 else (slice(0, 9), slice(9, 30))[rank]
    q = quantizer(z[mine].t()[None], valid[None, mine])
    sum(q.losses.values()).backward()
    found = {"codebook": quantizer.codebook.grad} | {name: loss.detach() for name, loss in q.losses.items()}
    for value in found.values():
        if world > 1:
            distributed.all_reduce(value)
            value /= world
    return found


def test_ibq_under_ddp_equals_one_process(tmp_path: Path) -> None:
    (whole,), (first, second) = in_ranks(losses_of_ibq, (1, 2), tmp_path)
    for name in whole:
        torch.testing.assert_close(first[name], whole[name], rtol=1e-5, atol=1e-6, msg=name)
        torch.testing.assert_close(second[name], whole[name], rtol=1e-5, atol=1e-6, msg=name)


def blobs(clusters: int, each: int, spread: float = 0.05) -> Tensor:
    """Tokens (D, clusters * each) in well separated clusters, in random order."""
    tokens = 4 * torch.eye(D)[:clusters].repeat_interleave(each, 0) + spread * torch.randn(clusters * each, D)
    return tokens[torch.randperm(len(tokens))].t()


@pytest.mark.parametrize("rule", [Silhouette(), Elbow()], ids=["silhouette", "elbow"])
@pytest.mark.parametrize("kind", [AdaptiveKMeans, CosineAdaptiveKMeans])
def test_adaptive_kmeans_finds_each_samples_clusters(kind: type[AdaptiveKMeans], rule: Silhouette | Elbow) -> None:
    torch.manual_seed(2)
    z = torch.stack([blobs(3, 40), blobs(6, 20)]).unflatten(2, (10, 12))
    found = kind(2, 9, rule).fit(z)
    assert found.clusters.tolist() == [3, 6] and found.index.shape == (2, 10, 12)
    assert found.counts[0].tolist() == [40] * 3 + [0] * 6 and found.counts[1].tolist() == [20] * 6 + [0] * 3
    assert (found.decode() - z).abs().max() < 0.5
    for b in range(2):
        tokens, index = z[b].flatten(1).t(), found.index[b].flatten()
        means = torch.stack([tokens[index == k].mean(0) for k in range(int(found.clusters[b]))])
        torch.testing.assert_close(found.centres[b, : len(means)], means, rtol=1e-4, atol=1e-5)


def test_adaptive_kmeans_samples_and_masks_do_not_mix() -> None:
    torch.manual_seed(0)
    z, valid = torch.randn(3, D, 50) + 5, torch.rand(3, 50) > 0.3  # padding, as 0, would be the farthest
    valid[2] = False
    tool = AdaptiveKMeans(2, 6)
    a, b = (tool.fit(torch.where(valid[:, None], z, padding), valid) for padding in (1e4, float("nan")))
    assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("centres", "index", "counts", "clusters"))
    assert not a.index[~valid].any() and not a.decode().movedim(1, -1)[~valid].any() and a.decode().isfinite().all()
    assert a.counts.sum(1).tolist() == valid.sum(1).tolist()
    for s in range(2):
        alone = tool.fit(z[s][:, valid[s]][None])
        assert torch.equal(alone.index[0], a.index[s][valid[s]]) and alone.clusters == a.clusters[s]
        torch.testing.assert_close(alone.centres[0], a.centres[s], rtol=1e-4, atol=1e-5)


def test_adaptive_kmeans_fixed_number_and_bounds() -> None:
    torch.manual_seed(0)
    z = torch.randn(2, D, 40)
    found = AdaptiveKMeans(5, 5, iterations=1).fit(z)
    assert found.clusters.tolist() == [5, 5] and found.centres.shape == (2, 5, D) and (found.counts > 0).all()
    errors = [(AdaptiveKMeans(5, 5, iterations=i).fit(z).decode() - z).square().sum() for i in (1, 3, 20)]
    assert errors[0] > errors[1] >= errors[2]
    few = AdaptiveKMeans(4, 6).fit(torch.ones(1, D, 2))  # fewer different tokens than clusters
    assert torch.equal(few.decode(), torch.ones(1, D, 2)) and few.clusters == 4
    assert torch.equal(few.centres[0, :4], torch.ones(4, D)) and few.counts[0].tolist() == [2, 0, 0, 0, 0, 0]
    assert AdaptiveKMeans(1, 1).fit(z).decode().sub(z.mean(2, keepdim=True)).abs().max() < 1e-6
    with pytest.raises(ConfigError, match="least"):
        AdaptiveKMeans(5, 4)
    with pytest.raises(InputError, match="tokens"):
        AdaptiveKMeans().fit(torch.randn(2, D))


LAYERS = {
    "ema": lambda: EMAVQ(16, 8, Restart(16), KMeans(), decay=0.9),
    "vq": lambda: VQ(16, 8, start=KMeans()),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_semantic_ids_learn_clusters(kind: str) -> None:
    torch.manual_seed(0)
    coarse = torch.randn(6, 1, 16) * 2
    centres = (coarse + 0.7 * torch.randn(6, 5, 16)).flatten(0, 1)
    vectors = (centres[:, None] + 0.05 * torch.randn(30, 20, 16)).flatten(0, 1)
    model = RQVAE(16, [32], Residual([LAYERS[kind]() for _ in range(3)]))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    weights = {"reconstruction": 1.0, "codebook": 1.0, "commitment": 0.25}
    for _ in range(400):
        batch = vectors[torch.randint(len(vectors), (256,))]
        if model.quantizer.starting:
            model.initialize(batch)
        result = model(batch)
        optimizer.zero_grad()
        sum(weights[name] * loss for name, loss in result.losses.items()).backward()
        optimizer.step()
        update(model)
    model.eval()
    codes = model.encode(vectors)
    assert codes.shape == (600, 3) and codes.dtype == torch.int64
    error = (model.decode(codes) - vectors).square().mean() / vectors.var()
    first = (model.decode(codes[:, :1]) - vectors).square().mean() / vectors.var()
    assert error < 0.06 and error < first < 0.5
    torch.testing.assert_close(model(vectors).x_hat, model.decode(codes))
    assert len(codes.unique(dim=0)) < 600
    ids = unique_ids(codes)
    assert len(ids.unique(dim=0)) == 600 and torch.equal(ids[:, :3], codes)
    with pytest.raises(InputError, match="16"):
        model.encode(vectors[:, :4])


def test_unique_ids_count_in_order() -> None:
    codes = torch.tensor([[1, 2], [0, 5], [1, 2], [2, 1], [1, 2], [0, 5]])
    assert unique_ids(codes)[:, 2].tolist() == [0, 0, 1, 0, 2, 1]
    assert unique_ids(codes[:0]).shape == (0, 3)


def test_rotation_keeps_the_angle_and_the_ratio_of_lengths() -> None:
    torch.manual_seed(0)
    x, value = torch.randn(50, D, requires_grad=True), torch.randn(50, D)
    out, g = Rotation(most=1e9)(x, value), torch.randn(50, D)
    assert torch.equal(out, value)
    out.backward(g)
    torch.testing.assert_close(x.grad.norm(dim=1) / g.norm(dim=1), value.norm(dim=1) / x.detach().norm(dim=1))
    # the angle of the gradient with the value becomes that of the new gradient with x
    torch.testing.assert_close(
        F.cosine_similarity(x.grad, x.detach()), F.cosine_similarity(g, value), rtol=1e-4, atol=1e-5
    )


def test_rotation_is_finite_everywhere() -> None:
    x = torch.randn(6, D)
    value = torch.randn(6, D)
    x[0], value[1], x[2], value[3], value[4] = 0, 0, 1e-20, -x[3], x[4]
    x[5] *= 1e-5
    x.requires_grad_()
    out = Rotation()(x, value)
    assert torch.equal(out, value)
    out.backward(torch.ones_like(x))
    assert x.grad.isfinite().all() and torch.equal(x.grad[:4], torch.ones(4, D))  # undefined: the identity
    assert x.grad[5].norm() <= 10.001 * D**0.5


def test_diveq_reaches_the_codebook_and_stays_near() -> None:
    torch.manual_seed(0)
    quantizer, z = VQ(V, D, estimator=DiVeQ(variance=1e-6)), torch.randn(1, D, 40, requires_grad=True)
    torch.nn.init.normal_(quantizer.codebook)
    q = quantizer(z)
    torch.testing.assert_close(q.z, quantizer.decode(q.codes), rtol=0, atol=0.02)
    (q.z - torch.randn(1, D, 40)).square().sum().backward()
    used = torch.zeros(V, dtype=torch.bool).index_fill(0, q.codes.flatten(), True)
    assert quantizer.codebook.grad[used].any(1).all() and not quantizer.codebook.grad[~used].any() and z.grad.any()
    x = torch.zeros(2, D, requires_grad=True)
    DiVeQ()(x, x.detach().clone()).sum().backward()
    assert x.grad.isfinite().all()


def test_gumbel_frequencies_follow_the_scores() -> None:
    torch.manual_seed(0)
    n, temperature = 40000, 0.7
    quantizer = VQ(5, 2, estimator=Gumbel(temperature))
    torch.nn.init.normal_(quantizer.codebook)
    z = torch.tensor([0.4, -0.3])
    codes = quantizer(z[None, :, None].expand(1, 2, n)).codes.flatten()
    scores = -(z - quantizer.codebook.detach()).square().sum(1) / 2
    expected = (scores / temperature).softmax(0)
    frequency = torch.bincount(codes, minlength=5) / n
    assert (frequency - expected).abs().max() < 5 * math.sqrt(0.25 / n)


@pytest.mark.parametrize("estimator", [Rotation, DiVeQ, Gumbel, Propagation])
def test_evaluation_draws_nothing_and_gives_the_code(estimator: type) -> None:
    quantizer = VQ(V, D, estimator=estimator()).eval()
    torch.nn.init.normal_(quantizer.codebook)
    z, state = torch.randn(2, D, 30), torch.get_rng_state()
    a, b = quantizer(z), quantizer(z)
    codes = quantizer.encode(z)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.codes, b.codes) and torch.equal(a.codes, codes) and torch.equal(a.z, quantizer.decode(codes))


def test_bad_arguments_say_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="positive, got 0"):
        Entropy(0)
    with pytest.raises(ConfigError, match="at least 1"):
        RQVAE(4, [0], VQ(4, 2))
