"""Binary quantizers: a code is the signs of the latent's channels, and no table is looked up.

Losses of all of them, with positive weights each; published objectives are E[H(p)] - gamma H(E[p]):
"commitment": mean (z - sg(code))^2.
"sample_entropy": of a token's distribution over codes, p(c|z) = softmax(2 z.c / temperature); low when it is sure.
"batch_entropy": MINUS the entropy of the mean of these over the tokens of all ranks; low when all codes are used.
Entropies are in nats and per codebook: summed over its bits or fields, averaged over the codebooks.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.bit_entropy import fields, joint_sums, of_bits, of_distribution
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.layout import check_width
from codeczoo.quantizers.ranks import Mean, summed_with_gradient, world_size
from codeczoo.quantizers.tables import unit
from codeczoo.quantizers.tokenwise import Step, Tokenwise

Order = Literal["big", "little"]


class BinaryQuantizer(Tokenwise):
    """Base: each channel gives a bit, 1 where it is above 0, and comes back as +scale or -scale. Has no state.

    Differs from all sources: entropies are exact, in float32, and their memory does not depend on the number of codes;
    the batch entropy is that of all ranks, with its gradient.

    Args:
        dim: D, channels and bits of a token.
        groups: K codebooks of D / K bits each; or the bits of each, summing to D. Up to 62 bits a codebook.
        scale: size of a code's channels, above 0.
        temperature: of the distributions in the entropies, above 0.
        order: whether the first channel of a codebook is its most ("big") or least ("little") significant bit.
        entropy_bits: the batch entropy is exact for fields of at most so many bits and summed over them, 1..24. Time
            and memory grow with 2^entropy_bits; the sum over fields is at least the entropy of all bits together.
        estimator: how gradients pass; None: straight through.

    Raises:
        ConfigError: for arguments out of range.
    """

    def __init__(
        self,
        dim: int,
        groups: int | Sequence[int],
        scale: float,
        temperature: float,
        order: Order,
        entropy_bits: int,
        estimator: Estimator | None,
    ) -> None:
        name = type(self).__name__
        widths = (dim // max(groups, 1),) * groups if isinstance(groups, int) else tuple(groups)
        if sum(widths) != dim or not widths or not all(1 <= width <= 62 for width in widths):
            raise ConfigError(f"{name}: groups must split dim {dim} into codebooks of 1..62 bits, got {groups}")
        if not scale > 0 or not temperature > 0:
            raise ConfigError(f"{name}: scale and temperature must be above 0, got {scale}, {temperature}")
        if order not in ("big", "little"):
            raise ConfigError(f"{name}: order must be 'big' or 'little', got {order!r}")
        if not 1 <= entropy_bits <= 24:
            raise ConfigError(f"{name}: entropy_bits must be 1..24, got {entropy_bits}")
        super().__init__(tuple(2**width for width in widths), dim, estimator)
        self.widths, self.scale, self.temperature = widths, scale, temperature
        self.order, self.entropy_bits = order, entropy_bits

    def normalise(self, x: Tensor) -> Tensor:
        """What is compared with the codes: rows (n, D) as they are."""
        return x

    def quantize(self, x: Tensor, mean: Mean, estimator: Estimator) -> Step:
        """See Tokenwise."""
        check_width(x, self.dim, "channels of z")
        latent, bits = self.normalise(x), x > 0
        if self.training and estimator.chooses:  # a code's score is a sum over its bits: each is chosen by itself
            scores = estimator.scores(torch.stack([latent * -self.scale, latent * self.scale], 2))  # (n, D, 2)
            bits = scores[..., 1] > scores[..., 0]
        value = self._signs(bits)
        counted = value if mean.keep is None else value * mean.keep[:, None]
        error = F.mse_loss(latent, counted, reduction="sum") / self.dim
        losses = {"commitment": mean.of_sum(error), **self._entropies(latent, mean)}
        return Step(latent, value, self._pack(bits), losses)

    def choose(self, x: Tensor) -> Tensor:
        """See Tokenwise."""
        check_width(x, self.dim, "channels of z")
        return self._pack(x > 0)

    def look_up(self, index: Tensor) -> Tensor:
        """See Tokenwise."""
        check_width(index, len(self.widths), "codebooks")
        shifts = zip(index.split(1, 1), self._shifts(index), strict=True)
        return self._signs(torch.cat([column >> shift & 1 for column, shift in shifts], 1))

    def _entropies(self, latent: Tensor, mean: Mean) -> dict[str, Tensor]:
        logits = latent * (4 * self.scale / self.temperature)  # (n, D), of +scale over -scale
        sample = mean(of_bits(logits).sum(1))
        batch = mean.of_sum(joint_sums(fields(logits, self.widths, self.entropy_bits), mean.keep))
        if self.training:
            batch = summed_with_gradient(batch) / world_size()
        k = len(self.widths)
        return {"sample_entropy": sample / k, "batch_entropy": -of_distribution(batch) / k}

    def _signs(self, bits: Tensor) -> Tensor:
        return bits.float() * (2 * self.scale) - self.scale

    def _pack(self, bits: Tensor) -> Tensor:
        parts = bits.long().split(self.widths, 1)  # (n, width) each
        return torch.stack([(part << s).sum(1) for part, s in zip(parts, self._shifts(bits), strict=True)], 1)

    def _shifts(self, like: Tensor) -> list[Tensor]:
        """For each codebook the places of its bits, (width,)."""
        places = [torch.arange(width, device=like.device) for width in self.widths]
        return [place.flip(0) for place in places] if self.order == "big" else places


class LFQ(BinaryQuantizer):
    """Look-up free quantization: codes +1 and -1.

    Source: MAGVIT-v2 (arXiv 2310.05737); losses as in vector-quantize-pytorch and SEED-Voken, both at temperature 0.01
    (inverse 100). Their bit orders: vector-quantize-pytorch and Cosmos "big", SEED-Voken "little". Its authors advise
    no activation but a normalisation before it, and the commitment loss.
    Differs: the batch entropy is by fields of 9 bits; `entropy_bits=18` is the joint one of a codebook of 2^18.

    Args: see BinaryQuantizer.
    """

    def __init__(
        self,
        dim: int,
        groups: int | Sequence[int] = 1,
        scale: float = 1.0,
        temperature: float = 0.01,
        order: Order = "big",
        entropy_bits: int = 9,
        estimator: Estimator | None = None,
    ) -> None:
        super().__init__(dim, groups, scale, temperature, order, entropy_bits, estimator)


class GQ(LFQ):
    """Group-wise look-up free quantization: LFQ with one small codebook for each group of channels.

    Source: WeTok (arXiv 2508.05599): 4 or 8 groups of 8 bits, temperature 0.01, little-endian.
    Differs: the batch entropy is of each group, where WeTok's code pools all groups into one average.

    Args:
        groups: K codebooks.
        bits: of each codebook, 1..62; D is groups * bits. Other arguments: see BinaryQuantizer.
    """

    def __init__(
        self,
        groups: int,
        bits: int = 8,
        temperature: float = 0.01,
        order: Order = "little",
        entropy_bits: int = 9,
        estimator: Estimator | None = None,
    ) -> None:
        super().__init__(groups * bits, groups, 1.0, temperature, order, entropy_bits, estimator)


class BSQ(BinaryQuantizer):
    """Binary spherical quantization: latents of unit length, codes +-1 / sqrt(D), so that these have unit length too.

    Source: arXiv 2406.07548, whose temperature is 1 and fields have 9 bits; big-endian. The spherical LFQ of
    vector-quantize-pytorch is this at temperature 0.01.

    Args: see BinaryQuantizer.
    """

    def __init__(
        self,
        dim: int,
        groups: int | Sequence[int] = 1,
        temperature: float = 1.0,
        order: Order = "big",
        entropy_bits: int = 9,
        estimator: Estimator | None = None,
    ) -> None:
        super().__init__(dim, groups, max(dim, 1) ** -0.5, temperature, order, entropy_bits, estimator)

    def normalise(self, x: Tensor) -> Tensor:
        """Unit length."""
        return unit(x)
