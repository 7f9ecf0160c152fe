"""The linear probe: what must be learnt is, what cannot be learnt is not, and it is the regression it claims to be."""

import pytest
import torch
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.metrics import descriptors
from codeczoo.metrics.probe import PENALTIES, fit, standardised


def clouds(n: int, dim: int, classes: int, apart: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points around the corners of a simplex."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return apart * torch.eye(classes, dim)[labels] + torch.randn(n, dim, generator=random), labels


@pytest.mark.parametrize(("n", "dim"), [(200, 10), (60, 300)])  # fewer and more features than samples
def test_separable_classes_are_learnt_and_random_ones_are_not(n: int, dim: int) -> None:
    x, labels = clouds(n, dim, 3, apart=30)
    test, wanted = clouds(300, dim, 3, apart=30, seed=1)
    assert fit(x, labels, 3).accuracy(test, wanted) == 1
    lots = torch.randint(3, (n,), generator=torch.Generator().manual_seed(2))
    assert fit(x, lots, 3).accuracy(*clouds(300, dim, 3, 0, 3)) == pytest.approx(1 / 3, abs=0.12)


def test_features_that_say_nothing_give_the_most_frequent_class() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    probe = fit(torch.ones(4, 5), labels, 3)
    assert probe(torch.randn(7, 5)).tolist() == [1] * 7


@pytest.mark.parametrize(("n", "dim"), [(30, 4), (12, 40)])
def test_it_is_ridge_regression_and_leaves_one_out(n: int, dim: int) -> None:
    x, labels = clouds(n, dim, 2, apart=2)
    probe = fit(x, labels, 2)

    def ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        a, b = x - x.mean(0), y - y.mean(0)
        weight = torch.linalg.solve(a.T @ a + penalty * torch.eye(dim, dtype=torch.float64), a.T @ b)
        return weight, y.mean(0) - x.mean(0) @ weight

    x, y = x.double(), torch.nn.functional.one_hot(labels, 2).double()
    weight, bias = ridge(x, y, probe.penalty)
    torch.testing.assert_close(probe.weight, weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(probe.bias, bias, rtol=1e-6, atol=1e-9)
    values = torch.linalg.svdvals(x - x.mean(0)).square()
    mean = float(values[values > 1e-10 * values.max()].mean())
    errors = []
    for factor in PENALTIES:
        left = []
        for i in range(n):
            rest = torch.arange(n) != i
            weight, bias = ridge(x[rest], y[rest], factor * mean)
            left.append((y[i] - x[i] @ weight - bias).square().mean())
        errors.append(float(torch.stack(left).mean()))
    best = PENALTIES[min(range(len(errors)), key=errors.__getitem__)]
    assert probe.penalty == pytest.approx(best * mean, rel=1e-6)


def test_standardised_columns() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    a, b = standardised(x, torch.tensor([[2.0, 9.0]]))
    assert a.tolist() == [[-1, 0], [1, 0]] and b.tolist() == [[0, 0]]
    with pytest.raises(InputError, match="at least two"):
        fit(x[:1], torch.zeros(1, dtype=torch.int64), 2)


def test_descriptors_tell_what_differs_and_forget_what_does_not() -> None:
    ramp = torch.linspace(0, 1, 96)
    across, down = (x.expand(3, 96, 96) for x in (ramp[None], ramp[:, None]))
    first, second = (descriptors.picture(x)[192:].view(8, 64) for x in (across, down))
    assert first.argmax(0).eq(0).all() and second.argmax(0).eq(4).all()  # 0 and 90 degrees
    torch.testing.assert_close(descriptors.picture(1 - across)[192:].view(8, 64), first, atol=1e-4, rtol=0)
    still = descriptors.clip(across[:, None].expand(3, 5, 96, 96))
    assert not still[704:].any() and torch.allclose(still[:704], descriptors.picture(across), atol=1e-5)
    t = torch.arange(24_000) / 24_000
    low, high = (descriptors.sound(torch.sin(2 * torch.pi * hz * t)[None], 24_000) for hz in (300, 5000))
    assert low[:40].argmax() < high[:40].argmax() and low.shape == (160,) and low.isfinite().all()
    assert descriptors.sound(torch.zeros(2, 7), 2400).isfinite().all()
    hiss = 1e-5 * torch.randn(1, 24_000, generator=torch.Generator().manual_seed(0))
    tone = torch.sin(2 * torch.pi * 300 * t)[None]
    torch.testing.assert_close(descriptors.sound(tone + hiss, 24_000), low, atol=1e-2, rtol=0)  # 100 dB below
