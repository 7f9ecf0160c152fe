"""What an export holds, counted: documents, lengths, how often each code occurs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.export.dataset import Document, Reader
from codeczoo.io.video_fit import VideoFit


@dataclass
class Statistics:
    """Of all documents.

    Args:
        lengths: ids of each document, those of its text counted.
        codes: ids that stand for codes.
        counts: how often each code of each codebook occurs, codebooks counted over all streams: int64 (V,) each.
        amount: seconds of recordings or clips, or pictures.
    """

    lengths: NDArray[np.int64]
    codes: int
    counts: list[NDArray[np.int64]]
    amount: float

    @staticmethod
    def of(reader: Reader) -> "Statistics":
        """Counts an export. Raises FormatError."""
        vocabulary, lengths, amount = reader.pattern.vocabulary, [], 0.0
        counts = [np.zeros(size, np.int64) for size in vocabulary.sizes]
        for document, ids in reader:
            lengths.append(ids.size)
            amount += amount_of(document, reader)
            media = reader.without_text(ids)
            books = reader.pattern.books(media, document.grid)
            for book in np.unique(books[books >= 0]):
                found = media[books == book] - vocabulary.first[book]
                codes, times = np.unique(found, return_counts=True)
                counts[book][codes] += times
        total = int(sum(count.sum() for count in counts))
        return Statistics(np.array(lengths, np.int64), total, counts, amount)

    def entropies(self) -> list[float]:
        """Bits of a code of each codebook by how often each occurs: what a model that sees nothing else needs."""
        return [entropy(count) for count in self.counts]

    def to_dict(self, reader: Reader) -> dict[str, Any]:
        """Plain values, for a script or the card."""
        books, entropies = reader.pattern.vocabulary.codebooks(), self.entropies()
        bits = sum(e * int(n.sum()) for e, n in zip(entropies, self.counts, strict=True))
        uniform = sum(np.log2(len(n)) * int(n.sum()) for n in self.counts)
        unit = "picture" if reader.spec.media == "image" else "second"
        return {
            "documents": len(self.lengths),
            "ids": int(self.lengths.sum()),
            "codes": self.codes,
            "ids_per_document": {
                "least": int(self.lengths.min()),
                "mean": round(float(self.lengths.mean()), 3),
                "most": int(self.lengths.max()),
            },
            f"{unit}s": round(self.amount, 3),
            f"bits_per_{unit}": round(uniform / self.amount, 3) if self.amount else None,
            f"entropy_per_{unit}": round(bits / self.amount, 3) if self.amount else None,
            "codebooks": [
                {
                    "stream": book["stream"],
                    "size": book["size"],
                    "codes": int(count.sum()),
                    "used": int((count > 0).sum()),
                    "entropy": round(bits, 4),
                }
                for book, count, bits in zip(books, self.counts, entropies, strict=True)
            ],
        }


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits of a draw, where things occur so often."""
    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log2(share)).sum()) + 0.0


def amount_of(document: Document, reader: Reader) -> float:
    """Seconds of a recording or a clip; 1 of a picture."""
    if reader.spec.sample_rate is not None:
        return document.size[0] / reader.spec.sample_rate
    if isinstance(document.fit, VideoFit) and document.fit.rate:
        return document.size[0] / float(document.fit.rate)
    return 1.0 if reader.spec.media == "image" else 0.0
