"""P7: ranks of a process group, wrapped in DistributedDataParallel, train as one process on the concatenated batch.

All cases of one number of ranks run in one go.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from in_ranks import in_ranks
from quantizer_cases import built, names, spread
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from codeczoo.quantizers.ranks import summed, world_size
from codeczoo.quantizers.residual import Residual
from codeczoo.quantizers.tally import update

D, TOKENS, STEPS, MICRO = 4, 30, 5, 2
CUTS = {  # where the tokens of each step are divided: unequal parts, ranks with nothing at all
    1: [()] * STEPS,
    2: [(7,), (0,), (30,), (12,), (20,)],
    3: [(5, 11), (0, 17), (30, 30), (9, 9), (20, 28)],
}
MASKED = 3  # the step in which the first rank's tokens are all masked
ONE_MASK = 4  # the step in which only the first rank has a mask
SPREAD = names("random")
ACCUMULATED = [
    "ema restart", "cosine ema kmeans restart", "cosine anchors", "residual 8", "residual mixed", "ibq entropy", "lfq",
    "split",
]
COMPILED = ["ema restart", "lfq", "residual vq kmeans"]  # on two ranks: torch.compile takes long
EARLY = ["ema kmeans restart", "residual kmeans", "vq anchors"]  # also built before there is a process group
# Ranks draw for themselves, so they are equal to each other but not to one process:
RANDOM = ["residual uniform", "residual chosen", "grouped uniform"]


class Net(nn.Module):
    """An encoder and a quantizer; the loss is that of tokens (n, D), each a sample of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        # Anchors draw unused entries that share their closest latent together until only rounding tells them apart:
        # here most entries are used.
        self.quantizer = built(name, 6 if "anchors" in name else 16, D)
        if not self.quantizer.starting:
            spread(self.quantizer)
        torch.manual_seed(1)
        self.encoder = nn.Linear(D, self.quantizer.dim)

    def forward(self, x: Tensor, valid: Tensor, depth: Tensor | None) -> Tensor:
        z = self.encoder(x)[:, :, None]
        counted = None if valid.all() else valid[:, None]  # so some ranks may have a mask and others none
        if self.quantizer.starting:
            self.quantizer.initialize(z, counted)
        if depth is not None and isinstance(self.quantizer, Residual) and self.quantizer.depth is None:
            q = self.quantizer(z, counted, depth.clamp(max=len(self.quantizer.layers)))
        else:
            q = self.quantizer(z, counted)
        error = ((q.z[:, :, 0] - x.roll(1, 1)).square().mean(1) * valid).sum()
        count = summed(valid.sum().float()).clamp(min=1)
        return error * world_size() / count + sum(q.losses.values())


def train(
    name: str, rank: int, ranks: int, whole: int, micro: int, early: Net | None = None, compiled: bool = False
) -> dict[str, Any]:
    """What comes of 5 steps of plain gradient descent on what `rank` of `ranks` gets.

    Args:
        name: of the case.
        rank: this process.
        ranks: how many there are.
        whole: how many ranks the masks are made for.
        micro: batches per step; their losses are averaged, so each batch counts alike, however many tokens it has.
        early: the module where it was built before.
        compiled: whether the quantizer goes through torch.compile.
    """
    net = early or Net(name)
    if compiled:
        torch.compiler.reset()
        net.quantizer.compile(fullgraph=True, backend="aot_eager")
    wrapped = DistributedDataParallel(net) if ranks > 1 else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    generator, found = torch.Generator().manual_seed(5), []
    torch.manual_seed(100 + rank)
    for step in range(STEPS):
        loss = torch.zeros(())
        for part in range(micro):
            x = torch.randn(TOKENS, D, generator=generator)
            depth = torch.randint(1, 5, (TOKENS,), generator=generator)
            valid = torch.rand(TOKENS, generator=generator) > 0.2
            if step == MASKED:
                valid[: CUTS[whole][(step + part) % STEPS][0]] = False
            if step == ONE_MASK:
                valid = torch.arange(TOKENS) != 0
            bounds = [0, *CUTS[ranks][(step + part) % STEPS], TOKENS]
            mine = slice(bounds[rank], bounds[rank + 1])
            x = torch.where(valid[:, None], x, 1e4)
            waits = ranks > 1 and part + 1 < micro
            with wrapped.no_sync() if waits else nullcontext():  # type: ignore[operator]
                value = wrapped(x[mine], valid[mine], depth[mine] if micro == 1 else None) / micro
                value.backward()
            loss += value.detach()
        gradient = net.encoder.weight.grad.clone()
        optimizer.step()
        optimizer.zero_grad()
        update(net)
        found.append((summed(loss) / ranks, gradient))
    return {"steps": found, "state": {key: value.clone() for key, value in net.state_dict().items()}}


def everything(rank: int, ranks: int, whole: int, early: dict[str, Net]) -> dict[str, dict[str, Any]]:
    """All trainings, by name."""
    found = {name: train(name, rank, ranks, whole, 1) for name in [*SPREAD, *RANDOM]}
    found |= {f"{name}, accumulated": train(name, rank, ranks, whole, MICRO) for name in ACCUMULATED}
    if whole == 2:  # one process is what they are compared with, and compiles nothing
        found |= {f"{name}, compiled": train(name, rank, ranks, whole, 1, compiled=ranks > 1) for name in COMPILED}
    return found | {f"{name}, early": train(name, rank, ranks, whole, MICRO, early[name]) for name in EARLY}


def early() -> dict[str, Net]:
    """Modules that are built before there is a process group."""
    return {name: Net(name) for name in EARLY}


def as_rank(rank: int, ranks: int, made: dict[str, Net]) -> dict[str, dict[str, Any]]:
    """What comes of all trainings on one rank."""
    return everything(rank, ranks, ranks, made)


@pytest.mark.parametrize("ranks", [2, 3])
def test_p7_ranks_train_as_one_process(ranks: int, tmp_path: Path) -> None:
    one = everything(0, 1, ranks, early())
    ((first, *others),) = in_ranks(as_rank, (ranks,), tmp_path, before=early)
    problems = []
    for name, expected in one.items():
        for other in others:
            problems += [f"{name}: {key} differs between ranks" for key, value in first[name]["state"].items()
                         if not torch.equal(value, other[name]["state"][key])]
        if name not in RANDOM:
            try:
                torch.testing.assert_close(first[name], expected, rtol=1e-5, atol=1e-6)
            except AssertionError as error:
                problems.append(f"{name}: {error}")
    assert not problems, "\n".join(problems)
