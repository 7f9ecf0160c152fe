"""What is measured and shown on validation batches."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from codeczoo.core.base import Codec
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import TokenSpec
from codeczoo.metrics.codebook import CodebookUse
from codeczoo.metrics.image import psnr, ssim


class Validation(nn.Module):
    """PSNR and SSIM of decode(encode(x)) at a few prefix lengths, codebook use, and a picture of the first samples.

    Args:
        spec: of the codec.
        shares: prefix lengths as shares of all positions, for codecs that decode prefixes of positions; rising, last 1.
        pictures: samples in the picture.

    Raises:
        ConfigError: shares that do not rise to 1.
    """

    sums: Tensor

    def __init__(self, spec: TokenSpec, shares: Sequence[float] = (1 / 16, 1 / 4, 1.0), pictures: int = 8) -> None:
        super().__init__()
        if not shares or list(shares) != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1:
            raise ConfigError(f"validation.shares must rise within 0..1 and end with 1, got {list(shares)}")
        full = spec.streams[0].shape[0]
        self.lengths: list[int | None] = [None]  # None: all there is
        if "positions" in spec.prefixes and full is not None:
            self.lengths = [*dict.fromkeys(max(1, round(full * share)) for share in shares[:-1]), None]
        self.pictures = pictures
        self.use = CodebookUse(spec)
        self.register_buffer("sums", torch.zeros(len(self.lengths), 3), persistent=False)  # psnr, ssim, count
        self.shown: list[Tensor] = []  # (1 + lengths, 3, H, W) for each sample of the picture

    @torch.no_grad()
    def measure(self, codec: Codec, batch: Mapping[str, Any]) -> None:
        """Adds one batch, "x" and whatever else the codec decodes with."""
        x = batch["x"]
        given = {n: batch[n] for n in inspect.signature(codec.decode).parameters if n in batch}
        tokens = codec.encode(x)
        self.use.update(tokens)
        versions = [x]
        for row, length in zip(self.sums, self.lengths, strict=True):
            part = tokens if length is None else tokens.prefix(positions=length)
            x_hat = codec.decode(part, **given).float()
            row += torch.stack([psnr(x, x_hat).sum(), ssim(x, x_hat).sum(), x.new_tensor(len(x))])
            versions.append(x_hat)
        wanted = self.pictures - len(self.shown)
        self.shown += [sample.cpu() for sample in torch.stack(versions, 1)[:wanted]]

    def results(self) -> dict[str, float]:
        """Means over all ranks since the last call, by name; a prefix's name ends in its length."""
        self.use.reduce()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.sums)
        found: dict[str, float] = {}
        for (of_psnr, of_ssim, count), length in zip(self.sums.tolist(), self.lengths, strict=True):
            suffix = "" if length is None else f"_{length}"
            found |= {f"psnr{suffix}": of_psnr / max(count, 1), f"ssim{suffix}": of_ssim / max(count, 1)}
        uses = self.use.result()
        found["codebook_use"] = sum(u.share for u in uses) / len(uses)
        found["perplexity"] = sum(u.perplexity for u in uses) / len(uses)
        self.sums.zero_()
        self.use.reset()
        return found

    def picture(self) -> Tensor | None:
        """The samples side by side, (3, rows * H, columns * W): originals above, then each prefix. Forgets them."""
        if not self.shown:
            return None
        columns = [torch.cat(list(sample), 1) for sample in self.shown]  # (3, rows*H, W) each
        self.shown = []
        height = min(c.shape[1] for c in columns)
        return torch.cat([c[:, :height] for c in columns], 2).clamp(0, 1)
