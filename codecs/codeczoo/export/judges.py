"""How good decoded media are, and what their bytes are counted per: one class for each media."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from codeczoo.core.errors import InputError, nearest
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export import audio_baselines, baselines
from codeczoo.metrics import audio
from codeczoo.metrics.bits import bits_per_pixel, nominal_bits
from codeczoo.metrics.fid import ReconstructionFID
from codeczoo.metrics.image import ms_ssim, psnr, ssim

Facts = dict[str, float]


@dataclass(frozen=True)
class Networks:
    """Measures that need weights; None: not measured.

    Args:
        lpips: x, x_hat (1, 3, H, W) to a scalar.
        inception: pictures to features, for rFID.
    """

    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    inception: nn.Module | None = None


class Measures:
    """Compares originals with what was decoded, for one row of a table. As it stands, one by one, with functions.

    Args:
        functions: x, x_hat (1, C, *spatial) to a number, by name.
    """

    def __init__(self, functions: dict[str, Callable[[Tensor, Tensor], Tensor]]) -> None:
        self.functions = functions

    def of(self, x: Tensor, x_hat: Tensor) -> Facts:
        """Of one pair, (C, *spatial) each: NaN where it has no value, nothing where it is too small."""
        return {name: float(function(x[None], x_hat[None])) for name, function in self.functions.items()}

    def of_all(self) -> Facts:
        """Of all pairs together."""
        return {}


class Judge(ABC):
    """Measures, sizes and baselines of one kind of media.

    Args:
        spec: of the codec.
        networks: measures that need weights.
        device: for them.

    Attributes:
        BASELINES: what media of this kind are compared with.
    """

    BASELINES: ClassVar[tuple[str, ...]]

    def __init__(self, spec: TokenSpec, networks: Networks, device: torch.device) -> None:
        self.spec, self.networks, self.device = spec, networks, device

    def check_baseline(self, name: str) -> None:
        """Raises InputError for what this media is not compared with."""
        if name not in self.BASELINES:
            raise InputError(f"no baseline '{name}' for {self.spec.media}; {nearest(name, self.BASELINES)}")

    @abstractmethod
    def measures(self) -> Measures:
        """For a new row."""

    @abstractmethod
    def sizes(self, x: Tensor, tokens: Tokens, payload: int, total: int) -> Facts:
        """What tokens of x (C, *spatial) cost, nominally, as coded codes and as a whole file, bytes."""

    @abstractmethod
    def baseline(self, name: str, x: Tensor, payload: int, total: int) -> tuple[Tensor, Facts]:
        """x after a baseline that got the same bytes, and what it cost."""


class PictureMeasures(Measures):
    """With those of networks. Arguments: see Judge."""

    FUNCTIONS: ClassVar = {"psnr": (psnr, 1), "ssim": (ssim, 6), "ms_ssim": (ms_ssim, 176)}  # and their fewest pixels

    def __init__(self, networks: Networks, device: torch.device) -> None:
        super().__init__({})
        self.networks, self.device = networks, device
        self._fid = ReconstructionFID(networks.inception).to(device) if networks.inception else None

    def of(self, x: Tensor, x_hat: Tensor) -> Facts:
        """See Measures."""
        smallest = min(x.shape[1:])
        self.functions = {name: of for name, (of, least) in self.FUNCTIONS.items() if smallest >= least}
        values = super().of(x, x_hat)
        pair = x[None].to(self.device), x_hat[None].to(self.device)
        if self.networks.lpips is not None:
            values["lpips"] = float(self.networks.lpips(*pair))
        if self._fid is not None:
            self._fid.update(*pair)
        return values

    def of_all(self) -> Facts:
        """See Measures."""
        return {} if self._fid is None else {"rfid": self._fid.result()}


class PictureJudge(Judge):
    """Bits are counted per pixel; baselines get the bytes of the whole file."""

    BASELINES: ClassVar[tuple[str, ...]] = tuple(baselines.BASELINES)

    def measures(self) -> Measures:
        """See Judge."""
        return PictureMeasures(self.networks, self.device)

    def sizes(self, x: Tensor, tokens: Tokens, payload: int, total: int) -> Facts:
        """See Judge."""
        facts = {"bits": float(nominal_bits(tokens)), "bpp": float(bits_per_pixel(tokens))}
        facts |= {"payload_bytes": payload, "payload_bpp": 8 * payload / prod(x.shape[1:])}
        return facts | self._file(x, total)

    def baseline(self, name: str, x: Tensor, payload: int, total: int) -> tuple[Tensor, Facts]:
        """See Judge."""
        coded = baselines.at_bytes(x, baselines.BASELINES[name], total)
        shares = {"shrunk": float(coded.shrunk > 1), "too_large": float(coded.bytes > total)}
        return coded.x_hat, self._file(x, coded.bytes) | shares

    def _file(self, x: Tensor, total: int) -> Facts:
        return {"file_bytes": total, "file_bpp": 8 * total / prod(x.shape[1:])}


class SoundJudge(Judge):
    """Bits are counted per second; baselines get the bytes of the coded codes, and count their packets."""

    BASELINES: ClassVar[tuple[str, ...]] = tuple(audio_baselines.BASELINES)

    def measures(self) -> Measures:
        """See Judge."""
        return Measures({name: partial(of, rate=self._rate) for name, of in audio.MEASURES.items()})

    def sizes(self, x: Tensor, tokens: Tokens, payload: int, total: int) -> Facts:
        """See Judge."""
        return {"kbps": self._kbps(x, float(nominal_bits(tokens)) / 8)} | self._coded(x, payload)

    def baseline(self, name: str, x: Tensor, payload: int, total: int) -> tuple[Tensor, Facts]:
        """See Judge."""
        coded = audio_baselines.at_bytes(x, self._rate, audio_baselines.BASELINES[name], payload)
        return coded.x_hat, self._coded(x, coded.bytes) | {"too_large": float(coded.bytes > payload)}

    @property
    def _rate(self) -> int:
        assert self.spec.sample_rate is not None
        return self.spec.sample_rate

    def _coded(self, x: Tensor, payload: float) -> Facts:
        return {"payload_bytes": payload, "payload_kbps": self._kbps(x, payload)}

    def _kbps(self, x: Tensor, n_bytes: float) -> float:
        return 8 * n_bytes * self._rate / x.shape[1] / 1000


JUDGES: dict[str, type[Judge]] = {"image": PictureJudge, "audio": SoundJudge}
