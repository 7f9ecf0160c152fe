"""What a clip was before the codec, which takes frames of any size as they are."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from codeczoo.core.errors import FormatError, InputError

MOST = 2**53  # of numerators and denominators: whole numbers that every JSON reader keeps


@dataclass(frozen=True)
class VideoFit:
    """What a clip was; plain values, kept in the token file.

    Args:
        rate: frames a second; None of a picture.
        start: seconds, when the first frame is shown by the clock of the sound.
        aspect: width by height of a pixel.
    """

    rate: Fraction | None
    start: Fraction = Fraction(0)
    aspect: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if (self.rate is not None and self.rate <= 0) or self.aspect <= 0:
            raise InputError(f"a clip has a rate and an aspect above 0, got {self.rate} and {self.aspect}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON header; `from_dict` is the inverse."""
        values: dict[str, Any] = {"rate": None if self.rate is None else _pair(self.rate)}
        if self.start:
            values["start"] = _pair(self.start)
        if self.aspect != 1:
            values["aspect"] = _pair(self.aspect)
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "VideoFit":
        """Raises FormatError when `values` is not what `to_dict` made."""
        try:
            rate = None if values["rate"] is None else _fraction(values["rate"])
            return VideoFit(rate, *(_fraction(values.get(key, [n, 1])) for key, n in (("start", 0), ("aspect", 1))))
        except (TypeError, KeyError, AttributeError, ValueError, ZeroDivisionError) as error:
            raise FormatError(f"not a VideoFit: {error}") from None


def _pair(value: Fraction) -> list[int]:
    return [value.numerator, value.denominator]


def _fraction(pair: Any) -> Fraction:
    if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and abs(n) <= MOST for n in pair)):
        raise ValueError(f"{pair!r} is not two whole numbers")
    return Fraction(*pair)
