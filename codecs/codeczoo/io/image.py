"""Image file to tensor and back, and pictures of any size to a codec's one size and back."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.io.files import atomic
from codeczoo.io.fit import MODES, Fit, fit, resize, unfit

__all__ = ["MODES", "SAVED_AS", "SUFFIXES", "Fit", "fit", "read", "resize", "unfit", "write"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
SAVED_AS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 4},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "quality": 95},
}
# EXIF tag 274 to what makes the picture upright.
ORIENTATION_TAG = 274
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(source: str | Path | bytes) -> Tensor:
    """A picture as uint8 (3, H, W) RGB, upright. What it is is told from its content, not from its name.

    The first frame of animations and the first page is taken. 16-bit samples keep their high byte. Transparent pixels
    are laid over white. CMYK is converted without a colour profile, and embedded profiles are not applied. The memory
    layout is (H, W, 3), which saves `resize` a copy.

    Raises:
        InputError: no such file, not one of FORMATS, truncated, corrupt, or above Pillow's limit of 179 megapixels.
    """
    where = "image data" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            pixels = np.array(_rgb(_upright(image)))  # (H, W, 3)
    except FileNotFoundError:
        raise InputError(f"no such file: {where}") from None
    except UnidentifiedImageError:
        raise InputError(f"{where} is not an image of a known kind; allowed: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{where} is too large: {error}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except Exception as error:  # Decoders fail on hostile bytes in many ways (OSError, SyntaxError, struct.error, ...).
        raise InputError(f"cannot read {where}: {' '.join(str(error).split()) or type(error).__name__}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)


def write(path: str | Path, x: Tensor) -> None:
    """Writes x, float (3, H, W) in [0, 1], as .png (lossless), .jpg or .webp (quality 95), whole or not at all.

    Raises:
        InputError: another suffix, another shape or type, or a file that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SAVED_AS:
        raise InputError(f"cannot write {path}: the suffix must be one of {', '.join(SAVED_AS)}")
    if x.ndim != 3 or x.shape[0] != 3 or not x.is_floating_point() or not x.numel():
        dtype = str(x.dtype).removeprefix("torch.")
        raise InputError(f"cannot write {path}: an image is float (3, H, W), got {dtype} {tuple(x.shape)}")
    pixels = x.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8).permute(1, 2, 0)  # (H, W, 3)
    with atomic(path) as temporary:
        try:
            Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(temporary, **SAVED_AS[path.suffix.lower()])
        except ValueError as error:  # A picture that the format cannot hold.
            raise InputError(f"cannot write {path}: {error}") from None


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # Pillow turns TIFFs upright here, and only then says so.
    turn = UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(f"32-bit samples (mode {image.mode}) have no known range; allowed: 8 and 16 bit")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
