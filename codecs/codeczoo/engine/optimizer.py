"""Optimizers as recipes name them: functions of (name, parameter) pairs.

Any `torch.optim` class does too (`_target_: torch.optim.Adam`, `_partial_: true`): they take such pairs as they are.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from codeczoo.core.errors import ConfigError
from codeczoo.nn.hardware import bf16_is_fast

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


class Muon(AdamW):
    """AdamW, with groups whose parameters are matrices: these move by their momentum made orthogonal.

    A matrix is a parameter (rows, ...), whose other dimensions count as columns: weights of convolutions are one, too.

    Source: Muon (kellerjordan.github.io/posts/muon, github.com/KellerJordan/Muon, MIT). One optimizer for all
    parameters, where torch.optim.Muon takes those of two dimensions alone.

    Args:
        groups: as AdamW's, each with "momentum": None for AdamW, or that of the matrices.
        lr, betas, eps: as AdamW's.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float = 1e-8) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """See Optimizer. Gradients of the matrices are None afterwards, for AdamW leaves those alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"] if group["momentum"] is not None else ():
                if p.grad is not None:
                    self._move(p, p.grad, group)
                    p.grad = None
        super().step()
        return loss

    def _move(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[p], group["momentum"]
        if not state:
            state["step"], state["momentum_buffer"] = torch.tensor(0.0), torch.zeros_like(p)
        state["step"] += 1  # AdamW looks for it in what it loads
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        direction = orthogonal(gradient.lerp(buffer, momentum).flatten(1))  # Nesterov's
        p.mul_(1 - group["lr"] * group["weight_decay"])
        rows, columns = direction.shape
        p.add_(direction.view_as(p), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """The matrix x (rows, columns) with singular values of about 1: .7 to 1.2, by Newton-Schulz.

    In bfloat16 where that is fast, else in float32: without such instructions it takes many times as long.
    """
    a, b, c = 3.4445, -4.7750, 2.0315  # Muon's: steep at 0
    y = x.bfloat16() if bf16_is_fast(x.device) else x.float()
    y = y.mT if y.shape[0] > y.shape[1] else y
    y = y / (y.norm() + 1e-7)
    for _ in range(steps):
        square = y @ y.mT
        y = a * y + (b * square + c * square @ square) @ y
    return (y.mT if x.shape[0] > x.shape[1] else y).to(x.dtype)


def muon(
    parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    matrix_lr: float = 0.02,
    momentum: float = 0.95,
    betas: Sequence[float] = (0.9, 0.95),
    weight_decay: float = 0.0,
    matrix_names: Sequence[str] = ("transformer",),
) -> Muon:
    """Muon for the matrices, those of transformers if nothing else is said; AdamW for everything else.

    Args:
        parameters: (name, parameter) pairs.
        lr: highest learning rate of AdamW.
        matrix_lr: highest one of the matrices.
        momentum: of the matrices.
        betas: of AdamW's two moments.
        weight_decay: of the matrices.
        matrix_names: parameters of two or more dimensions whose name contains one of these are matrices.

    Raises:
        ConfigError: there are no such matrices.
    """
    pairs = list(parameters)

    def is_matrix(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim >= 2 and any(part in name for part in matrix_names)

    matrices = [(n, p) for n, p in pairs if is_matrix(n, p)]
    others = [(n, p) for n, p in pairs if not is_matrix(n, p)]
    if not matrices:
        raise ConfigError(f"muon: no matrix has a name with {' or '.join(matrix_names)}; such networks want adamw")
    groups: list[dict[str, Any]] = [
        {"params": others, "lr": lr, "momentum": None, "weight_decay": 0.0},
        {"params": matrices, "lr": matrix_lr, "momentum": momentum, "weight_decay": weight_decay},
    ]
    return Muon([group for group in groups if group["params"]], lr, (betas[0], betas[1]))
