"""Top-down quantization of video features on several grids: the coarsest first, finer ones with what it gave in view.

Source: the hierarchy of VQ-VAE-2 (arXiv 1906.00446); layers of HiTVideo (arXiv 2503.11513), whose details are not
published.
Differs: any number of levels, each with a quantizer of its own; how a level takes up what came before is a strategy
(quantizers/merge.py); levels may be dropped in training, so that any prefix of streams decodes; runs piece by piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from codeczoo.core.base import Quantizer
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Prefix, Quantized
from codeczoo.nn.stage3d import Stage
from codeczoo.nn.stream import Waiting
from codeczoo.quantizers.dropout import Depth, kept
from codeczoo.quantizers.layered import joined
from codeczoo.quantizers.merge import Merge
from codeczoo.quantizers.tokenwise import Tokenwise


class _Coarsest(Merge):
    """That of the coarsest level: nothing is above it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.dim, self.given = Stage([], dim, dim, (1, 1, 1)), dim, dim

    def latent(self, feature: Tensor, above: Tensor) -> Tensor:
        """See Merge."""
        return feature

    def join(self, above: Tensor, value: Tensor | None) -> Tensor:
        """See Merge."""
        assert value is not None
        return value


@dataclass
class Level:
    """State of one level in a stream, in one direction.

    Args:
        above: what the coarser levels gave, on the level's grid, as far as it is not used yet.
        own: features or values of the level that wait for it.
    """

    above: Waiting
    own: Waiting = field(default_factory=Waiting)


