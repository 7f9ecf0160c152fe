"""Where the package keeps things; imports nothing heavy."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped() -> dict[str, Path]:
    """Names and weights files of the codecs that come with the package."""
    return {path.stem: path for path in sorted((PACKAGE / "weights").glob("*.safetensors"))}
