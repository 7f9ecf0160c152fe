"""Tokens as data sets for language models: patterns (codes <-> ids), writers, readers.

reader = codeczoo.export.read("tokens/")
ids = reader.ids(0)                        # integers (L,) or (K, L), as the language model sees them
x_hat = codec.decode(reader.tokens(0))     # exactly the tokens that were exported
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from codeczoo.export.dataset import Reader as Reader
    from codeczoo.export.dataset import read as read
    from codeczoo.export.generation import generated as generated

__all__ = ["Reader", "generated", "read"]

# Here, because the command line shows them and this module costs no import of torch.
# A format is a module of this package with a Writer and a Reader.
FORMATS = ("parquet", "litdata", "megatron", "webdataset", "npy", "hf")
# Classes of codeczoo.export.patterns.
PATTERNS = ("flat", "layer-major", "frame-major", "parallel", "delay", "coarse-first")
OFFSETS: tuple[Literal["own"], Literal["shared"]] = ("own", "shared")  # ids of codebooks
ENGINES = ("local", "ray", "ranks")  # codeczoo.export.engines
DTYPES = ("uint16", "uint32", "int32")


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "generation" if name == "generated" else "dataset"
        return getattr(import_module(f"codeczoo.export.{module}"), name)
    raise AttributeError(f"module 'codeczoo.export' has no attribute '{name}'")
