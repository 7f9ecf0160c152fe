"""Pictures of an evaluation: the rate-distortion plot, the grid of reconstructions, the spectrograms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from codeczoo.core.errors import MissingError
from codeczoo.io import image
from codeczoo.io.files import atomic

if TYPE_CHECKING:
    from torch import Tensor

    from codeczoo.export.evaluate import Evaluation

MARGIN, GAP = 96, 2  # pixels: of the labels, between pictures
SECONDS, BINS, RANGE = 3.0, 128, 80.0  # of a spectrogram: what is drawn, rows, dB from black to white


class Axis(NamedTuple):
    """A figure of the table that a plot has along its bottom, and its label."""

    name: str
    label: str


BITS = {
    "image": Axis("file_bpp", "bits per pixel (whole files)"),
    "audio": Axis("payload_kbps", "kbit/s (coded codes)"),
}
MEASURES = {
    "psnr": "PSNR, dB", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS", "rfid": "rFID",
    "mel": "mel distance", "superb_mel": "mel distance (Codec-SUPERB)",
    "stft": "STFT distance", "si_sdr": "SI-SDR, dB", "pesq": "PESQ", "stoi": "STOI",
}  # fmt: skip


def draw(folder: Path, rows: Sequence[Mapping[str, Any]], evaluation: "Evaluation") -> None:
    """rate_distortion.png, and grid.png or spectrograms.png."""
    spec = evaluation.runner.codec.spec
    plot(folder / "rate_distortion.png", rows, BITS[spec.media])
    lines = [("original", evaluation.originals)]
    lines += [(f"{row.system}, {row.rate}", row.shown) for rows in evaluation.rows for row in rows]
    if spec.media == "image":
        grid(folder / "grid.png", lines)
        return
    rate = spec.sample_rate or 1
    grid(folder / "spectrograms.png", [(label, [spectrogram(x, rate) for x in shown]) for label, shown in lines])


def plot(path: Path, rows: Sequence[Mapping[str, Any]], bits: Axis) -> None:
    """Every measure over the bits, a line per system, as PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError('the plot needs matplotlib: pip install "codeczoo[eval]"') from None
    measures = [name for name in MEASURES if any(name in row for row in rows)]
    figure = Figure(figsize=(4.5 * len(measures), 3.8), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        for system in dict.fromkeys(row["system"] for row in rows):
            points = sorted((row[bits.name], row[name]) for row in rows if row["system"] == system and name in row)
            axis.plot(*zip(*points, strict=True), marker="o", label=system)
        axis.set(xlabel=bits.label, ylabel=MEASURES[name], xscale="log")
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


def spectrogram(x: "Tensor", rate: int) -> "Tensor":
    """The first seconds of x (C, T), channels mixed, as a picture (3, BINS, W): time to the right, low tones below."""
    samples = max(2 * BINS, round(SECONDS * rate))
    mono = torch.nn.functional.pad(x.float().mean(0)[:samples], (0, max(0, samples - x.shape[1])))
    power = torch.stft(mono, 2 * BINS, samples // 300 + 1, window=torch.hann_window(2 * BINS), return_complex=True)
    level = 20 * power.abs().clamp(min=1e-7).log10()[1:].flip(0)  # (BINS, W), dB
    shade = ((level + 20 - 20 * np.log10(BINS)) / RANGE + 1).clamp(0, 1)  # white: a tone of a tenth of full scale
    return torch.stack([(1.5 * shade).clamp(0, 1), shade**2, (0.6 - (shade - 0.35).abs() * 1.7).clamp(0, 1)])
