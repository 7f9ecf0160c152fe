"""Rectified flow by itself: solvers against known curves, guidance against its definition, times of training."""

from itertools import pairwise
from math import cos, exp, pi, sin
from typing import Any

import pytest
import torch
from torch import Tensor

from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Sampling
from codeczoo.nn.flow import (
    LONGEST,
    MOMENTUM,
    Guidance,
    LogitNormalTimes,
    ModeTimes,
    ProjectedGuidance,
    noised,
    solve,
    times_of,
)
from codeczoo.nn.posemb import sincos_grid, sincos_time

CPU = torch.device("cpu")


def grown(sampling: Sampling) -> float:
    """Where dx/ds = x takes 1 from s = 1 to s = 0; exactly 1/e."""
    return float(solve(lambda x, i: x, torch.ones(1, 1, dtype=torch.float64), sampling))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_solvers_converge_with_their_order(solver: Any, order: int) -> None:
    errors = [abs(grown(Sampling(steps=steps, solver=solver)) - exp(-1)) for steps in (8, 16, 32)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.15)
    assert errors[-1] < 10.0 ** (-1 - order)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_straight_flow_needs_one_step(solver: Any) -> None:
    x, noise = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = solve(lambda _, i: noise - x, noise, Sampling(steps=1, solver=solver))
    assert torch.allclose(found, x, atol=1e-5)
    s = torch.tensor([0.25, 1.0])
    mixed = noised(x, noise, s)
    assert torch.allclose(mixed[0], 0.25 * noise[0] + 0.75 * x[0], atol=1e-6) and torch.allclose(mixed[1], noise[1])


@pytest.mark.parametrize(("solver", "wanted"), [("euler", [0, 1, 2]), ("heun", [0, 1, 1, 2, 2, 3])])
def test_solvers_ask_at_the_times_that_they_say(solver: Any, wanted: list[int]) -> None:
    asked: list[int] = []

    def velocity(x: Tensor, i: int) -> Tensor:
        asked.append(i)
        return x

    sampling = Sampling(steps=3, solver=solver)
    solve(velocity, torch.ones(1, 1), sampling)
    assert asked == wanted and torch.allclose(times_of(sampling), torch.tensor([1, 2 / 3, 1 / 3, 0]))


def test_guidance_goes_from_untold_through_told_and_beyond() -> None:
    told, untold = torch.randn(2, 2, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Guidance(0.0)(told, untold), untold)
    assert torch.allclose(Guidance(1.0)(told, untold), told, atol=1e-6)
    assert torch.allclose(Guidance(3.0)(told, untold), told + 2 * (told - untold), atol=1e-5)


def test_projected_guidance_is_orthogonal_limited_and_of_each_sample_alone() -> None:
    told, untold = torch.randn(2, 2, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    way = (ProjectedGuidance(2.0)(told, untold) - told).flatten(1)
    assert (way * told.flatten(1)).sum(1).abs().max() < 1e-4
    assert way.norm(dim=1).max() <= LONGEST + 1e-4
    small = ProjectedGuidance(2.0)(told, told + 1e-3 * untold) - told
    direction = (-1e-3 * untold).flatten(1)
    along = torch.nn.functional.normalize(told.flatten(1), dim=1)
    wanted = direction - (direction * along).sum(1, keepdim=True) * along  # too short to be limited
    assert torch.allclose(small.flatten(1), wanted, atol=1e-6)
    assert torch.equal(ProjectedGuidance(1.0)(told, untold), told)
    alone = [ProjectedGuidance(2.0)(told[i : i + 1], untold[i : i + 1]) for i in range(2)]
    assert torch.allclose(torch.cat(alone), ProjectedGuidance(2.0)(told, untold), atol=1e-6)
    assert torch.equal(ProjectedGuidance(4.0)(told, told), told)  # no direction at all


def test_projected_guidance_remembers_where_it_went() -> None:
    told = torch.zeros(1, 4)
    told[0, 0] = 1.0  # along the first axis; the differences below are orthogonal to it
    guide, steps = ProjectedGuidance(2.0), [0.5, 0.25, 1.0]
    running = 0.0
    for step in steps:
        untold = told.clone()
        untold[0, 1] -= step
        running = step + MOMENTUM * running
        assert float((guide(told, untold) - told)[0, 1]) == pytest.approx(running, abs=1e-6)


def test_times_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    middle = LogitNormalTimes()(50_000, CPU)
    assert middle.dtype == torch.float32 and ((middle > 0) & (middle < 1)).all()
    logits = middle.double().logit()
    assert abs(float(logits.mean())) < 0.02 and abs(float(logits.std()) - 1) < 0.02
    late = LogitNormalTimes(1.0, 0.5)(50_000, CPU).double().logit()
    assert abs(float(late.mean()) - 1) < 0.02 and abs(float(late.std()) - 0.5) < 0.02
    uniform = ModeTimes()(50_000, CPU)
    assert torch.histc(uniform, 4, 0, 1) / 50_000 == pytest.approx([0.25] * 4, abs=0.01)
    torch.manual_seed(1)
    bent = ModeTimes(1.29)(50_000, CPU)
    torch.manual_seed(1)
    u = torch.rand(50_000)
    assert torch.allclose(bent, 1 - u - 1.29 * ((pi / 2 * u).cos() ** 2 - 1 + u))
    assert bent.min() >= 0 and bent.max() <= 1 and bent.std() < uniform.std()


@pytest.mark.parametrize("make", [lambda: LogitNormalTimes(std=0), lambda: ModeTimes(2.0), lambda: ModeTimes(-1.1)])
def test_times_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="got"):
        make()


def test_positions_are_sines_and_cosines_of_row_and_column() -> None:
    table = sincos_grid(2, 3, 8)
    assert table.shape == (6, 8)
    for row, column in ((0, 0), (1, 0), (0, 2), (1, 2)):
        found = table[3 * row + column]
        angles = torch.tensor([1.0, 1e4**-0.5])
        wanted = [(row * angles).sin(), (row * angles).cos(), (column * angles).sin(), (column * angles).cos()]
        assert torch.allclose(found, torch.cat(wanted))
    angles = [3.0, 0.75]
    wanted = torch.tensor([cos(a) for a in angles] + [sin(a) for a in angles])
    assert torch.allclose(sincos_time(torch.tensor([0.0, 3.0]), 4, 16.0)[1], wanted)
