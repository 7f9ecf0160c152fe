"""Sizes and quality side by side: what each rate takes, and how good it is beside others at the same bytes."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

SIZES = {"token_bytes": "bits", "payload_bytes": "payload_bytes", "file_bytes": "file_bytes"}  # from what, in bits: / 8
QUALITY = {
    "image": ("psnr", "ssim", "lpips", "rfid"),
    "audio": ("mel", "pesq", "stoi", "f0_corr"),
    "video": ("psnr", "ssim", "lpips", "fvd"),
}


def sizes(rows: Sequence[Mapping[str, Any]], media: str) -> list[dict[str, Any]]:
    """A line for each rate: mean bytes of a medium, and each measure of the codec and of what it is compared with.

    Source: the tables of One-D-Piece (arXiv 2501.10064), quality at fixed numbers of tokens beside JPEG and WebP.
    Differs: those give the others sizes of their own; here they get the same bytes, file by file.

    Args:
        rows: of `Evaluation.result`, the codec first at each rate.
        media: of the codec.

    Returns:
        "rate"; "token_bytes" (a code takes log2 of its vocabulary), "payload_bytes" (range coded), "file_bytes", those
        that are known; each measure by name, a value for each system.
    """
    found = []
    for rate, group in groupby(rows, itemgetter("rate")):
        systems = list(group)
        own = systems[0]
        line: dict[str, Any] = {"rate": rate}
        for name, source in SIZES.items():
            if source in own:
                line[name] = own[source] / (8 if source == "bits" else 1)
        for name in QUALITY[media]:
            values = {row["system"]: row[name] for row in systems if name in row}
            line |= {name: values} if values else {}
        found.append(line)
    return found
