"""Learning-rate schedules. A step is one batch on which the optimizer stepped, on any number of devices.

The original TiTok multiplies its totals by the number of processes because `accelerate` advances a schedule once per
process; here nothing is multiplied.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from codeczoo.core.errors import ConfigError


def constant(optimizer: Optimizer, warmup: int = 0) -> LambdaLR:
    """The optimizer's rate throughout, after a linear rise over `warmup` steps."""
    return LambdaLR(optimizer, lambda step: _rise(step, warmup))


def warmup_cosine(optimizer: Optimizer, warmup: int, steps: int, end: float = 0.0) -> LambdaLR:
    """Linear rise, then half a cosine down to `end`.

    Args:
        optimizer: whose rate is the highest.
        warmup: steps of the rise from 0.
        steps: total, rise included; the rate stays at `end` after them.
        end: last rate, as a share of the highest.
    """
    if warmup < 0 or steps < 1:
        raise ConfigError(f"schedule: warmup must be at least 0 and steps at least 1, got {warmup} and {steps}")

    def factor(step: int) -> float:
        if step < warmup:
            return _rise(step, warmup)
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return end + (1 - end) * 0.5 * (1 + cos(pi * done))

    return LambdaLR(optimizer, factor)


def multi_step(optimizer: Optimizer, milestones: Sequence[int], factor: float = 0.1, warmup: int = 0) -> LambdaLR:
    """Times `factor` at every milestone (in steps), after a linear rise over `warmup` steps."""
    if list(milestones) != sorted(milestones):
        raise ConfigError(f"schedule: milestones must rise, got {list(milestones)}")
    return LambdaLR(optimizer, lambda step: _rise(step, warmup) * factor ** bisect_right(list(milestones), step))


def exponential(optimizer: Optimizer, factor: float, warmup: int = 0) -> LambdaLR:
    """Times `factor` at every step, after a linear rise over `warmup` steps."""
    if not 0 < factor <= 1:
        raise ConfigError(f"schedule: factor must be above 0 and at most 1, got {factor}")
    return LambdaLR(optimizer, lambda step: _rise(step, warmup) * factor**step)


def _rise(step: int, warmup: int) -> float:
    return step / warmup if step < warmup else 1.0