class TopDown(Quantizer[tuple[Tensor, ...], Sequence[Tensor]]):
    """Levels, coarse to fine; each is a stream of codes, and any prefix of the streams decodes to the finest grid.

    Latents are one feature (B, D, t, h, w) for each level; the grids are those that the merges' `up` lead to.
    Losses: for each name the mean over the levels of those of their quantizers, each over the samples it is part of.

    Args:
        quantizers: one for each level.
        merges: how each level but the coarsest takes up what the coarser ones gave.
        depth: how many levels take part in training, per batch or per sample; None: all.

    Raises:
        ConfigError: numbers of levels or channels that do not fit together.
    """

    prefixes: tuple[Prefix, ...] = ("streams",)

    def __init__(self, quantizers: Sequence[Tokenwise], merges: Sequence[Merge], depth: Depth | None = None) -> None:
        super().__init__()
        self.vocab_sizes = joined(quantizers, "TopDown")
        if len(merges) != len(quantizers) - 1:
            raise ConfigError(f"TopDown: {len(quantizers)} quantizers want one merge less, got {len(merges)}")
        strategies = [_Coarsest(quantizers[0].dim), *merges]
        for coarse, fine, quantizer in zip(strategies, merges, quantizers[1:], strict=False):
            if (fine.up.inputs, fine.dim) != (coarse.given, quantizer.dim):
                wanted, got = f"{coarse.given} to {quantizer.dim}", f"{fine.up.inputs} to {fine.dim}"
                raise ConfigError(f"TopDown: a merge must lead from {wanted} channels as the levels have, got {got}")
        self.quantizers, self.merges, self.depth = nn.ModuleList(quantizers), nn.ModuleList(strategies), depth
        self.dim = strategies[-1].given

    @property
    def levels(self) -> list[tuple[Tokenwise, Merge]]:
        """The quantizer of each level, and how it takes up what came before."""
        return list(zip(self.quantizers, self.merges, strict=True))  # type: ignore[arg-type]

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of each level's feature."""
        return tuple(quantizer.dim for quantizer, _ in self.levels)

    @property
    def strides(self) -> list[tuple[int, int, int]]:
        """(f, h, w) between the grids of each level and the next."""
        return [merge.up.stride for _, merge in self.levels[1:]]

    @property
    def stream_vocab_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Entries of the K codebooks of each stream."""
        return tuple(quantizer.vocab_sizes for quantizer, _ in self.levels)

    @property
    def starting(self) -> bool:  # type: ignore[override]
        """Whether a quantizer waits for `initialize`."""
        return any(quantizer.starting for quantizer, _ in self.levels)

    def priors(self) -> tuple[Tensor | None, ...]:
        """See Quantizer: those of the levels, one after the other."""
        return tuple(prior for quantizer, _ in self.levels for prior in quantizer.priors())

    # --- whole clips -------------------------------------------------------------------------------------------------

    def forward(
        self, z: Sequence[Tensor], valid: Sequence[Tensor] | None = None, depth: Tensor | None = None
    ) -> Quantized:
        """See Quantizer.forward.

        Args:
            z: features (B, D, t, h, w), coarse to fine.
            valid: bool (B, t, h, w) for each; None: everything counts.
            depth: int64 (B,), levels that take part in each sample; None: as `self.depth` draws them in training, and
                all in evaluation. Codes of the others are 0.
        """
        self._check_features(z)
        if depth is None and self.training and self.depth is not None:
            depth = self.depth(len(z[0]), len(self.levels), z[0].device)
        among = None if depth is None else kept(depth, len(self.levels))  # (B, L)
        given, streams, losses = z[0], [], dict[str, Tensor]()
        for k, (quantizer, merge) in enumerate(self.levels):
            above = self._above(merge, given, z[k])
            mask = None if valid is None else valid[k]
            if among is not None:
                taken = among[:, k].view(-1, 1, 1, 1).expand(-1, *z[k].shape[2:])
                mask = taken if mask is None else mask & taken
            found = quantizer(merge.latent(z[k], above), mask)
            given = merge.join(above, found.z)
            streams.append(found.codes)
            for name, loss in found.losses.items():
                losses[name] = losses.get(name, 0) + loss / len(self.levels)
        return Quantized(given, tuple(streams), losses, depth)

    @torch.no_grad()
    def initialize(self, z: Sequence[Tensor], valid: Sequence[Tensor] | None = None) -> None:
        """See Quantizer.initialize: all levels at once, each from what it gets when the coarser ones have begun."""
        self._check_features(z)
        given = z[0]
        for k, (quantizer, merge) in enumerate(self.levels):
            above = self._above(merge, given, z[k])
            latent = merge.latent(z[k], above)
            quantizer.initialize(latent, None if valid is None else valid[k])
            given = merge.join(above, quantizer.decode(quantizer.encode(latent)))

    @torch.no_grad()
    def encode(self, z: Sequence[Tensor], n_streams: int | None = None) -> tuple[Tensor, ...]:
        """Features (B, D, t, h, w) to the codes of all levels or of the first ones. Raises InputError."""
        self._check_features(z)
        given, streams = z[0], []
        for (quantizer, merge), feature in zip(self.levels[: self._streams(n_streams)], z, strict=False):
            above = self._above(merge, given, feature)
            streams.append(quantizer.encode(merge.latent(feature, above)))
            given = merge.join(above, quantizer.decode(streams[-1]))
        return tuple(streams)

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes of all levels or of the first ones to the decoder's input, (B, D, t, h, w) on the finest grid."""
        given, n = codes[0], self._streams(len(codes))
        for k, (quantizer, merge) in enumerate(self.levels):
            given = merge.join(merge.up(given), quantizer.decode(codes[k]) if k < n else None)
        return given

    # --- piece by piece ----------------------------------------------------------------------------------------------

    def begin(self) -> list[Level]:
        """The state of a new stream, in one direction."""
        return [Level(Waiting(merge.up.begin())) for _, merge in self.levels]

    @torch.no_grad()
    def encode_step(self, z: Sequence[Tensor], state: list[Level], last: bool = False) -> tuple[Tensor, ...]:
        """The next steps of each feature to the codes of each level that can be told by now.

        Args:
            z: features (B, D, t, h, w), t >= 0.
            state: of the stream.
            last: nothing follows.
        """
        self._check_features(z)
        given, streams = z[0], []
        for own, (quantizer, merge), feature in zip(state, self.levels, z, strict=True):
            above, ready = _meeting(own, merge.up.step(given, own.above.state, last), feature)
            streams.append(quantizer.encode(merge.latent(ready, above)))
            given = merge.join(above, quantizer.decode(streams[-1]))
        return tuple(streams)

    @torch.no_grad()
    def decode_step(self, codes: Sequence[Tensor], state: list[Level], last: bool = False) -> Tensor:
        """The next codes of all levels, or of the first ones, to what can be told of the decoder's input by now.

        Args:
            codes: int64 (B, K, t, h, w), t >= 0; of as many levels at every call.
            state: of the stream.
            last: nothing follows.
        """
        given, n = codes[0], self._streams(len(codes))
        for k, (own, (quantizer, merge)) in enumerate(zip(state, self.levels, strict=True)):
            above, value = merge.up.step(given, own.above.state, last), None
            if k < n:
                above, value = _meeting(own, above, quantizer.decode(codes[k]))
            given = merge.join(above, value)
        return given

    # --- checks ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _above(merge: Merge, given: Tensor, feature: Tensor) -> Tensor:
        """What the coarser levels gave, on the grid of a level."""
        above = merge.up(given)
        if above.shape[2:] != feature.shape[2:]:
            got, wanted = tuple(feature.shape[2:]), tuple(above.shape[2:])
            raise InputError(f"a feature has the grid {got} where the level above it leads to {wanted}")
        return above

    def _streams(self, n: int | None) -> int:
        most = len(self.levels)
        if n is not None and not 1 <= n <= most:
            raise InputError(f"n_streams must be 1..{most}, got {n}")
        return most if n is None else n

    def _check_features(self, z: Sequence[Tensor]) -> None:
        got = tuple(feature.shape[1] for feature in z)
        if got != self.dims:
            raise InputError(f"TopDown takes features of {self.dims} channels, coarse to fine, got {got}")


def _meeting(state: Level, above: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """More of what came from above and of a level's own, to the steps for which both are there."""
    state.above.add(above)
    state.own.add(own)
    ready = min(state.above.steps, state.own.steps)
    return state.above.take(ready), state.own.take(ready)
