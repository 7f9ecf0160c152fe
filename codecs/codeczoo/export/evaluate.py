"""How good a codec is at every rate: pictures through it, measures averaged, JPEG and WebP beside it at equal bytes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from codeczoo import zoo
from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.baselines import BASELINES, at_bytes
from codeczoo.export.batches import Prefix, Runner, windows
from codeczoo.export.sources import Sample
from codeczoo.io import tokens as token_file
from codeczoo.metrics.bits import bits_per_pixel, nominal_bits
from codeczoo.metrics.codebook import CodebookUse
from codeczoo.metrics.fid import ReconstructionFID
from codeczoo.metrics.image import ms_ssim, psnr, ssim

MEASURES = {"psnr": (psnr, 1), "ssim": (ssim, 6), "ms_ssim": (ms_ssim, 176)}  # and the fewest pixels a side they take
SHOWN = 6  # pictures kept for the grid


@dataclass(frozen=True)
class Networks:
    """Measures that need weights; None: not measured.

    Args:
        lpips: x, x_hat (1, 3, H, W) to a scalar.
        inception: pictures to features, for rFID.
    """

    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    inception: nn.Module | None = None


class Row:
    """A system at one rate: sums over pictures.

    Args:
        system: name of the codec or baseline.
        rate: which prefix, e.g. "32 positions".
        networks: measures that need weights.
        device: for the networks.
    """

    def __init__(self, system: str, rate: str, networks: Networks, device: torch.device) -> None:
        self.system, self.rate, self.networks, self.device = system, rate, networks, device
        self.pictures: list[Tensor] = []
        self._sums: dict[str, tuple[float, int]] = {}
        self._count = 0
        self._fid = ReconstructionFID(networks.inception).to(device) if networks.inception else None

    @torch.inference_mode()
    def add(self, x: Tensor, x_hat: Tensor, facts: dict[str, float]) -> None:
        """Measures one picture, x and x_hat (3, H, W) in [0, 1]; `facts` are averaged as they are."""
        pair = x[None], x_hat[None]
        smallest = min(x.shape[1:])
        values = facts | {name: float(of(*pair)) for name, (of, least) in MEASURES.items() if smallest >= least}
        on_device = [side.to(self.device) for side in pair]
        if self.networks.lpips is not None:
            values["lpips"] = float(self.networks.lpips(*on_device))
        if self._fid is not None:
            self._fid.update(*on_device)
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        self._count += 1
        if len(self.pictures) < SHOWN:
            self.pictures.append(x_hat)

    def result(self) -> dict[str, Any]:
        """Means over the pictures. A measure that some picture was too small for is left out."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count == self._count}
        if self._fid is not None:
            means["rfid"] = self._fid.result()
        return {"system": self.system, "rate": self.rate, "pictures": self._count, **means}


class Evaluation:
    """One codec at several rates, and the baselines at the bytes of each rate.

    Args:
        runner: the codec.
        rates: prefixes, see `rates_of`.
        against: names of baselines.
        networks: measures that need weights.
    """

    def __init__(self, runner: Runner, rates: Sequence[Prefix], against: Sequence[str], networks: Networks) -> None:
        self.runner, self.rates, self.against = runner, rates, against
        spec = runner.codec.spec
        self.originals: list[Tensor] = []
        self.uses = [CodebookUse(spec) for _ in rates]
        self.rows = [
            [Row(name, label(rate), networks, runner.device) for name in (zoo.title(runner.name), *against)]
            for rate in rates
        ]

    def add(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Measures every good sample, of one piece each, and hands all of them on."""
        for window in windows(samples, lambda window: len(window) >= self.runner.batch):
            good = [s for s in window if s.x is not None and s.tokens is not None]
            for rate, rows, use in zip(self.rates, self.rows, self.uses, strict=True):
                kept = [rate.of(s.tokens) for s in good if s.tokens is not None]
                for sample, tokens, x_hat in zip(good, kept, self.runner.decode(kept), strict=True):
                    use.update(tokens)
                    self._measure(rows, sample, tokens, x_hat)
            room = SHOWN - len(self.originals)
            self.originals += [s.x[0] for s in good[:room] if s.x is not None]
            yield from window

    def _measure(self, rows: Sequence[Row], sample: Sample, tokens: Tokens, x_hat: Tensor) -> None:
        assert sample.x is not None
        x, fit = sample.x[0], None if sample.fit is None else sample.fit.to_dict()
        data = token_file.dumps(tokens, codec=self.runner.name, weights_hash=self.runner.weights_hash, fit=fit)
        payload = token_file.read_header(data).payload_bytes
        pixels = prod(x.shape[1:])
        facts = {"bits": float(nominal_bits(tokens)), "bpp": float(bits_per_pixel(tokens))}
        facts |= {"payload_bytes": payload, "payload_bpp": 8 * payload / pixels}
        rows[0].add(x, x_hat, facts | sizes(len(data), pixels))
        for name, row in zip(self.against, rows[1:], strict=True):
            coded = at_bytes(x, BASELINES[name], len(data))
            shares = {"shrunk": float(coded.shrunk > 1), "too_large": float(coded.bytes > len(data))}
            row.add(x, coded.x_hat, sizes(coded.bytes, pixels) | shares)

    def result(self) -> list[dict[str, Any]]:
        """One mapping per row, rate by rate, the codec first."""
        results = []
        for rows, use in zip(self.rows, self.uses, strict=True):
            books = [u for u in use.result() if u.codes]
            about = {
                "codebook_use": sum(u.share for u in books) / max(len(books), 1),
                "perplexity": sum(u.perplexity for u in books) / max(len(books), 1),
            }
            results += [rows[0].result() | about, *(row.result() for row in rows[1:])]
        return results


def sizes(n_bytes: int, pixels: int) -> dict[str, float]:
    """Bytes of a whole file, and its bits per pixel."""
    return {"file_bytes": n_bytes, "file_bpp": 8 * n_bytes / pixels}


def label(rate: Prefix) -> str:
    """E.g. "32 positions", "all"."""
    parts = [f"{n} {name}" for name, n in vars(rate).items() if n is not None]
    return ", ".join(parts) or "all"


def rates_of(spec: TokenSpec, kind: str | None = None, wanted: Sequence[int] = ()) -> list[Prefix]:
    """The rates to measure, fewest first: as wanted, else all of the codec's first kind of prefix, halved four times.

    Args:
        spec: of the codec.
        kind: "positions", "codebooks" or "streams"; None: no wish.
        wanted: prefix lengths of that kind.

    Raises:
        InputError: a prefix that the codec does not decode.
    """
    if kind is not None:
        return [Prefix(**{kind: n}).check(spec) for n in sorted(set(wanted))]
    if not spec.prefixes:
        return [Prefix()]
    kind = spec.prefixes[0]
    full = {
        "positions": spec.streams[0].shape[0],
        "codebooks": max(len(s.vocab_sizes) for s in spec.streams),
        "streams": len(spec.streams),
    }[kind]
    if full is None:
        raise InputError(f"this codec has no fixed number of {kind}; give --{kind}")
    return [Prefix(**{kind: n}) for n in sorted({max(1, full >> i) for i in range(5)})]
