"""codeczoo: one zoo of discrete tokenizers for images, audio and video.

Everything public is here, imported on first use so that `import codeczoo` costs milliseconds:

    codec = codeczoo.load("codec.safetensors")
    tokens = codec.encode(x)
    x_hat = codec.decode(tokens)
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codeczoo.core.base import Codec as Codec
    from codeczoo.core.config import build as build
    from codeczoo.core.types import Tokens as Tokens
    from codeczoo.core.types import TokenSpec as TokenSpec
    from codeczoo.zoo import from_original as from_original
    from codeczoo.zoo import load as load
    from codeczoo.zoo import push_to_hub as push_to_hub
    from codeczoo.zoo import save as save

__version__ = "0.1.0"

_PUBLIC = {
    "Codec": "codeczoo.core.base",
    "build": "codeczoo.core.config",
    "Tokens": "codeczoo.core.types",
    "TokenSpec": "codeczoo.core.types",
    "load": "codeczoo.zoo",
    "save": "codeczoo.zoo",
    "from_original": "codeczoo.zoo",
    "push_to_hub": "codeczoo.zoo",
}
__all__ = [*_PUBLIC, "__version__"]

# In a source checkout conf/ and recipes/ lie beside codecs/, not inside the package: make them importable as
# codeczoo.conf and codeczoo.recipes there too, as they are in an installed wheel.
_checkout = Path(__file__).resolve().parents[2]
if (_checkout / "conf" / "train.yaml").is_file() and (_checkout / "codecs" / "codeczoo").is_dir():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'codeczoo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
