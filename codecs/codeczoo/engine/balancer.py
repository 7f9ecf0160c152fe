"""EnCodec's gradient balancer: weights as shares of the gradient at x_hat."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed, nn

from codeczoo.engine.objective import Weighted


class Balancer(nn.Module):
    """Scales every loss of x_hat so that its gradient at x_hat has, on average, a norm proportional to its weight.

    With g_i the gradient of a loss l with weight w_l at sample i of x_hat, for that sample's share of the mean, x_hat
    gets the sum over losses of norm w_l / (sum of w) g_i / average of |g_i|, averaged over the batch. The average is an
    exponential one over effective batches, bias-corrected, of the means over samples and ranks.
    Source: EnCodec (arXiv 2210.13438) section 3.4; AudioCraft, losses/balancer.py, per batch item.
    Differs: the averages are those of the effective batches before, so that they are the same for all batches and ranks
    that make one; a loss is only measured in its first effective batch. And x_hat gets the mean over samples, where
    AudioCraft sums over the samples of one GPU: its total_norm 1 at 8 samples per GPU is norm 8 here, which only counts
    beside unbalanced losses, clipping and Adam's eps. N ranks or accumulated batches equal one large batch.

    Args:
        norm: of the gradient at one sample of x_hat that all losses have together, when they point the same way.
        decay: of the averages, 0..1.
    """

    sums: Tensor
    counts: Tensor
    measured: Tensor

    def __init__(self, norm: float = 1.0, decay: float = 0.999) -> None:
        super().__init__()
        self.norm, self.decay = norm, decay
        self.name_losses([])

    def name_losses(self, names: Sequence[str]) -> None:
        """Sets the names of all losses that may come, and forgets what was measured."""
        self.places = {name: i for i, name in enumerate(names)}
        for name in ("sums", "counts"):  # of the averages: sums / counts
            self.register_buffer(name, torch.zeros(len(names)))
        self.register_buffer("measured", torch.zeros(2, len(names)))  # in this effective batch: norms and samples

    def forward(self, losses: Mapping[str, Weighted], x_hat: Tensor) -> Tensor:
        """A scalar whose gradient at x_hat is the balanced one. Measures the norms.

        Args:
            losses: means over the batch, functions of x_hat alone.
            x_hat: (B, C, *spatial), best float32, so that small gradients are not rounded away.
        """
        here = torch.tensor([self.places[name] for name in losses], device=x_hat.device)
        gradients = [
            torch.autograd.grad(loss.value, x_hat, retain_graph=True)[0].float() for loss in losses.values()
        ]
        samples = len(x_hat)
        norms = torch.stack([samples * g.flatten(1).norm(dim=1).sum() for g in gradients])
        self.measured[:, here] += torch.stack([norms, torch.full_like(norms, samples)])

        known = self.counts[here] > 0
        weights = known * torch.stack([torch.as_tensor(w, device=x_hat.device) for w, _ in losses.values()])
        average = torch.where(known, self.sums[here] / self.counts[here], 1.0)
        scales = self.norm * weights / weights.sum().clamp(min=1e-12) / (average + 1e-12)
        wanted = sum((scale * g for scale, g in zip(scales, gradients, strict=True)), torch.zeros_like(gradients[0]))
        return (x_hat.float() * wanted).sum()

    @torch.no_grad()
    def update(self) -> None:
        """Ends an effective batch: the averages take in what was measured on all ranks."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.measured)
        norms, samples = self.measured
        mean = norms / samples
        seen = (samples > 0) & mean.isfinite()  # a batch that overflowed must not stay in the average
        self.sums.copy_(torch.where(seen, self.decay * self.sums + mean, self.sums))
        self.counts.copy_(torch.where(seen, self.decay * self.counts + 1, self.counts))
        self.measured.zero_()
