"""Finite scalar quantization: every channel is bounded and rounded to a few levels. No codebook, no losses, no state.

Source: FSQ (arXiv 2309.15505); the symmetric bound is that of arXiv 2411.19842. Values and order of codes are those of
vector-quantize-pytorch, FlexTok, VidTok and Cosmos-Tokenizer.
Differs: codes are packed as integers and exact up to 2^62 entries; no table of all entries exists; no code leaves its
range, whatever the latent.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Quantized
from codeczoo.quantizers.estimators import Estimator, StraightThrough
from codeczoo.quantizers.layout import by_channel, check_mask, check_width, grid, rows
from codeczoo.quantizers.ranks import Mean
from codeczoo.quantizers.tokenwise import Step, Tokenwise

MOST_LEVELS = 1 << 16  # of one channel: far below what float32 rounds exactly
MOST_ENTRIES = 1 << 62
FLOAT_EXACT = 1 << 24  # whole numbers up to here are exact in float32
CHUNK = 1 << 15  # numbers that encode works on at once


class FSQ(Tokenwise):
    """A latent of D channels becomes one code: the levels of its channels as one number, the first channel fastest.

    Values are in -1..1. The gradient passes the bound (tanh) and skips the rounding only. A training step holds what it
    returns and little else; straight through, it is differentiable once.

    Args:
        levels: number of levels of each of the D channels, 3..65536; their product, at most 2^62, is the vocabulary.
        estimator: how gradients pass the rounding; None: straight through.

    Raises:
        ConfigError: levels out of range.
    """

    least = 3
    levels: Tensor  # the constants are (D,)
    basis: Tensor
    top: Tensor
    span: Tensor
    reach: Tensor
    offset: Tensor
    shift: Tensor

    def __init__(self, levels: Sequence[int], estimator: Estimator | None = None) -> None:
        levels, name = tuple(levels), type(self).__name__
        if not levels or not all(isinstance(n, int) and self.least <= n <= MOST_LEVELS for n in levels):
            raise ConfigError(f"{name}: levels must be whole numbers in {self.least}..{MOST_LEVELS}, got {levels}")
        super().__init__(self.vocabulary(levels), len(levels), estimator)
        for constant, value in self.constants(torch.tensor(levels)).items():
            self.register_buffer(constant, value, persistent=False)

    def vocabulary(self, levels: tuple[int, ...]) -> tuple[int, ...]:
        """Entries of each codebook. Raises ConfigError when a code does not fit an integer."""
        size = prod(levels)
        if size > MOST_ENTRIES:
            name = type(self).__name__
            raise ConfigError(f"{name}: levels {levels} make {size} codes, at most 2^62 fit; see Factorised{name}")
        return (size,)

    def constants(self, levels: Tensor) -> dict[str, Tensor]:
        """What stays the same for levels int64 (D,), by name; `span` is how many levels value 1 is from value 0."""
        reach, offset = (levels - 1) * (1 + 1e-3) / 2, (1 - levels % 2) / 2
        packing = {"levels": levels, "basis": levels.cumprod(0) // levels, "top": (levels - 1).float()}
        return packing | {
            "span": (levels // 2).float(), "reach": reach, "offset": offset, "shift": (offset / reach).atanh()
        }

    def bound(self, x: Tensor) -> Tensor:
        """x (..., D) to where it lies among the levels (..., D), in levels from the value 0; in new memory."""
        return ((x + self.shift).tanh_() * self.reach).sub_(self.offset)

    def slope(self, x: Tensor) -> Tensor:
        """The derivative of bound(x) / span, (..., D), in new memory."""
        return (x + self.shift).tanh_().square_().sub_(1).mul_(self.reach / -self.span)

    def rounded(self, position: Tensor) -> Tensor:
        """Position among the levels to the nearest one counted from the lowest, (..., D), in the same memory."""
        return position.round_().add_(self.span)

    def values(self, steps: Tensor) -> Tensor:
        """Levels 0..L-1 (..., D) to what they stand for, (..., D)."""
        return (steps - self.span).div_(self.span)

    def pack(self, steps: Tensor) -> Tensor:
        """Levels, whole numbers (..., D), to their codes int64 (..., K)."""
        exact = steps if self.vocab_sizes[0] <= FLOAT_EXACT else steps.long()  # floats take half the time
        return (exact * self.basis).sum(-1, keepdim=True).long()

    def unpack(self, index: Tensor) -> Tensor:
        """Codes int64 (..., K) to their levels (..., D)."""
        return (index // self.basis).fmod(self.levels)  # % takes twice as long

    def steps(self, x: Tensor) -> Tensor:
        """x (n, D) to levels 0..L-1, whole numbers in float32 (n, D). Raises InputError."""
        check_width(x, self.dim, "channels of z")
        return self._nearest(self.bound(by_channel(x)))

    def codes(self, steps: Tensor) -> Tensor:
        """Levels as `steps` gives them to codes int64 (..., K), in range even where x was no number."""
        return self.pack(steps).clamp_(min=0)

    def forward(self, z: Tensor, valid: Tensor | None = None) -> Quantized:
        """See Tokenwise."""
        if torch.compiler.is_compiling() or not isinstance(self.estimator, StraightThrough):
            return super().forward(z, valid)
        check_width(z, self.dim, "channels of z")
        check_mask(z, valid)
        out, codes = _StraightThrough.apply(z, valid, self)
        return Quantized(out, (codes,))

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        check_width(x, self.dim, "channels of z")
        position = self.bound(by_channel(x))
        steps = self._nearest(position.detach().clone())
        return Step(position / self.span, self.values(steps), self.codes(steps))

    def encode(self, z: Tensor) -> Tensor:
        """See Tokenwise."""
        if torch.compiler.is_compiling():
            return super().encode(z)
        check_width(z, self.dim, "channels of z")
        codes = z.new_empty(z.shape[0], len(self.vocab_sizes), *z.shape[2:], dtype=torch.int64)
        some = max(1, CHUNK // max(1, prod(z.shape[1:])))
        for part, own in zip(z.detach().split(some), codes.split(some), strict=True):
            own.copy_(self.codes(self._steps(part)).movedim(-1, 1))
        return codes

    def choose(self, x: Tensor) -> Tensor:
        """See Tokenwise."""
        return self.codes(self.steps(x))

    def look_up(self, index: Tensor) -> Tensor:
        """See Tokenwise."""
        check_width(index, len(self.vocab_sizes), "codebooks")
        return self.values(self.unpack(index))

    @torch.no_grad()
    def codes_of(self, z: Tensor) -> Tensor:
        """Values as `decode` gives them, (B, D, *S), to their codes (B, K, *S); `encode` would bound them once more."""
        with torch.autocast(z.device.type, enabled=False):
            x = rows(z)[0]
            check_width(x, self.dim, "channels of z")
            one = self.values(self.span + 1)  # (D,), what a level is wide
            return grid(self.codes(self._nearest(x / one)), z)

    def _steps(self, z: Tensor) -> Tensor:
        """z (B, D, *S) to levels (B, *S, D), in the memory layout of z."""
        return self._nearest(self.bound(z.float().movedim(1, -1)))

    def _nearest(self, position: Tensor) -> Tensor:
        return self.rounded(position).clamp_(min=0).clamp_(max=self.top)


class _StraightThrough(torch.autograd.Function):
    """z (B, D, *S), its mask and the quantizer to values (B, D, *S) and codes (B, K, *S); keeps z alone for later."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, valid: Tensor | None, quantizer: FSQ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(z, valid)
        ctx.quantizer = quantizer
        ctx.set_materialize_grads(False)
        steps = quantizer._steps(z)  # (B, *S, D)
        codes = quantizer.codes(steps).movedim(-1, 1)  # (B, K, *S)
        out = quantizer.values(steps).movedim(-1, 1).to(z.dtype)  # (B, D, *S)
        if valid is not None:
            dropped = ~valid[:, None]
            out.masked_fill_(dropped, 0)
            codes.masked_fill_(dropped, 0)
        ctx.mark_non_differentiable(codes)
        return out, codes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, None, None]:
        z, valid = ctx.saved_tensors
        slope = ctx.quantizer.slope(z.float().movedim(1, -1)).movedim(-1, 1)  # (B, D, *S)
        grad = slope.mul_(grad).to(z.dtype)
        return grad if valid is None else grad.masked_fill_(~valid[:, None], 0), None, None


