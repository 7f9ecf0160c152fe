"""Tokens as data sets for language models: patterns (codes <-> ids), writers, readers.

reader = codeczoo.export.read("tokens/")
ids = reader.ids(0)                        # integers (L,) or (K, L), as the language model sees them
x_hat = codec.decode(reader.tokens(0))     # exactly the tokens that were exported
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codeczoo.export.dataset import Reader as Reader
    from codeczoo.export.dataset import read as read

__all__ = ["Reader", "read"]

# Here, because the command line shows them and this module costs no import of torch.
FORMATS = (
    "parquet",
    "litdata",
    "megatron",
    "webdataset",
    "npy",
    "hf",
)  # codeczoo.export.FORMAT has a Writer and a Reader
# Classes of codeczoo.export.patterns.
PATTERNS = ("flat", "layer-major", "frame-major", "parallel", "delay", "coarse-first")
OFFSETS = ("own", "shared")  # ids of codebooks
DTYPES = ("uint16", "uint32", "int32")


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("codeczoo.export.dataset"), name)
    raise AttributeError(f"module 'codeczoo.export' has no attribute '{name}'")
