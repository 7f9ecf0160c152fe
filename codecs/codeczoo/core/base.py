"""The contracts: Quantizer, Autoencoder and Codec, Adversary."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from codeczoo.core.errors import InputError
from codeczoo.core.types import Prefix, Quantized, Reconstruction, Sampling, Tokens, TokenSpec

Codes = TypeVar("Codes", default=Tensor)
Latents = TypeVar("Latents", default=Tensor)


class Quantizer(nn.Module, ABC, Generic[Codes, Latents]):
    """Continuous latents to codes and back.

    Codes are one tensor. A quantizer with several streams is a Quantizer[tuple[Tensor, ...]]: a tensor for each stream,
    coarse to fine. Latents are one tensor too, unless a second type says otherwise.

    Attributes:
        vocab_sizes: entries of each of the K codebooks, coarse to fine; of all streams, one after the other.
        dim: D, latent channels in and out.
        prefixes: which truncations of the codes still decode, "codebooks" or "streams".
        starting: True while it waits for `initialize`.
    """

    vocab_sizes: tuple[int, ...]
    dim: int
    prefixes: tuple[Prefix, ...] = ()
    starting: bool = False

    @abstractmethod
    def forward(self, z: Latents, valid: Latents | None = None) -> Quantized:
        """z (B, D, *S), valid bool (B, *S) or None. Masked positions count in no loss, statistic or codebook."""

    def initialize(self, z: Latents, valid: Latents | None = None) -> None:
        """Starts codebooks that begin from data, from a training batch as for `forward`; on every rank.

        Those of several layers start one layer a call, so call it once per training batch while `starting`.
        """

    def priors(self) -> tuple[Tensor | None, ...]:
        """For each codebook how often its entries were used in training, (V,) in any unit; None where nobody counted.

        For the range coder: `io.tokens.write(..., priors=...)`.
        """
        return (None,) * len(self.vocab_sizes)

    @abstractmethod
    def encode(self, z: Latents) -> Codes:
        """z (B, D, *S) to codes int64 (B, K, *S). No losses, no state."""

    @abstractmethod
    def decode(self, codes: Codes) -> Tensor:
        """codes int64 (B, K, *S) to z (B, D, *S)."""


class Autoencoder(nn.Module, ABC):
    """Media to latents and back: what the engine trains. Knows nothing of trainers, configurations or files.

    One that is no Codec is continuous: it gives no tokens, its spec has no streams, and it is a stage of codecs.

    Attributes:
        spec: static description of the media and the tokens.
        config: the configuration tree it was built from (`core.config.build` sets it); None when built by hand.
        sampling: how `decode` samples, to be replaced at will; None: it samples nothing.
    """

    spec: TokenSpec
    config: dict[str, Any] | None = None
    sampling: Sampling | None = None

    @abstractmethod
    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        """One training pass. `pixels=False` may leave x_hat None, for objectives that read no media."""

    def last_layer(self) -> Tensor:
        """The weight that adaptive adversary weights differentiate to."""
        raise InputError(f"{type(self).__name__} has no last layer for an adaptive adversary weight; use a fixed one")

    def check_media(self, x: Tensor, piece: bool = False) -> None:
        """Raises InputError unless x is float (B, C, *spatial) with the size that the spec asks for, and not empty.

        Args:
            x: media.
            piece: of a stream, which may be empty.
        """
        spatial = {"image": 2, "audio": 1, "video": 3}[self.spec.media]
        wanted = self.spec.input_size
        shape = f"(B, {self.spec.channels}, {', '.join(map(str, wanted or ['any'] * spatial))})"
        fits = x.ndim == 2 + spatial and x.shape[1] == self.spec.channels and (piece or 0 not in x.shape)
        if not fits or not x.is_floating_point() or (wanted and tuple(x.shape[2:]) != wanted):
            dtype = str(x.dtype).removeprefix("torch.")
            name = type(self).__name__
            raise InputError(f"{name} takes float {shape} {self.spec.media}s, none empty, got {dtype} {tuple(x.shape)}")


class Codec(Autoencoder):
    """Media to tokens and back."""

    @abstractmethod
    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None, n_streams: int | None = None
    ) -> Tokens:
        """x to Tokens, optionally only a prefix. Raises InputError for a wrong shape or a prefix it cannot decode."""

    @abstractmethod
    def decode(self, tokens: Tokens) -> Tensor:
        """Tokens, or any allowed prefix of them, to x_hat in the range of x, clamped."""

    def tokens(self, streams: Sequence[Tensor], x: Tensor) -> Tokens:
        """Tokens for the codes of the batch x."""
        size = torch.tensor(x.shape[2:], dtype=torch.int64, device=x.device).expand(x.shape[0], -1)
        return Tokens(self.spec, tuple(streams), size)


class Adversary(nn.Module, ABC):
    """Discriminator(s) with their two losses."""

    @abstractmethod
    def adversary_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the adversary minimises, and detached values to log. `fake` must not pass gradient to the codec."""

    @abstractmethod
    def codec_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What the codec minimises, unweighted by name: always "adversarial"; others (feature matching) with it."""
