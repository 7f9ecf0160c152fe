"""What a report shows of files: pictures, players and clips within the page, each system at each rate."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from codeczoo.cli.drawings import spectrogram
from codeczoo.io import audio, video

if TYPE_CHECKING:
    from fractions import Fraction

    from torch import Tensor

    from codeczoo.export.study import Study

SHOWN = {"image": 6, "audio": 3, "video": 3}  # files
SMALLEST = 128  # pixels of the page that a picture is wide at least
TOLD = {
    "file_bytes": "{:.0f} bytes", "payload_kbps": "{:.2f} kbit/s", "psnr": "{:.2f} dB", "mel": "mel {:.3f}",
    "pesq": "PESQ {:.2f}",
}  # fmt: skip


def examples(group: "Sequence[Study]") -> str:
    """A block for each file: the original, then each codec and what it is compared with, a column for each rate."""
    first, blocks = group[0], []
    button = '<button type="button" class="together">play all</button>' if first.spec.media == "video" else ""
    for i in range(min(SHOWN[first.spec.media], *(len(study.names) for study in group))):
        original = cell(first, i, first.evaluation.originals[i], "original")
        tables = "".join(table(study, i) for study in group)
        title = f"<summary>{escape(first.names[i])}</summary>"
        blocks.append(f'<details class="example" open>{title}{button}<div>{original}</div>{tables}</details>')
    return "".join(blocks)


def table(study: "Study", i: int) -> str:
    """One file through one codec, and through what it is compared with at the same bytes."""
    rates = study.evaluation.rows  # a list of systems for each
    head = "".join(f"<th>{escape(systems[0].rate)}</th>" for systems in rates)
    lines = []
    for place, one in enumerate(rates[0]):
        shown = (systems[place].shown[i] for systems in rates)
        cells = "".join(f"<td>{cell(study, i, x_hat, told(facts))}</td>" for x_hat, facts in shown)
        lines.append(f"<tr><th>{escape(one.system)}</th>{cells}</tr>")
    return f'<div class="wide"><table class="cells"><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'


def told(facts: Mapping[str, float]) -> str:
    """Bytes and quality in a few words."""
    smallest = ["the smallest it can"] if facts.get("too_large") else []
    return ", ".join([how.format(facts[name]) for name, how in TOLD.items() if name in facts] + smallest)


def cell(study: "Study", i: int, x: "Tensor", caption: str) -> str:
    """One medium and what is said of it."""
    if study.spec.media == "image":
        shown = picture(x)
    elif study.spec.media == "audio":
        rate = study.spec.sample_rate or 1
        shown = f"{picture(spectrogram(x, rate))}<br>{sound(x, rate)}"
    else:
        shown = clip(x, study.rates[i])
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(x: "Tensor") -> str:
    """x (3, H, W) in [0, 1], nothing lost but below 8 bits."""
    pixels = (x * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()  # (H, W, 3)
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", lossless=True)
    width = max(SMALLEST, x.shape[2])
    return f'<img src="{uri("image/webp", file.getvalue())}" width="{width}" alt="">'


def sound(x: "Tensor", rate: int) -> str:
    """A player of x (C, T), nothing lost but below 16 bits."""
    data = written(".flac", lambda path: audio.write(path, x.float().clamp(-1, 1), rate))
    return f'<audio controls preload="metadata" src="{uri("audio/flac", data)}"></audio>'


def clip(x: "Tensor", rate: "Fraction") -> str:
    """A clip of frames (3, T, H, W), uint8. An odd row or column is left out, which some browsers cannot show."""
    even = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2].float() / 255
    data = written(".mp4", lambda path: video.write(path, even, rate))
    return f'<video muted loop playsinline preload="auto" src="{uri("video/mp4", data)}"></video>'


def written(suffix: str, write: Callable[[Path], None]) -> bytes:
    """What `write` writes to a path."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write(path)
        return path.read_bytes()


def uri(kind: str, data: bytes) -> str:
    """Data in the place of an address."""
    return f"data:{kind};base64,{b64encode(data).decode()}"
