"""EnCodec's balancer: shares of the gradient, averages by hand, any split of a batch, two ranks, a resumed run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from in_ranks import in_ranks
from torch import Tensor, distributed, nn

pytest.importorskip("lightning")
pytest.importorskip("hydra")

from test_engine import TREE, Judge, checkpoint, contest, differences, fit, run, sgd, small_task

import codeczoo
from codeczoo.engine import schedule
from codeczoo.engine.balancer import Balancer
from codeczoo.engine.contest import Contest, FixedWeight
from codeczoo.engine.objective import Objective, Weighted
from codeczoo.engine.task import CodecTask
from codeczoo.losses.pixel import L1, L2

WEIGHTS = {"l1": 0.1, "l2": 2.0, "codebook": 1.0, "commitment": 0.25}
BALANCER = "{_target_: codeczoo.engine.balancer.Balancer, norm: 2.0, decay: 0.9}"


def losses(x_hat: Tensor, weights: tuple[float, ...] = (3.0, 1.0), scale: float = 1.0) -> dict[str, Weighted]:
    """Two losses with orthogonal gradients of very different size: of the first and of the second half."""
    half = x_hat.shape[2] // 2
    a, b = 1000 * scale * x_hat[..., :half].square().mean(), 0.001 * scale * x_hat[..., half:].abs().mean()
    return {"a": Weighted(weights[0], a), "b": Weighted(weights[1], b)}


def gradient(balancer: Balancer, x: Tensor, **given: Any) -> Tensor:
    """What the balancer gives x_hat."""
    x_hat = x.clone().requires_grad_()
    balancer(losses(x_hat, **given), x_hat).backward()
    assert x_hat.grad is not None
    return x_hat.grad


def balancer(names: tuple[str, ...] = ("a", "b"), **arguments: Any) -> Balancer:
    made = Balancer(**arguments)
    made.name_losses(names)
    return made


def test_gradients_have_norms_in_the_ratio_of_the_weights() -> None:
    x, made = torch.randn(4, 2, 100), balancer(norm=2.0)
    assert not gradient(made, x).any()  # only measured: nothing is known yet
    made.update()
    for scale in (1.0, 1e4, 1e-4):  # the average is of the batch before, so the size of this one counts
        g = gradient(made, x, scale=scale)
        first, second = (4 * part.flatten(1).norm(dim=1).mean().item() for part in g.split(50, 2))
        assert first == pytest.approx(scale * 2.0 * 0.75, rel=1e-4)
        assert second == pytest.approx(scale * 2.0 * 0.25, rel=1e-4)
        made.measured.zero_()
    one = gradient(made, x, weights=(0.0, 1.0))
    assert not one[..., :50].any() and 4 * one[..., 50:].flatten(1).norm(dim=1).mean().item() == pytest.approx(2.0)


def test_averages_are_exponential_and_bias_corrected() -> None:
    x, made = torch.randn(1, 1, 10), balancer(decay=0.9)
    unit = torch.autograd.grad(losses(y := x.clone().requires_grad_())["a"].value, y)[0].norm().item()
    seen: list[float] = []
    for scale in (1.0, 3.0, 0.5):
        gradient(made, x, scale=scale)
        made.update()
        seen.append(scale * unit)
        weights = [0.9 ** (len(seen) - 1 - i) for i in range(len(seen))]
        wanted = sum(w * s for w, s in zip(weights, seen, strict=True)) / sum(weights)
        assert (made.sums / made.counts)[0].item() == pytest.approx(wanted, rel=1e-5)


def test_any_split_of_a_batch_gives_its_gradient_and_averages() -> None:
    batches = torch.randn(3, 6, 1, 40)
    found = []
    for parts in (1, 2, 3, 6):
        made, gradients = balancer(decay=0.5), []
        for batch in batches:
            gradients.append(torch.cat([gradient(made, part) / parts for part in batch.chunk(parts)]))
            made.update()
        found.append((torch.stack(gradients), made.sums / made.counts))
    for gradients, averages in found[1:]:
        torch.testing.assert_close(gradients, found[0][0], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(averages, found[0][1], rtol=1e-5, atol=0)


def test_a_loss_that_comes_later_is_measured_first_and_one_that_overflows_leaves_no_trace() -> None:
    made, x = balancer(("a", "b", "late")), torch.randn(2, 1, 20)
    gradient(made, x)
    made.update()
    x_hat = x.clone().requires_grad_()
    given = losses(x_hat) | {"late": Weighted(100.0, x_hat.sum())}
    made(given, x_hat).backward()
    assert torch.equal(x_hat.grad, gradient(made, x))  # type: ignore[arg-type]
    made.update()
    assert made.counts.tolist() == pytest.approx([1.999, 1.999, 1.0])
    before = made.sums.clone()
    gradient(made, x, scale=float("inf"))
    made.update()
    assert torch.equal(made.sums, before)


def test_it_survives_a_checkpoint() -> None:
    made, other, x = balancer(), balancer(), torch.randn(2, 1, 20)
    gradient(made, x)
    made.update()
    other.load_state_dict(made.state_dict())
    assert torch.equal(gradient(other, x), gradient(made, x))


def test_a_loss_through_a_half_precision_codec_is_measured_in_float32() -> None:
    made, x = balancer(), torch.randn(2, 1, 20).bfloat16()
    gradient(made, x)
    made.update()
    assert gradient(made, x).dtype == torch.bfloat16 and made.sums.dtype == torch.float32


# --- in training -----------------------------------------------------------------------------------------------------


class Matching(Judge):
    """Judge with a second loss."""

    def codec_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return super().codec_loss(real, fake) | {"feature_matching": (fake - real).abs().mean()}


def balanced_task(**arguments: Any) -> CodecTask:
    objective = Objective({"l1": L1(), "l2": L2()}, WEIGHTS)
    return small_task(objective=objective, balancer=Balancer(decay=0.9), **arguments)


def codec_weights(task: CodecTask) -> Tensor:
    return torch.cat([p.detach().flatten() for p in task.codec.parameters()])


def test_only_losses_of_x_hat_are_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    matching = {"feature_matching": 4.0}
    task = balanced_task(adversaries={
        "a": Contest(Matching(), sgd, schedule.constant, FixedWeight(4.0), weights=matching),
    })
    assert task.balancer is not None
    assert [*task.balancer.places] == ["l1", "l2", "a.adversarial", "a.feature_matching"]
    seen: list[dict[str, Weighted]] = []
    forward = task.balancer.forward
    monkeypatch.setattr(task.balancer, "forward", lambda media, x_hat: seen.append(media) or forward(media, x_hat))
    trainer = fit(task, 3)
    assert trainer.global_step == 3
    assert {name: weight for name, (weight, _) in seen[-1].items()} == {
        "l1": 0.1, "l2": 2.0, "a.adversarial": 4.0, "a.feature_matching": 4.0
    }
    assert (task.balancer.counts > 2).all() and task.balancer.sums.all()


def test_an_adversary_by_chance_rests_with_its_optimizer_and_schedule() -> None:
    sometimes = Contest(Matching(), sgd, schedule.constant, FixedWeight(1.0), 0, {"feature_matching": 1.0}, 0.5)
    fit(task := balanced_task(adversaries={"a": sometimes}, accumulate=2), 12)
    updates = sum(sometimes.learns(task.seed, step) for step in range(12))
    assert 0 < updates < 12
    assert sometimes.adversary.calls == 2 * updates  # type: ignore[attr-defined]
    assert [s.last_epoch for s in task.lr_schedulers()] == [12, updates]


def test_weights_are_shares_whatever_the_size_of_a_loss() -> None:
    class Loud(L2):
        def compare(self, x: Tensor, x_hat: Tensor) -> Tensor:
            return 1e4 * super().compare(x, x_hat)

    moved = []
    for term in (L2(), Loud()):
        torch.manual_seed(0)
        task = small_task(objective=Objective({"l1": L1(), "l2": term}, WEIGHTS), balancer=Balancer())
        fit(task, 4)
        moved.append(codec_weights(task))
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    task = small_task(objective=Objective({"l1": L1(), "l2": L2()}, WEIGHTS))
    fit(task, 4)
    assert (codec_weights(task) - moved[0]).abs().max() > 1e-3  # it does something


def test_accumulated_batches_equal_one_large_batch() -> None:
    tasks = []
    for size, accumulate in ((4, 1), (2, 2), (1, 4)):
        torch.manual_seed(0)
        codec = codeczoo.build(TREE | {"_target_": "codeczoo.image.titok.TiTok"})  # no tail drop
        task = balanced_task(codec=codec, adversaries={"a": contest(1)}, accumulate=accumulate)
        fit(task, 4, size)
        tasks.append(task)
    for task in tasks[1:]:
        torch.testing.assert_close(task.balancer.state_dict(), tasks[0].balancer.state_dict(), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(codec_weights(task), codec_weights(tasks[0]), rtol=1e-3, atol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    overrides = [
        "adversaries.blur.start=1", "adversaries.blur.probability=0.5", "task.accumulate=2", "run.checkpoint_every=1",
        f"+task.balancer={BALANCER}", "codec.head.decoder.multipliers=[1,1,1]", "trainer.val_check_interval=99",
        "trainer.limit_val_batches=0",
    ]
    whole = run("titok_tiny_stage2", tmp_path / "whole", *overrides)
    first = run("titok_tiny_stage2", tmp_path / "parts", *overrides, "trainer.max_steps=3")
    second = run("titok_tiny_stage2", tmp_path / "parts", *overrides, resume=str(first.folder))
    assert (first.step, second.step) == (3, whole.step) == (3, 6)
    a, b = checkpoint(whole), checkpoint(second)
    assert differences(a["state_dict"], b["state_dict"]) == []
    assert differences(a["optimizer_states"], b["optimizer_states"]) == []
    assert a["state_dict"]["balancer.counts"].all()
    updates = a["optimizer_states"][1]["state"][0]["step"]
    assert 0 < updates < 5, "an update by chance"


# --- two ranks -------------------------------------------------------------------------------------------------------

def five_steps(rank: int, world: int) -> list[Any]:
    """Weights and averages after each of five steps, gradients averaged over the ranks as DDP does."""
    mine = slice(rank * 4 // world, (rank + 1) * 4 // world)
    torch.manual_seed(0)
    model = nn.Conv1d(1, 1, 9, padding=4)
    balancer = Balancer(decay=0.9)
    balancer.name_losses(["a", "b"])
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    found = []
    for _ in range(5):
        x = torch.randn(4, 1, 64) * torch.linspace(0.2, 3, 4)[:, None, None]  # samples differ, so ranks do too
        x_hat = model(x[mine])
        losses = {
            "a": Weighted(3.0, 100 * (x_hat - x[mine]).square().mean()),
            "b": Weighted(1.0, 0.01 * (x_hat - x[mine]).abs().mean()),
        }
        optimizer.zero_grad()
        balancer(losses, x_hat).backward()
        for p in model.parameters():
            if world > 1:
                distributed.all_reduce(p.grad)
                p.grad /= world
        optimizer.step()
        balancer.update()
        found.append((model.weight.detach().clone(), balancer.sums.clone(), balancer.counts.clone()))
    return found


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    (one,), two = in_ranks(five_steps, (1, 2), tmp_path)
    start = nn.Conv1d(1, 1, 9).weight
    assert one[0][0].shape == start.shape and not torch.equal(one[1][0], one[4][0])
    for step, wanted in enumerate(one):
        for rank in two:
            torch.testing.assert_close(rank[step], wanted, rtol=1e-4, atol=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(two[0][step], two[1][step], strict=True))
