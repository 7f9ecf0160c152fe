"""P14: every quantizer compiles without a break: training with its gradients and state, evaluation, encode, decode."""

from collections.abc import Callable

import pytest
import torch
from quantizer_cases import CASES, TRAINING, D, V, latents, mask, ready
from torch import Tensor
from torch._dynamo.utils import counters

from codeczoo.core.base import Quantizer
from codeczoo.core.types import Quantized
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.lfq import BSQ
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.semantic_ids import RQVAE
from codeczoo.quantizers.tally import update
from codeczoo.quantizers.upkeep import Restart
from codeczoo.quantizers.vq import EMAVQ, VQ, CosineVQ

GRADIENTS = ["vq restart", "cosine anchors", "vq rotation", "vq diveq", "vq gumbel", "ibq entropy", "residual uniform"]


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    counters.clear()


def graphs() -> int:
    """How many were made since the test began. Without fullgraph each break would make one more."""
    return counters["stats"]["unique_graphs"]


def train(quantizer: Quantizer, forward: Callable[..., Quantized], forwards: int = 1) -> list[Tensor]:
    """Three steps of so many forwards, the first without a mask; everything that came of it."""
    found: list[Tensor] = []
    for step in range(3):
        quantizer.zero_grad()
        for part in range(forwards):
            z = latents("1d", seed=2 * step + part).requires_grad_()
            torch.manual_seed(step)
            q = forward(z, mask("ragged", z) if step else None)
            (q.z.square().sum() + sum(q.losses.values())).backward()
            found += [q.z, q.codes, z.grad, *q.losses.values()]
        update(quantizer)
        found += [p.grad for p in quantizer.parameters() if p.grad is not None]
        found += [value.clone() for value in quantizer.state_dict().values()]
    return found


def same(ours: list[Tensor], plain: list[Tensor]) -> None:
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-4, atol=1e-5)


def compare(backend: str, make: Callable[[], Quantizer]) -> None:
    quantizer, plain = make(), make()
    compiled = torch.compile(quantizer, backend=backend, fullgraph=True, dynamic=False)
    same(train(quantizer, compiled), train(plain, plain))
    assert 1 <= graphs() <= 2, "a mask may cost one more graph, nothing else"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.startswith(("cosine", "residual")) else [])
        for name in CASES
        if name not in GRADIENTS  # which has some of either kind
    ],
)
def test_training_is_one_graph(name: str) -> None:
    compare("eager", lambda: ready(name))


@pytest.mark.parametrize("name", [name for name in CASES if not set(name.split()) & TRAINING])
def test_evaluation_encode_and_decode_are_one_graph_each(name: str) -> None:
    quantizer, z = ready(name).eval(), latents("2d")

    def compiled(f: Callable[..., object]) -> Callable[..., object]:
        return torch.compile(f, backend="eager", fullgraph=True, dynamic=False)

    forward = compiled(quantizer)
    for valid in (None, mask("ragged", z)):
        ours, plain = forward(z, valid), quantizer(z, valid)
        same([ours.z, ours.codes, *ours.losses.values()], [plain.z, plain.codes, *plain.losses.values()])
    codes = quantizer.encode(z)
    assert torch.equal(compiled(quantizer.encode)(z), codes) and graphs() <= 3
    assert torch.equal(compiled(quantizer.decode)(codes), quantizer.decode(codes)) and graphs() <= 4


@pytest.mark.parametrize("name", GRADIENTS)
def test_compiled_gradients(name: str) -> None:
    compare("aot_eager", lambda: ready(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ema kmeans restart", "residual uniform", "ibq entropy"])
def test_inductor(name: str) -> None:
    with torch._inductor.config.patch(fallback_random=True):  # the same random numbers as without it
        compare("inductor", lambda: ready(name))


@pytest.mark.parametrize("name", ["cosine", "bsq"])
def test_inductor_divides_rows_by_their_length(name: str) -> None:
    """torch 2.11 gets the gradient wrong on a CPU where it may fuse this with the way into rows: see layout.py."""
    quantizer = {"cosine": CosineVQ(16, 14), "bsq": BSQ(14, 2)}[name].train()
    compiled, gradients = torch.compile(quantizer, fullgraph=True), []
    z = torch.randn(2, 14, 64)
    weight, valid = torch.randn_like(z), torch.rand(2, 64) > 0.3
    for run in (quantizer, compiled):
        given = z.clone().requires_grad_()
        q = run(given, valid)
        ((q.z * weight).sum() + sum(q.losses.values())).backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kinds"), [("cosine ema kmeans restart", 2), ("residual 8", 3)])
def test_accumulation_costs_few_graphs_more(name: str, kinds: int) -> None:
    """The first forward after an update has nothing to add to, the others have; a stack of layers holds the first."""
    quantizer, plain = ready(name), ready(name)
    compiled = torch.compile(quantizer, backend="eager", fullgraph=True, dynamic=False)
    same(train(quantizer, compiled, forwards=3), train(plain, plain, forwards=3))
    assert graphs() == 2 * kinds  # with and without a mask


def test_starting_layers_cost_a_graph_each() -> None:
    torch.manual_seed(0)
    quantizer = Residual([EMAVQ(V, D, Restart(V), KMeans(2)) for _ in range(2)])
    compiled = torch.compile(quantizer, backend="eager", fullgraph=True, dynamic=False)
    made = []
    for step in range(4):
        z = latents("1d", seed=step)
        if quantizer.starting:
            quantizer.initialize(z)
        q = compiled(z)
        made.append(graphs())
        update(quantizer)
    quantizer.eval()
    assert made == [1, 2, 2, 2] and torch.equal(quantizer(z).codes[:, 0], quantizer.encode(z)[:, 0])
    assert q.codes.shape[1] == 2


def test_semantic_ids_compile() -> None:
    torch.manual_seed(0)
    model, vectors = RQVAE(8, [16], Residual([VQ(V, D) for _ in range(2)])), torch.randn(30, 8)
    plain = model(vectors)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)(vectors)
    same([compiled.x_hat, *compiled.losses.values()], [plain.x_hat, *plain.losses.values()])
