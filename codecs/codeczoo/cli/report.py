"""Pictures of an evaluation: the rate-distortion plot and the grid of reconstructions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from codeczoo.core.errors import MissingError
from codeczoo.io import image
from codeczoo.io.files import atomic

if TYPE_CHECKING:
    from torch import Tensor

MEASURES = {"psnr": "PSNR, dB", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS", "rfid": "rFID"}
MARGIN, GAP = 96, 2  # pixels: of the labels, between pictures


def plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Every measure over bits per pixel of whole files, a line per system, as PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError('the plot needs matplotlib: pip install "codeczoo[eval]"') from None
    measures = [name for name in MEASURES if any(name in row for row in rows)]
    figure = Figure(figsize=(4.5 * len(measures), 3.8), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        for system in dict.fromkeys(row["system"] for row in rows):
            points = sorted((row["file_bpp"], row[name]) for row in rows if row["system"] == system and name in row)
            axis.plot(*zip(*points, strict=True), marker="o", label=system)
        axis.set(xlabel="bits per pixel (whole files)", ylabel=MEASURES[name], xscale="log")
        axis.grid(alpha=0.3)
    figure.axes[0].legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def grid(path: Path, lines: "Sequence[tuple[str, Sequence[Tensor]]]") -> None:
    """Labelled lines of pictures, one above the other, as PNG. Cells have the size of the first picture.

    Args:
        path: ends in .png.
        lines: label and pictures (3, H, W) in [0, 1] of each line.
    """
    height, width = lines[0][1][0].shape[1:]
    sheet = np.full((len(lines) * (height + GAP), MARGIN + len(lines[0][1]) * (width + GAP), 3), 255, np.uint8)
    for i, (_, pictures) in enumerate(lines):
        for j, picture in enumerate(pictures):
            cell = image.resize((picture * 255).round().to(torch.uint8), (height, width)).permute(1, 2, 0)  # (H, W, 3)
            top, left = i * (height + GAP), MARGIN + j * (width + GAP)
            sheet[top : top + height, left : left + width] = cell.numpy()
    drawn = Image.fromarray(sheet)
    for i, (text, _) in enumerate(lines):
        ImageDraw.Draw(drawn).text((4, i * (height + GAP) + 4), text.replace(", ", "\n"), fill="black")
    with atomic(path) as temporary:
        drawn.save(temporary, "PNG")
