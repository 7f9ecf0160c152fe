"""Patterns: how the tokens of one document become the ids that a language model reads, and back, exactly.

A document is what one file became: one sample, or several when a picture was cut into tiles or the channels of a
recording were coded one by one. Another order of ids is another class; the class path and its arguments stand in the
header of every export.
"""

from codeczoo.export.patterns.base import Ids, Offsets, Pattern, Vocabulary, grid_of, sizes_of
from codeczoo.export.patterns.factored import Factored, split_spec
from codeczoo.export.patterns.flat import Flat, FrameMajor, LayerMajor
from codeczoo.export.patterns.wide import CoarseFirst, Delay, Parallel

__all__ = [
    "CoarseFirst", "Delay", "Factored", "Flat", "FrameMajor", "Ids", "LayerMajor", "Offsets", "Parallel", "Pattern",
    "Vocabulary", "grid_of", "sizes_of", "split_spec",
]  # fmt: skip
