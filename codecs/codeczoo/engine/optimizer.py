"""Optimizers as recipes name them: functions of (name, parameter) pairs.

Any `torch.optim` class does too (`_target_: torch.optim.Adam`, `_partial_: true`): they take such pairs as they are.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

OptimizerFactory = Callable[[list[tuple[str, nn.Parameter]]], Optimizer]
ScheduleFactory = Callable[[Optimizer], LRScheduler]


def adamw(
    parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    no_decay_names: Sequence[str] = (),
    no_decay_below: int = 0,
) -> AdamW:
    """AdamW with two groups: decayed and not.

    Args:
        parameters: (name, parameter) pairs.
        lr: highest learning rate.
        betas: of the two moments.
        eps: added to the denominator.
        weight_decay: of the decayed group.
        no_decay_names: a parameter whose name contains one of these is not decayed.
        no_decay_below: nor is one with fewer dimensions than this; 2 spares biases and norms.
    """
    pairs = list(parameters)

    def spared(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim < no_decay_below or any(part in name for part in no_decay_names)

    groups: list[dict[str, Any]] = [
        {"params": [(n, p) for n, p in pairs if not spared(n, p)], "weight_decay": weight_decay},
        {"params": [(n, p) for n, p in pairs if spared(n, p)], "weight_decay": 0.0},
    ]
    return AdamW([g for g in groups if g["params"]], lr=lr, betas=(betas[0], betas[1]), eps=eps)
