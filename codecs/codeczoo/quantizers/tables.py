"""What quantizers with a table of vectors share: matching, losses, how a table starts and is kept alive."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.errors import InputError
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.kmeans import KMeans
from codeczoo.quantizers.lookup import nearest
from codeczoo.quantizers.penalties import Penalty
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.tally import Stateful
from codeczoo.quantizers.tokenwise import Step, Tokenwise
from codeczoo.quantizers.upkeep import Upkeep


class Matching(Tokenwise):
    """Base of quantizers that match latents with a table of vectors. In float32, whatever the module is cast to.

    Args:
        vocab_size: V, entries.
        dim: D, channels of a latent.
        estimator: how gradients pass; None: straight through.
        penalty: losses of the table itself; None: none.
    """

    def __init__(
        self, vocab_size: int, dim: int, estimator: Estimator | None = None, penalty: Penalty | None = None
    ) -> None:
        super().__init__((vocab_size,), dim, estimator)
        self.penalty = penalty

    @property
    def only_commits(self) -> bool:  # type: ignore[override]
        """See Tokenwise: where rows are compared as they are."""
        return all(getattr(type(self), name) is getattr(Matching, name) for name in ("normalise", "match", "quantize"))

    @abstractmethod
    def table(self) -> Tensor:
        """The entries as they are compared, (V, D)."""

    def table_losses(self, latent: Tensor, code: Tensor, mean: Mean) -> dict[str, Tensor]:
        """Losses that train the table; rows (n, D), 0 where masked. Here "codebook" mean (code - sg(z))^2."""
        return {"codebook": mean.of_sum(F.mse_loss(code, latent.detach(), reduction="sum") / self.dim)}

    def find(self, x: Tensor, table: Tensor, adjust: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Rows (n, D) to the index (n,) of the entry that each matches; see `lookup.nearest`."""
        return nearest(x, table, adjust)

    def normalise(self, vectors: Tensor) -> Tensor:
        """What is compared and returned: the vectors (..., D) as they are."""
        return vectors

    def watch(self, latent: Tensor, index: Tensor, keep: Tensor | None) -> None:
        """In each training forward: latents (n, D), codes (n,), which count."""

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        step = self.match(x, mean, estimator)
        if self.training:
            self.watch(step.latent.detach(), step.index[:, 0], mean.keep)
        return step

    def match(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """As `quantize`, but does not `watch`."""
        self._check_start()
        latent, table = self.normalise(x), self.table()
        adjust = estimator.scores if self.training and estimator.chooses else None
        with torch.no_grad():
            index = self.find(latent, table, adjust)
        code = F.embedding(index, table)
        counted = code if mean.keep is None else code * mean.keep[:, None]
        error = F.mse_loss(latent, counted.detach(), reduction="sum") / self.dim
        losses = {"commitment": mean.of_sum(error), **self.table_losses(latent, counted, mean)}
        if self.penalty is not None:
            losses |= self.penalty(table)
        return Step(latent, code if estimator.to_codebook else code.detach(), index[:, None], losses)

    def choose(self, x: Tensor) -> Tensor:
        """See Tokenwise."""
        self._check_start()
        return self.find(self.normalise(x), self.table())[:, None]

    def look_up(self, index: Tensor) -> Tensor:
        """See Tokenwise."""
        return F.embedding(index[:, 0], self.table())

    def _check_start(self) -> None:
        if self.starting:
            name = type(self).__name__
            raise InputError(f"{name} starts from data: give a training batch to initialize(z) first, or load weights")


class TableVQ(Matching, Stateful):
    """Base of quantizers whose entries may be placed and moved one by one.

    Args:
        vocab_size: V, entries.
        dim: D, channels of a latent.
        upkeep: what moves rarely used entries in training; None: nothing does.
        start: what the first codebook is made of the first latents with; None: random. See `initialize`.
        estimator: how gradients pass; None: straight through.
        penalty: losses of the table itself; None: none.
    """

    codebook: Tensor
    started: Tensor

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        upkeep: Upkeep | None = None,
        start: KMeans | None = None,
        estimator: Estimator | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        super().__init__(vocab_size, dim, estimator, penalty)
        self.upkeep, self.start, self.starting = upkeep, start, start is not None
        self.make_table(vocab_size, dim)
        if start is not None:
            self.register_buffer("started", torch.tensor(False))
            self.register_load_state_dict_post_hook(_recall_start)

    def table(self) -> Tensor:
        """See Matching."""
        return self.normalise(self.codebook)

    @abstractmethod
    def make_table(self, vocab_size: int, dim: int) -> None:
        """Sets up `codebook` (V, D) with random entries, and what else the learning of it needs."""

    @abstractmethod
    def move(self, share: Tensor, vectors: Tensor) -> None:
        """Moves entries by a share (V,), 0..1, of the way to vectors (V, D)."""

    @abstractmethod
    def place(self, centres: Tensor, counts: Tensor) -> None:
        """Starts from centres (V, D) with so many latents each, (V,)."""

    def watch(self, latent: Tensor, index: Tensor, keep: Tensor | None) -> None:
        """See Matching."""
        if self.upkeep is not None:
            self.upkeep.watch(self.table().detach(), latent, index, keep)

    def update(self) -> None:
        """See Stateful."""
        if self.upkeep is not None:
            self.upkeep.update(self)

    def priors(self) -> tuple[Tensor | None, ...]:
        """See Quantizer: what the upkeep counted."""
        return (None if self.upkeep is None else self.upkeep.frequencies(),)

    @torch.no_grad()
    def initialize_rows(self, x: Tensor, keep: Tensor | None) -> None:
        """See Tokenwise: starts the codebook."""
        if self.start is None or not self.starting:
            return
        self.begin(*self.start(x, keep, len(self.codebook), self.normalise))

    @torch.no_grad()
    def begin(self, centres: Tensor, counts: Tensor) -> None:
        """As `place`; the table does not wait for latents to start from any more."""
        self.place(centres, counts)
        if self.start is not None:
            self.started.fill_(True)
            self.starting = False


def unit(vectors: Tensor) -> Tensor:
    """Unit length along the last axis. Vectors without a direction become 0 and get no gradient."""
    size = vectors.norm(dim=-1, keepdim=True)
    return torch.where(size > 1e-8, vectors / size.clamp(min=1e-8), 0.0)


def _recall_start(module: nn.Module, _: Any) -> None:
    assert isinstance(module, TableVQ)
    module.starting = not bool(module.started)
