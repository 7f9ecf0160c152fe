"""A linear probe: how well labels can be read off feature vectors by one matrix, in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor

from codeczoo.core.errors import InputError

PENALTIES = tuple(10.0**i for i in range(-6, 5))  # of the mean variance along the directions that the features have


@dataclass(frozen=True)
class LinearProbe:
    """Feature vectors to classes: the largest of x @ weight + bias.

    Args:
        weight: float64 (D, C).
        bias: float64 (C,).
        penalty: what `fit` chose.
    """

    weight: Tensor
    bias: Tensor
    penalty: float

    def __call__(self, x: Tensor) -> Tensor:
        """Features (N, D) to classes, int64 (N,)."""
        return (x.double() @ self.weight + self.bias).argmax(1)

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """Share of features (N, D) whose class is the label (N,)."""
        return float((self(x) == labels).double().mean())


def fit(x: Tensor, labels: Tensor, classes: int) -> LinearProbe:
    """Ridge regression of the classes, one column each, on the features.

    Nothing is drawn at random. The penalty is the one of PENALTIES with the least squared error of each vector by the
    regression of all others, which has a closed form too.

    Args:
        x: (N, D), any N and D.
        labels: int64 (N,), 0 <= label < classes.
        classes: C.

    Raises:
        InputError: fewer than two vectors.
    """
    if len(x) < 2:
        raise InputError(f"a probe learns from at least two samples, got {len(x)}")
    x, y = x.double(), torch.nn.functional.one_hot(labels, classes).double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    u, power, back = _directions(x)
    seen = u.T @ y  # (r, C)
    best: tuple[float, float] | None = None
    for penalty in [factor * float(power.mean()) for factor in PENALTIES] if len(power) else []:
        shrunk = u * (power / (power + penalty))  # (N, r)
        leverage = (shrunk * u).sum(1, keepdim=True) + 1 / len(x)
        error = float(((y - shrunk @ seen) / (1 - leverage).clamp_min(1e-9)).square().mean())
        best = min(best or (error, penalty), (error, penalty))
    penalty = best[1] if best else 1.0
    weight = back @ (seen / (power + penalty)[:, None])
    return LinearProbe(weight, y_mean - x_mean @ weight, penalty)


def _directions(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u (N, r), squares of singular values (r,) and x.T @ u (D, r) of x (N, D), by the smaller of two products."""
    wide = x.shape[1] > x.shape[0]
    power, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = power > 1e-10 * power.amax().clamp_min(1e-300)
    power, vectors = power[kept], vectors[:, kept]
    u = vectors if wide else x @ vectors / power.sqrt()
    return u, power, x.T @ u


def standardised(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Features (N, D) with mean 0 and deviation 1 in every column, and others moved and scaled alike, float64."""
    x = x.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    scale = torch.where(deviation > 1e-9 * (1 + mean.abs()), 1 / deviation.clamp_min(1e-12), 0.0)  # 0: it says nothing
    return tuple((each.double() - mean) * scale for each in (x, *others))
