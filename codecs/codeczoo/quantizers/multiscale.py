"""Multi-scale residual quantization: the latent at growing resolution, each scale what the coarser ones left over.

Source: VAR (arXiv 2404.02905); token lists of growing length in VAT (arXiv 2412.02202); layers of HiTVideo
(arXiv 2503.11513), whose grids are not published.
Differs: no process group is needed, grids need not be square nor end at the latent's own, every prefix of scales
decodes; residuals are detached and one estimator is around all scales, so that gradients pass with gain 1.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from codeczoo.core.base import Quantizer
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Prefix, Quantized
from codeczoo.quantizers.dropout import Depth, kept
from codeczoo.quantizers.estimators import Estimator, StraightThrough
from codeczoo.quantizers.layered import equal_dim, joined
from codeczoo.quantizers.layout import grid, rows
from codeczoo.quantizers.ranks import Mean, idle
from codeczoo.quantizers.scales import Resampler, Smoothing
from codeczoo.quantizers.tokenwise import Tokenwise, same_precision


class MultiScale(Quantizer[tuple[Tensor, ...]]):
    """A stack of scales; each brings the rest down to its grid, quantizes it and takes what comes back up off the rest.

    Codes are several streams, one per scale, in the order of `scales`, coarse to fine: stream s is int64
    (B, K, *scales[s]), positions in row-major order. Any prefix of the streams decodes, to the whole grid.
    Where `valid` leaves out all that a cell covers, its code is 0 and it counts nowhere; other cells are means over the
    valid positions.
    Losses: for each name the mean over the scales of those of their quantizers.
    Quantizers that start from data do so one a batch, and take no part before; one that serves several scales starts
    from what these would get if nothing was lost.

    Args:
        quantizers: one for each scale, or one for all; of equal dim. Their own estimators are not used.
        scales: grid of each, such as (1, 1), (2, 2), (4, 3); 1, 2 or 3 axes.
        resampler: how grids change size.
        size: grid of the latent; None: the last of the scales.
        smoothing: what follows the way up; None: nothing. It learns from the reconstruction.
        depth: how many scales take part in training, per batch or per sample; None: all.
        estimator: how gradients pass; None: straight through.

    Raises:
        ConfigError: for numbers, ranks or sizes that do not fit together.
    """

    prefixes: tuple[Prefix, ...] = ("streams",)

    def __init__(
        self,
        quantizers: Sequence[Tokenwise],
        scales: Sequence[Sequence[int]],
        resampler: Resampler,
        size: Sequence[int] | None = None,
        smoothing: Smoothing | None = None,
        depth: Depth | None = None,
        estimator: Estimator | None = None,
    ) -> None:
        super().__init__()
        joined(quantizers, "MultiScale")
        self.scales = tuple(tuple(scale) for scale in scales)
        self.size = tuple(size) if size is not None else self.scales[-1] if scales else ()
        _check(self.scales, self.size, len(quantizers), resampler, smoothing)
        self.quantizers, self.dim = nn.ModuleList(quantizers), equal_dim(quantizers, "MultiScale")
        self.resampler, self.smoothing, self.depth = resampler, smoothing, depth
        self.estimator = estimator or StraightThrough()
        self.inside = self.of_scales(self.estimator)
        self.vocab_sizes = tuple(v for sizes in self.stream_vocab_sizes for v in sizes)

    @property
    def stream_vocab_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Entries of the K codebooks of each stream."""
        return tuple(quantizer.vocab_sizes for quantizer in self._quantizers())

    @property
    def starting(self) -> bool:  # type: ignore[override]
        """Whether a quantizer waits for `initialize`."""
        return any(quantizer.starting for quantizer in self._quantizers())

    def priors(self) -> tuple[Tensor | None, ...]:
        """See Quantizer: one that serves several scales counts for all of them together."""
        return tuple(prior for quantizer in self._quantizers() for prior in quantizer.priors())

    def of_scales(self, estimator: Estimator) -> Estimator:
        """What the scales' quantizers choose with, and attach their values by; see `Tokenwise.quantize`."""
        return estimator

    def losses(self, x: Tensor, sums: list[Tensor], found: list[dict[str, Tensor]], mean: Mean) -> dict[str, Tensor]:
        """Losses by name.

        Args:
            x: latents as rows (n, D), 0 where masked.
            sums: rows (n, D) of what the scales up to each one give together.
            found: losses of the quantizer of each scale, none for those that wait.
            mean: over the rows that each scale counts in.
        """
        losses: dict[str, Tensor] = {}
        for name, loss in ((name, loss) for of_scale in found for name, loss in of_scale.items()):
            losses[name] = losses.get(name, 0) + loss / len(self.scales)
        return losses

    def to_decoder(self, value: Tensor) -> Tensor:
        """The sum over all scales (n, D), attached to what the reconstruction trains beside the latent."""
        return value

    def forward(self, z: Tensor, valid: Tensor | None = None, depth: Tensor | None = None) -> Quantized:
        """See Quantizer.forward.

        Args:
            z: (B, D, *size).
            valid: bool (B, *size), or None.
            depth: int64 (B,), scales that take part in each sample; None: as `self.depth` draws them in training, and
                all in evaluation. Codes of the others are 0.
        """
        self._check_latent(z)
        if depth is None and self.training and self.depth is not None:
            depth = self.depth(z.shape[0], len(self.scales), z.device)
        among = None if depth is None else kept(depth, len(self.scales))  # (B, L)
        estimator = self.estimator if self.training else StraightThrough()
        with torch.autocast(z.device.type, enabled=False):
            x, keep = rows(z, valid)
            sums, streams, found = self._quantize(grid(x, z), valid, among)
            active = keep
            if among is not None:
                active = among.repeat_interleave(math.prod(self.size), 0)  # (n, L)
                active = active if keep is None else active & keep[:, None]
            mean = Mean(active, len(x), x.device, across=self.training)
            losses = self.losses(x, [_rows(value) for value in sums], found, mean)
            out = estimator(x, self.to_decoder(_rows(sums[-1])))
            out = out if keep is None else torch.where(keep[:, None], out, 0.0)
            return Quantized(grid(out, z).to(z.dtype), streams, losses, depth=depth)

    def _quantize(
        self, rest: Tensor, valid: Tensor | None, among: Tensor | None
    ) -> tuple[list[Tensor], tuple[Tensor, ...], list[dict[str, Tensor]]]:
        """Training or evaluation: the sums (B, D, *size) after each scale, the codes and losses of each."""
        value, sums, streams, found = torch.zeros_like(rest), [], [], []
        for k, quantizer in enumerate(self._quantizers()):
            part, cells = self._down(rest, valid, self.scales[k])
            taken = None if among is None else among[:, k].view(-1, *[1] * len(self.size))  # (B, 1, ..)
            if taken is not None:
                cells = taken.expand(-1, *self.scales[k]) if cells is None else cells & taken
            if quantizer.starting and self.training:  # in evaluation the quantizer says what is missing
                codes = part.new_zeros(part.shape[0], len(quantizer.vocab_sizes), *self.scales[k], dtype=torch.int64)
                value = idle(value, quantizer)
                value = value if self.smoothing is None else idle(value, self.smoothing)
            else:
                x, keep = rows(part, cells)
                step = quantizer.quantize(x, Mean(keep, len(x), x.device, self.training), self.inside)
                index, code = step.index, step.value
                if keep is not None:  # decoders see code 0 where nothing counts, so its value has to be there
                    index = index * keep[:, None]
                    code = torch.where(keep[:, None], code, quantizer.look_up(torch.zeros_like(index)).detach())
                codes, h = grid(index, part), self._up(grid(code, part), k)
                h = h if taken is None else h * taken[:, None]
                value, rest = value + h, rest - h.detach()
                found.append(step.losses)
            sums.append(value)
            streams.append(codes)
        return sums, tuple(streams), found

    @torch.no_grad()
    def encode(self, z: Tensor, n_streams: int | None = None) -> tuple[Tensor, ...]:
        """z (B, D, *size) to the codes of each stream or of the first ones, int64 (B, K, *scale). Raises InputError."""
        self._check_latent(z)
        n = len(self.scales) if n_streams is None else n_streams
        if not 1 <= n <= len(self.scales):
            raise InputError(f"n_streams must be 1..{len(self.scales)}, got {n}")
        streams = []
        with torch.autocast(z.device.type, enabled=False):
            rest = grid(rows(z)[0], z)
            for k, quantizer in enumerate(self._quantizers()[:n]):
                part = self._down(rest, None, self.scales[k])[0]
                index = quantizer.choose(rows(part)[0])
                rest = rest - self._up(grid(quantizer.look_up(index), part), k)
                streams.append(grid(index, part))
        return tuple(streams)

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """The streams, or the first ones, int64 (B, K, *scale) to z (B, D, *size), float32. Raises InputError."""
        shapes = [tuple(stream.shape[2:]) for stream in codes]
        if not shapes or shapes != list(self.scales[: len(shapes)]):
            raise InputError(f"streams must have the grids {self.scales} or the first of them, got {shapes}")
        with torch.autocast(codes[0].device.type, enabled=False):
            value = torch.zeros(codes[0].shape[0], self.dim, *self.size, device=codes[0].device)
            for k, (quantizer, stream) in enumerate(zip(self._quantizers(), codes, strict=False)):
                value = value + self._up(grid(quantizer.look_up(_rows(stream)), stream), k)
            return value

    @torch.no_grad()
    def initialize(self, z: Tensor, valid: Tensor | None = None) -> None:
        """See Quantizer.initialize."""
        waiting = next((quantizer for quantizer in self._quantizers() if quantizer.starting), None)
        if waiting is None:
            return
        self._check_latent(z)
        given, kept = [], []
        with torch.autocast(z.device.type, enabled=False):
            rest = grid(rows(z, valid)[0], z)
            for k, quantizer in enumerate(self._quantizers()):
                part, cells = self._down(rest, valid, self.scales[k])
                x, keep = rows(part, cells)
                if quantizer is waiting:
                    given.append(x)
                    kept.append(torch.ones_like(x[:, 0], dtype=torch.bool) if keep is None else keep)
                if not quantizer.starting:
                    x = quantizer.look_up(quantizer.choose(x))
                if quantizer is waiting or not quantizer.starting:
                    rest = rest - self._up(grid(x, part), k)
            waiting.initialize_rows(torch.cat(given), None if valid is None else torch.cat(kept))

    def _down(self, x: Tensor, valid: Tensor | None, scale: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
        """x (B, D, *size) on the grid of a scale, and which of its cells (B, *scale) cover anything valid."""
        if scale == self.size:
            return x, valid
        if valid is None:
            return self.resampler.down(x, scale), None
        share = valid[:, None].to(x.dtype)  # (B, 1, *size)
        part, weight = self.resampler.down(x * share, scale), self.resampler.down(share, scale)
        return part / weight.clamp(min=1e-12), weight[:, 0] > 0

    def _up(self, h: Tensor, k: int) -> Tensor:
        """h (B, D, *scale) of scale k on the latent's grid, smoothed."""
        h = h if self.scales[k] == self.size else self.resampler.up(h, self.size)
        return h if self.smoothing is None else self.smoothing(h, k)

    def _quantizers(self) -> list[Tokenwise]:
        """That of each scale."""
        one_for_all = len(self.quantizers) == 1
        return list(self.quantizers) * (len(self.scales) if one_for_all else 1)  # type: ignore[return-value]

    def _check_latent(self, z: Tensor) -> None:
        if z.shape[1:] != (self.dim, *self.size):
            raise InputError(f"{type(self).__name__} takes (B, {self.dim}, {self.size}), got {tuple(z.shape)}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MultiScale":
        return super()._apply(lambda t: same_precision(t, fn(t)), recurse)


def _rows(x: Tensor) -> Tensor:
    return x.movedim(1, -1).reshape(-1, x.shape[1])  # (n, C)


def _check(
    scales: Sequence[tuple[int, ...]],
    size: tuple[int, ...],
    quantizers: int,
    resampler: Resampler,
    smoothing: Smoothing | None,
) -> None:
    rank = len(size)
    if not scales or any(len(s) != rank or not all(1 <= a <= b for a, b in zip(s, size, strict=True)) for s in scales):
        raise ConfigError(f"MultiScale: scales must be grids of as many axes as {size}, within it, got {list(scales)}")
    if quantizers not in (1, len(scales)):
        raise ConfigError(f"MultiScale: wanted 1 or {len(scales)} quantizers, got {quantizers}")
    if rank not in resampler.ranks:
        raise ConfigError(f"MultiScale: {type(resampler).__name__} works on {resampler.ranks} axes, got {rank}")
    if smoothing is not None and (smoothing.scales, smoothing.rank) != (len(scales), rank):
        got = f"{smoothing.scales} scales of {smoothing.rank} axes"
        raise ConfigError(f"MultiScale: smoothing must be for {len(scales)} scales of {rank} axes, is for {got}")
