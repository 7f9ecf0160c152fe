"""Pictures of an evaluation: the rate-distortion plot, the grid of reconstructions, spectrograms, contact sheets."""

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

MARGIN, HEAD, GAP = 96, 16, 2  # pixels: least width of the labels, height of those above, between pictures
SECONDS, BINS, RANGE = 3.0, 128, 80.0  # of a spectrogram: what is drawn, rows, dB from black to white


class Axis(NamedTuple):
    """A figure of the table that a plot has along its bottom, and its label."""

    name: str
    label: str


BITS = {
    "image": Axis("file_bpp", "bits per pixel (whole files)"),
    "audio": Axis("payload_kbps", "kbit/s (coded codes)"),
    "video": Axis("file_bpp", "bits per pixel (whole files)"),
}
MEASURES = {
    "psnr": "PSNR, dB", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS", "rfid": "rFID",
    "flicker": "flicker, levels of 8 bits", "fvd": "FVD",
    "mel": "mel distance", "superb_mel": "mel distance (Codec-SUPERB)",
    "stft": "STFT distance", "si_sdr": "SI-SDR, dB", "pesq": "PESQ", "stoi": "STOI",
    "vuv": "frames voiced in one alone, share", "f0_cents": "F0 error, cents", "f0_corr": "F0 correlation",
    "t_acc": "words read without a mistake (T-ACC)", "t_ned": "letters read (T-NED)", "f_sim": "faces, cosine (F-Sim)",
    "probe": "probe of what was decoded, share right",
}  # fmt: skip


def draw(folder: Path, rows: Sequence[Mapping[str, Any]], evaluation: "Evaluation") -> None:
    """rate_distortion.png, and grid.png, spectrograms.png or contact_sheet_1.png and so on."""
    spec = evaluation.runner.codec.spec
    plot(folder / "rate_distortion.png", rows, BITS[spec.media])
    if spec.media == "video":
        for i in range(len(evaluation.originals)):
            contact_sheet(folder / f"contact_sheet_{i + 1}.png", i, evaluation)
        return
    lines = [("original", evaluation.originals)]
    lines += [(f"{row.system}, {row.rate}", [x for x, _ in row.shown]) for rows in evaluation.rows for row in rows]
    if spec.media == "image":
        grid(folder / "grid.png", lines)
        return
    rate = spec.sample_rate or 1
    grid(folder / "spectrograms.png", [(label, [spectrogram(x, rate) for x in shown]) for label, shown in lines])


def contact_sheet(path: Path, clip: int, evaluation: "Evaluation") -> None:
    """Frames of one clip from left to right: the original above, each system at each rate below; as PNG."""
    from codeczoo.export.judges import VideoJudge

    lines = [("original", evaluation.originals[clip].unbind(1))]
    for row in (row for rows in evaluation.rows for row in rows):
        x_hat, facts = row.shown[clip]
        about = f"{row.system}, {row.rate}, {facts['file_bpp']:.4f} bit/pixel, {facts['psnr']:.2f} dB"
        lines.append((about, x_hat.unbind(1)))
    grid(path, lines, [f"frame {place}" for place in VideoJudge.places(evaluation.sizes[clip][0])])


def plot(path: Path, rows: Sequence[Mapping[str, Any]], bits: Axis) -> None:
    """Every measure over the bits, a line per system, as PNG."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
    except ImportError:
        raise MissingError('the plot needs matplotlib: pip install "codeczoo[eval]"') from None
    measures = [name for name in MEASURES if any(name in row for row in rows)]
    figure = Figure(figsize=(4.5 * len(measures), 3.8), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        for system in dict.fromkeys(row["system"] for row in rows):
            points = sorted((row[bits.name], row[name]) for row in rows if row["system"] == system and name in row)
            axis.plot(*zip(*points, strict=True), marker="o", label=system)
        axis.set(xlabel=bits.label, ylabel=MEASURES[name], xscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    figure.axes[0].legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def grid(path: Path, lines: "Sequence[tuple[str, Sequence[Tensor]]]", columns: Sequence[str] = ()) -> None:
    """Labelled lines of pictures, one above the other, as PNG. Cells have the size of the first picture.

    Args:
        path: ends in .png.
        lines: label and pictures (3, H, W) in [0, 1] of each line.
        columns: what stands above the first pictures of the lines.
    """
    height, width = lines[0][1][0].shape[1:]
    labels = [text.replace(", ", "\n") for text, _ in lines]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [measure.multiline_textbbox((4, 4), text) for text in labels]
    margin, head = max(MARGIN, *(int(box[2]) + 4 for box in boxes)), HEAD if columns else 0
    step = max(height, *(int(box[3]) for box in boxes)) + GAP
    sheet = np.full((head + len(lines) * step, margin + len(lines[0][1]) * (width + GAP), 3), 255, np.uint8)
    for i, (_, pictures) in enumerate(lines):
        for j, picture in enumerate(pictures):
            cell = image.resize((picture * 255).round().to(torch.uint8), (height, width)).permute(1, 2, 0)  # (H, W, 3)
            top, left = head + i * step, margin + j * (width + GAP)
            sheet[top : top + height, left : left + width] = cell.numpy()
    drawn = Image.fromarray(sheet)
    for i, text in enumerate(labels):
        ImageDraw.Draw(drawn).text((4, head + i * step + 4), text, fill="black")
    for j, text in enumerate(columns):
        ImageDraw.Draw(drawn).text((margin + j * (width + GAP), 2), text, fill="black")
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
