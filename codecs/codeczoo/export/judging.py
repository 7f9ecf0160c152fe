"""What every judge of decoded media has: measures, sizes, baselines. The judges are in `export.judges`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from codeczoo.core.errors import InputError, nearest
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.batches import Prefix
from codeczoo.export.sources import Sample

Facts = dict[str, float]


@dataclass(frozen=True)
class Networks:
    """Measures that need weights; None: not measured.

    Args:
        lpips: x, x_hat (1, 3, H, W) to a scalar.
        inception: pictures to features, for rFID.
        i3d: clips to features, for FVD.
    """

    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    inception: nn.Module | None = None
    i3d: nn.Module | None = None


class Observer(Protocol):
    """What sees every sample of an evaluation and has values of its own for its rows; row 0 is the codec."""

    def see(self, sample: Sample) -> None:
        """Takes a good sample, before what became of it."""

    def see_decoded(self, rate: int, row: int, sample: Sample, x_hat: Tensor) -> None:
        """Takes what became of it, (C, *spatial), in one row of one rate."""

    def result(self, rates: Sequence[Prefix]) -> tuple[dict[str, Any], dict[tuple[int, int], dict[str, float]]]:
        """What holds for all rates, plain values, and the values of each (rate, row). Raises InputError."""


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

    def preview(self, x: Tensor) -> Tensor:
        """What is kept of x (C, *spatial) for the pictures of a report."""
        return x

    @abstractmethod
    def sizes(self, x: Tensor, tokens: Tokens, payload: int, total: int) -> Facts:
        """What tokens of x (C, *spatial) cost, nominally, as coded codes and as a whole file, bytes."""

    @abstractmethod
    def baseline(self, name: str, x: Tensor, payload: int, total: int) -> tuple[Tensor, Facts]:
        """x after a baseline that got the same bytes, and what it cost."""
