"""Two processes (gloo) equal one process on the concatenated batch: LeCam, codebook use, FID sums."""

from pathlib import Path
from typing import Any

import torch
from in_ranks import in_ranks
from torch import distributed

from codeczoo.adversaries.blur import BlurDiscriminator
from codeczoo.adversaries.logits import LogitAdversary
from codeczoo.adversaries.losses import Hinge, LeCam
from codeczoo.core.types import StreamSpec, Tokens, TokenSpec
from codeczoo.metrics.codebook import CodebookUse
from codeczoo.metrics.fid import Gaussian


def sums(rank: int, world: int) -> dict[str, Any]:
    """What is summed over ranks; gradients averaged as DDP does."""
    mine = slice(rank * 4 // world, (rank + 1) * 4 // world)
    found: dict[str, Any] = {}

    torch.manual_seed(0)
    discriminator = BlurDiscriminator(width=4, stages=2, groups=2, grid=4)
    adversary = LogitAdversary(discriminator, Hinge(), LeCam(weight=3.0, decay=0.5))
    real, fake = torch.rand(2, 4, 3, 16, 16)
    real = real * torch.linspace(0.2, 3, 4)[:, None, None, None]  # samples differ, so ranks' own means do too
    for step in range(3):
        adversary.zero_grad()
        loss, logs = adversary.adversary_loss(real[mine] - 0.2 * step, fake[mine] + step)
        loss.backward()
        for p in adversary.parameters():
            if world > 1:
                distributed.all_reduce(p.grad)
                p.grad /= world
        found[f"gradients {step}"] = torch.cat([p.grad.flatten() for p in adversary.parameters()])
        found[f"running {step}"] = adversary.lecam.running.clone()
        found[f"lecam {step}"] = logs["lecam"]
        with torch.no_grad():
            for p in adversary.parameters():
                p -= 0.05 * p.grad

    spec = TokenSpec("image", "image", (StreamSpec((16, 8), ("position",), (10,), 10.0),))
    codes = torch.stack([torch.randint(0, 16, (4, 10)), torch.randint(0, 8, (4, 10))], 1)
    use, lengths = CodebookUse(spec), torch.tensor([10, 3, 0, 7])
    use.update(Tokens(spec, (codes[mine],), torch.ones(4, 2, dtype=torch.int64)[mine], (lengths[mine],)))
    use.reduce()
    found["counts"], found["use"] = use.counts, [(u.codes, u.share, u.bits) for u in use.result()]

    gaussian, features = Gaussian(3), torch.randn(4, 3)
    gaussian.update(features[mine])
    gaussian.reduce()
    found["mean"], found["covariance"] = gaussian.moments()
    return found


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    (alone,), (first, second) = in_ranks(sums, (1, 2), tmp_path)
    assert alone["lecam 2"] > 0 and alone["running 2"].abs().min() > 0  # else nothing is tested

    def same(name: str, a: Any, b: Any, tolerance: float) -> None:
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda text: f"{name}: {text}")

    for name in alone:
        same(name, first[name], second[name], 0)
        same(name, first[name], alone[name], 1e-5)
