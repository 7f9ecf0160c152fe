"""What is measured and shown on validation batches, and the validation of pictures."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from codeczoo.core.base import Autoencoder, Codec
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Prefix, Tokens, TokenSpec
from codeczoo.metrics.codebook import CodebookUse
from codeczoo.metrics.image import psnr, ssim


class Clip(NamedTuple):
    """A sound to listen to.

    Args:
        name: of the file, without suffix.
        x: float (C, T) in [-1, 1].
        sample_rate: Hz.
        original: the same in every validation.
    """

    name: str
    x: Tensor
    sample_rate: int
    original: bool


def wanted(function: Callable[..., Any], batch: Mapping[str, Any]) -> dict[str, Any]:
    """What of the batch `function` has arguments for."""
    signature = inspect.signature(inspect.unwrap(function))  # FSDP wraps methods and hides their first argument
    return {name: batch[name] for name in signature.parameters if name in batch}


class Validation(nn.Module, ABC):
    """Base: measures of decode(encode(x)) at a few prefix lengths, codebook use, and the first samples to look at.

    Subclasses name `measures` and `prefix`, and write `compare` and `show`.

    Args:
        spec: of the codec.
        shares: prefix lengths as shares of all, for codecs that decode such prefixes; rising, last 1.
        shown: samples in the picture.

    Raises:
        ConfigError: shares that do not rise to 1.
    """

    measures: tuple[str, ...]
    prefix: Prefix
    sums: Tensor

    def __init__(self, spec: TokenSpec, shares: Sequence[float], shown: int) -> None:
        super().__init__()
        if not shares or list(shares) != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1:
            raise ConfigError(f"validation.shares must rise within 0..1 and end with 1, got {list(shares)}")
        self.lengths: list[int | None] = [None]  # None: all there is
        if self.prefix in spec.prefixes:
            stream = spec.streams[0]
            full = {"positions": stream.shape[0], "codebooks": len(stream.vocab_sizes), "streams": len(spec.streams)}
            if (most := full[self.prefix]) is not None:
                shorter = dict.fromkeys(max(1, round(most * share)) for share in shares[:-1])
                self.lengths = [*(n for n in shorter if n < most), None]
        self.shown = shown
        self.use = CodebookUse(spec)
        # Sum and count of each measure at each length; clips without a value (NaN) do not count.
        self.register_buffer("sums", torch.zeros(len(self.lengths), len(self.measures), 2), persistent=False)
        self.samples: list[Tensor] = []  # (1 + lengths, C, *size): the original, then each prefix

    @abstractmethod
    def compare(self, x: Tensor, x_hat: Tensor, lengths: Tensor | None) -> list[Tensor]:
        """Each of `measures` per sample, (B,); NaN where it has none."""

    @abstractmethod
    def show(self, samples: list[Tensor]) -> Tensor:
        """One picture (3, H, W) in [0, 1] of samples as in `self.samples`."""

    def clips(self) -> list[Clip]:
        """Sounds to keep; call before `picture`."""
        return []

    @torch.no_grad()
    def measure(self, codec: Autoencoder, batch: Mapping[str, Any]) -> None:
        """Adds one batch, "x" and whatever else the codec encodes and decodes with."""
        x, lengths = batch["x"], batch.get("lengths")
        versions = [x]
        for row, x_hat in zip(self.sums, self.reconstructions(codec, batch), strict=True):
            found = torch.stack(self.compare(x, x_hat, lengths)).to(row)  # (measures, B)
            row += torch.stack([found.nansum(1), (~found.isnan()).sum(1)], 1)
            versions.append(x_hat)
        more = max(0, self.shown - len(self.samples))
        sizes = [x.shape[2]] * len(x) if lengths is None else lengths.tolist()  # of time; pictures stay as they are
        together = zip(torch.stack(versions, 1)[:more], sizes, strict=False)
        self.samples += [sample[:, :, :size].cpu() for sample, size in together]

    def reconstructions(self, codec: Autoencoder, batch: Mapping[str, Any]) -> Iterator[Tensor]:
        """x_hat, float32, at each of the lengths. Counts the codes."""
        if not isinstance(codec, Codec):
            x_hat = codec(**wanted(codec.forward, batch)).x_hat
            yield x_hat.float().clamp(0, 1)
            return
        tokens = codec.encode(**wanted(codec.encode, batch))
        given = wanted(codec.decode, batch)
        self.use.update(tokens)
        for length in self.lengths:
            yield codec.decode(self.part(tokens, length), **given).float()

    def part(self, tokens: Tokens, length: int | None) -> Tokens:
        """A prefix of the tokens; None: all."""
        return tokens if length is None else tokens.prefix(**{self.prefix: length})

    def results(self) -> dict[str, float]:
        """Means over all ranks since the last call, by name; a prefix's name ends in its length."""
        self.use.reduce()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.sums)
        found: dict[str, float] = {}
        for row, length in zip(self.sums.tolist(), self.lengths, strict=True):
            suffix = "" if length is None else f"_{length}"
            found |= {f"{n}{suffix}": s / max(count, 1) for n, (s, count) in zip(self.measures, row, strict=True)}
        uses = self.use.result()
        if uses:
            found["codebook_use"] = sum(u.share for u in uses) / len(uses)
            found["perplexity"] = sum(u.perplexity for u in uses) / len(uses)
        self.sums.zero_()
        self.use.reset()
        return found

    def picture(self) -> Tensor | None:
        """The first samples side by side, (3, H, W): originals above, then each prefix. Forgets them."""
        samples, self.samples = self.samples, []
        return self.show(samples) if samples else None


class PictureValidation(Validation):
    """PSNR and SSIM.

    Args:
        spec: of the codec.
        shares: prefix lengths as shares of all positions; rising, last 1.
        pictures: samples in the picture.
    """

    measures = ("psnr", "ssim")
    prefix: Prefix = "positions"

    def __init__(self, spec: TokenSpec, shares: Sequence[float] = (1 / 16, 1 / 4, 1.0), pictures: int = 8) -> None:
        super().__init__(spec, shares, pictures)

    def compare(self, x: Tensor, x_hat: Tensor, lengths: Tensor | None) -> list[Tensor]:
        """See Validation."""
        return [psnr(x, x_hat), ssim(x, x_hat)]

    def show(self, samples: list[Tensor]) -> Tensor:
        """See Validation."""
        columns = [torch.cat(list(sample), 1) for sample in samples]  # (3, rows*H, W) each
        height = min(c.shape[1] for c in columns)
        return torch.cat([c[:, :height] for c in columns], 2).clamp(0, 1)
