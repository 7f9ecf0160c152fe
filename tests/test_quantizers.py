"""Vector quantizers: properties that hold for every one of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codeczoo.core.base import Quantizer
from codeczoo.quantizers import lookup
from codeczoo.quantizers.tally import update
from codeczoo.quantizers.upkeep import Anchors, Restart
from codeczoo.quantizers.vq import VQ, CosineVQ

KINDS = {
    "vq": lambda v, d: VQ(v, d),
    "cosine": lambda v, d: CosineVQ(v, d),
    "anchors": lambda v, d: VQ(v, d, Anchors(v)),
    "restart": lambda v, d: CosineVQ(v, d, Restart(v, every=1)),
}
SHAPES = [(2, 6, 11), (2, 6, 4, 5), (1, 6, 2, 3, 4)]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def quantizer(kind: str) -> Quantizer:
    torch.manual_seed(0)
    made = KINDS[kind](37, 6)
    torch.nn.init.normal_(made.codebook)
    return made


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_value_is_exactly_the_decoded_code(quantizer: Quantizer, shape: tuple[int, ...]) -> None:
    z = torch.randn(shape)
    quantizer.eval()
    q = quantizer(z)
    assert q.codes.shape == (shape[0], 1, *shape[2:]) and q.codes.dtype == torch.int64
    assert torch.equal(q.z, quantizer.decode(q.codes)) and torch.equal(q.codes, quantizer.encode(z))


def test_every_code_round_trips(quantizer: Quantizer) -> None:
    codes = torch.arange(37).view(1, 1, -1)
    assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)


def test_look_up_is_brute_force_in_any_chunking(quantizer: Quantizer, monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(3, 6, 50)
    flat, table = (quantizer.normalise(v) for v in (z.movedim(1, -1).reshape(-1, 6), quantizer.codebook))
    expected = torch.cdist(flat.double(), table.double()).argmin(1)
    for chunk in (1, 37 * 7, 1 << 22):
        monkeypatch.setitem(lookup.CHUNK, "cpu", chunk)
        assert torch.equal(quantizer.encode(z).flatten(), expected)


def test_straight_through_gradient_is_one(quantizer: Quantizer) -> None:
    z = torch.randn(2, 6, 5, requires_grad=True)
    weight = torch.randn(2, 6, 5)
    (quantizer(z).z * weight).sum().backward()
    if isinstance(quantizer, CosineVQ):  # straight through to the unit vector, then its own gradient
        u = z.detach().clone().requires_grad_()
        (torch.nn.functional.normalize(u, dim=1) * weight).sum().backward()
        weight = u.grad
    assert torch.allclose(z.grad, weight, atol=1e-6)
    assert quantizer.codebook.grad is None or not quantizer.codebook.grad.any()


def test_losses_pull_the_right_side(quantizer: Quantizer) -> None:
    z = torch.randn(2, 6, 5, requires_grad=True)
    losses = quantizer(z).losses
    assert set(losses) == {"commitment", "codebook"} and torch.equal(losses["commitment"], losses["codebook"])
    losses["commitment"].backward(retain_graph=True)
    assert z.grad.abs().sum() > 0 and quantizer.codebook.grad is None
    z.grad = None
    losses["codebook"].backward()
    assert z.grad is None and quantizer.codebook.grad.abs().sum() > 0


def test_masked_positions_count_nowhere(quantizer: Quantizer, kind: str) -> None:
    z, other = torch.randn(2, 6, 9), torch.randn(2, 6, 9) * 1e4
    valid = torch.rand(2, 9) > 0.4
    other = torch.where(valid[:, None], z, other)
    before = {k: v.clone() for k, v in quantizer.state_dict().items()}
    a = quantizer(z, valid)
    update(quantizer)
    after = {k: v.clone() for k, v in quantizer.state_dict().items()}
    quantizer.load_state_dict(before)
    b = quantizer(other, valid)
    update(quantizer)
    assert torch.equal(a.z, b.z) and torch.equal(a.codes, b.codes)
    assert all(torch.equal(a.losses[k], b.losses[k]) for k in a.losses)
    assert all(torch.equal(after[k], v) for k, v in quantizer.state_dict().items())
    assert not a.z.movedim(1, -1)[~valid].any()
    alone = KINDS[kind](37, 6)
    alone.load_state_dict(before)
    kept = alone(z.movedim(1, -1)[valid].t()[None])
    assert torch.allclose(kept.losses["commitment"], a.losses["commitment"])
    assert torch.equal(kept.codes.flatten(), a.codes[:, 0][valid])


def test_float32_under_autocast(quantizer: Quantizer) -> None:
    z = torch.randn(4, 6, 200).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        q = quantizer.eval()(z)
        assert torch.equal(quantizer.encode(z), q.codes)
    assert q.z.dtype == torch.bfloat16 and q.losses["commitment"].dtype == torch.float32
    assert torch.equal(q.codes, quantizer.encode(z.float()))


def test_anchors_move_as_defined() -> None:
    """The rule of 1d-tokenizer's CVQ, written out with full distance matrices."""
    torch.manual_seed(1)
    quantizer = VQ(12, 6, Anchors(12))
    torch.nn.init.normal_(quantizer.codebook)
    prob, table = torch.zeros(12), quantizer.codebook.detach().clone()
    for _ in range(3):
        z = torch.randn(2, 6, 20)
        flat = z.movedim(1, -1).reshape(-1, 6)
        distance = torch.cdist(flat, table)
        share = torch.bincount(distance.argmin(1), minlength=12) / 40
        prob = 0.99 * prob + 0.01 * share
        alpha = torch.exp(-(prob * 12 * 10) / (1 - 0.99) - 1e-3)[:, None]
        table = (1 - alpha) * table + alpha * flat[distance.argmin(0)]
        quantizer(z)
        update(quantizer)
        assert torch.allclose(quantizer.codebook, table, atol=1e-4)
    quantizer.eval()(torch.randn(2, 6, 20))
    update(quantizer)
    assert torch.allclose(quantizer.codebook, table, atol=1e-4), "evaluation must not move anchors"


