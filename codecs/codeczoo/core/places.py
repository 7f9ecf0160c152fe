"""Where the package keeps things; imports nothing heavy."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
DEFAULTS = {"image": "image-2d", "audio": "audio-24k", "video": "video"}  # shipped codecs that need not be named


def is_recipe(name: str) -> bool:
    """Whether a recipe of the package has this name, e.g. "image/titok_tiny"."""
    import codeczoo.recipes

    return any(Path(folder, f"{name}.yaml").is_file() for folder in codeczoo.recipes.__path__)


def shipped() -> dict[str, Path]:
    """Names and weights files of the codecs that come with the package."""
    return {path.stem: path for path in sorted((PACKAGE / "weights").glob("*.safetensors"))}
