"""What the quantizers share that treat every position by itself: layout, masks, precision, the estimator."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from torch import Tensor

from codeczoo.core.base import Quantizer
from codeczoo.core.types import Quantized
from codeczoo.quantizers.estimators import Estimator, StraightThrough
from codeczoo.quantizers.layout import grid, rows
from codeczoo.quantizers.ranks import Mean


@dataclass
class Step:
    """One quantizer's work on flat latents, before the estimator.

    Args:
        latent: (n, D), the x that is compared, a smooth function of the input.
        value: (n, D), exactly the decoded index; attached to what the reconstruction may train besides the latent.
        index: int64 (n, K).
        losses: unweighted scalars by name.
    """

    latent: Tensor
    value: Tensor
    index: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


class Tokenwise(Quantizer):
    """Base of quantizers that see latents as rows (n, D), in float32 whatever autocast says or the module is cast to.

    Attributes:
        drops: whether `draw` may leave codebooks out in training.
        only_commits: whether nothing of `quantize` trains the rows but "commitment", which is mean (x - sg(value))^2.

    Args:
        vocab_sizes: see Quantizer.
        dim: D.
        estimator: how gradients pass; None: straight through.
    """

    drops: bool = False
    only_commits: bool = False

    def __init__(self, vocab_sizes: tuple[int, ...], dim: int, estimator: Estimator | None = None) -> None:
        super().__init__()
        self.vocab_sizes, self.dim = vocab_sizes, dim
        self.estimator = estimator or StraightThrough()

    @abstractmethod
    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """Rows (n, D) in training or evaluation; rows that do not count are 0. Losses are averaged by `mean`."""

    @abstractmethod
    def choose(self, x: Tensor) -> Tensor:
        """Rows (n, D) to their index (n, K), without gradient or state."""

    @abstractmethod
    def look_up(self, index: Tensor) -> Tensor:
        """Index (n, K) to rows (n, D)."""

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Codebooks of each of the layers that quantizer dropout may leave out, coarse to fine: here a single layer."""
        return (len(self.vocab_sizes),)

    def draw(self, batch: int, device: torch.device) -> Tensor | None:
        """Quantizer dropout: how many layers each training sample keeps, int64 (batch,); None: all."""
        return None

    def choose_first(self, x: Tensor, n: int) -> Tensor:
        """As `choose`, the first n codebooks."""
        return self.choose(x)[:, :n]

    def through(self, x: Tensor, mean: Mean) -> Step:
        """As `quantize`, where no other quantizer is around: `value` carries the gradient that the estimator gives."""
        estimator = self.estimator if self.training else StraightThrough()
        step = self.quantize(x, mean, self.estimator)
        return replace(step, value=estimator(step.latent, step.value))

    def initialize_rows(self, x: Tensor, keep: Tensor | None) -> None:
        """As `initialize`, of rows (n, D) and which count (n,)."""

    @torch.no_grad()
    def initialize(self, z: Tensor, valid: Tensor | None = None) -> None:
        """See Quantizer.initialize."""
        with torch.autocast(z.device.type, enabled=False):
            self.initialize_rows(*rows(z, valid))

    def forward(self, z: Tensor, valid: Tensor | None = None) -> Quantized:
        """See Quantizer.forward; z of masked positions is 0, and so are their codes."""
        with torch.autocast(z.device.type, enabled=False):
            x, keep = rows(z, valid)
            return self.finish(z, keep, self.through(x, Mean(keep, len(x), x.device, self.training)))

    def finish(self, z: Tensor, keep: Tensor | None, step: Step) -> Quantized:
        """What `forward` returns for z (B, D, *S) after its rows went `through`; `keep` bool (n,)."""
        out, index = step.value, step.index
        if keep is not None:
            out, index = torch.where(keep[:, None], out, 0.0), index * keep[:, None]  # a gradient there may be NaN
        return Quantized(grid(out, z).to(z.dtype), (grid(index, z),), step.losses)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """z (B, D, *S) to codes int64 (B, K, *S)."""
        with torch.autocast(z.device.type, enabled=False):
            return grid(self.choose(rows(z)[0]), z)

    def decode(self, codes: Tensor) -> Tensor:
        """codes int64 (B, K, *S) to z (B, D, *S), float32."""
        with torch.autocast(codes.device.type, enabled=False):
            return grid(self.look_up(rearrange(codes, "b k ... -> (b ...) k")), codes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Tokenwise":
        return super()._apply(lambda t: same_precision(t, fn(t)), recurse)


def same_precision(before: Tensor, after: Tensor) -> Tensor:
    """`after`, or where that has another precision `before` on its device."""
    return after if after.dtype == before.dtype else before.to(after.device)
