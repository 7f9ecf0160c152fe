"""What the length of a file's tokens was chosen for, as its header says it."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from codeczoo.core.errors import FormatError


@dataclass(frozen=True)
class Target:
    """A quality or a number of bytes, and what came of it.

    Args:
        wanted: "psnr:28", "mel:0.8" and so on: the tokens are the shortest prefix of this quality. A number: they are
            the longest prefix whose file has no more bytes.
        value: what was measured of the media that they decode to; None of bytes, or where there was nothing to measure.
        met: False where not even all tokens reach the quality: all of them are there.
    """

    wanted: str | int
    value: float | None = None
    met: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Keys of a header, as few as will do; `from_dict` is the inverse, but for digits of the value."""
        if isinstance(self.wanted, int):
            return {"max_bytes": self.wanted}
        value = {} if self.value is None else {"value": float(f"{self.value:.5g}")}
        return {"target": self.wanted, **value, **({} if self.met else {"met": False})}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Target | None":
        """Of a whole header; None where it has no target. Raises FormatError."""
        if "max_bytes" in values:
            most = values["max_bytes"]
            if type(most) is not int or most < 1:
                raise FormatError("max_bytes in the header is not sound")
            return Target(most)
        if "target" not in values:
            return None
        wanted, value, met = values["target"], values.get("value"), values.get("met", True)
        is_value = value is None or (type(value) in (int, float) and isfinite(value))
        if not isinstance(wanted, str) or not is_value or type(met) is not bool:
            raise FormatError("target, value or met in the header is not sound")
        return Target(wanted, value, met)