def test_restarted_entries_are_latents_and_living_ones_stay() -> None:
    torch.manual_seed(1)
    quantizer = VQ(20, 4, Restart(20, threshold=0.1, every=3, decay=0.4))
    torch.nn.init.normal_(quantizer.codebook)
    quantizer.codebook.data[10:] += 1e3  # nobody's nearest
    table = quantizer.codebook.detach().clone()
    for step in range(1, 7):
        z = torch.randn(1, 4, 200)
        quantizer(z)
        update(quantizer)
        if step % 3:
            assert torch.equal(quantizer.codebook, table), "only every third step restarts"
            continue
        moved = (quantizer.codebook != table).any(1)
        assert moved[10:].all() == (step == 3) and not moved[:10].any()
        found = (quantizer.codebook[moved, None] == z[0].t()).all(2).any(1)
        assert found.all()
        table = quantizer.codebook.detach().clone()
        assert (quantizer.upkeep.usage[10:] > 0).all()


RANK = """
import sys, torch
from torch import distributed
from codeczoo.quantizers.tally import update
from codeczoo.quantizers.upkeep import Anchors, Restart
from codeczoo.quantizers.vq import VQ
rank, world, store, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.manual_seed(0)
quantizers = [VQ(16, 4, Anchors(16)), VQ(16, 4, Restart(16, threshold=0.9, every=2))]
for quantizer in quantizers:
    torch.nn.init.normal_(quantizer.codebook)
if world > 1:
    distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
generator = torch.Generator().manual_seed(5)
for step in range(4):
    z = torch.randn(30, 4, generator=generator)
    cut = [7, 0, 30, 12][step]  # unequal, one rank with nothing at all
    parts = [z] if world == 1 else [z[:cut], z[cut:]]
    for quantizer in quantizers:
        quantizer(parts[rank].t()[None])
        update(quantizer)
torch.save([quantizer.state_dict() for quantizer in quantizers], out)
"""


def test_upkeep_under_ddp_equals_one_process(tmp_path: Path) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = [(0, 2), (1, 2), (0, 1)]
    command = [sys.executable, "-c", RANK]
    started = [
        subprocess.Popen([*command, str(r), str(w), str(tmp_path / "store"), str(tmp_path / f"{r}{w}")], env=env)
        for r, w in runs
    ]
    assert [p.wait(120) for p in started] == [0, 0, 0]
    results = [torch.load(tmp_path / f"{r}{w}", weights_only=True) for r, w in runs]
    for a, b, whole in zip(*results, strict=True):
        for key in whole:
            assert torch.equal(a[key], b[key]), key
            assert torch.allclose(a[key].float(), whole[key].float(), atol=1e-6), key