class SymmetricFSQ(FSQ):
    """FSQ with levels that are symmetric about 0 and reach -1 and 1, be their number odd or even.

    Differs from vector-quantize-pytorch: values are exactly symmetric, where its are off by 1e-7.

    Args:
        levels: number of levels of each of the D channels, 2..65536; their product, at most 2^62, is the vocabulary.
        estimator: how gradients pass the rounding; None: straight through.
    """

    least = 2

    def constants(self, levels: Tensor) -> dict[str, Tensor]:
        """See FSQ."""
        packing = {"levels": levels, "basis": levels.cumprod(0) // levels, "top": (levels - 1).float()}
        return packing | {"span": (levels - 1) / 2}

    def bound(self, x: Tensor) -> Tensor:
        """See FSQ."""
        return x.tanh() * self.span

    def slope(self, x: Tensor) -> Tensor:
        """See FSQ."""
        return 1 - x.tanh().square_()

    def rounded(self, position: Tensor) -> Tensor:
        """See FSQ; half-way goes up, so that 0 does too."""
        return position.add_(self.span + 0.5).floor_()


class _Factorised:
    """One code for each channel: K = D codebooks, of any number."""

    def vocabulary(self, levels: tuple[int, ...]) -> tuple[int, ...]:
        """See FSQ."""
        return levels

    def pack(self, steps: Tensor) -> Tensor:
        """See FSQ: the levels are the codes."""
        return steps.long()

    def unpack(self, index: Tensor) -> Tensor:
        """See FSQ: the codes are the levels."""
        return index


class FactorisedFSQ(_Factorised, FSQ):
    """FSQ that gives each channel a code of its own: vocab_sizes are the levels. Args: see FSQ."""


class FactorisedSymmetricFSQ(_Factorised, SymmetricFSQ):
    """SymmetricFSQ that gives each channel a code of its own: vocab_sizes are the levels. Args: see SymmetricFSQ."""
