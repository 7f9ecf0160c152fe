"""What an export holds, counted: documents, lengths, how often each code occurs."""

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.types import TokenSpec
from codeczoo.export.dataset import Document, Reader, pattern_of, without_text
from codeczoo.export.patterns import Ids
from codeczoo.io.video_fit import VideoFit

TOGETHER = 2**20  # ids that are counted at once


class Statistics:
    """Counts documents as they come.

    Args:
        header: of their export.

    Attributes:
        lengths: ids of each document, those of its text counted.
        amount: seconds of recordings or clips, or pictures.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        self.pattern = pattern_of(header)
        self.has_text = bool(header.get("text"))
        self.lengths, self.amount = array("q"), 0.0
        self._bases = np.cumsum([0, *self.pattern.vocabulary.sizes])  # of codebooks, in the row of all counts
        self._counts = np.zeros(self._bases[-1], np.int64)
        self._ids: list[NDArray[Any]] = []
        self._waiting = 0

    @staticmethod
    def of(reader: Reader) -> "Statistics":
        """Counts an export. Raises FormatError."""
        found = Statistics(reader.header)
        for document, ids in reader:
            found.add(document, ids)
        return found

    def add(self, document: Document, ids: NDArray[Any]) -> None:
        """Counts a document."""
        self.lengths.append(ids.size)
        self.amount += amount_of(document, self.pattern.spec)
        if self.pattern.joint:
            self._ids.append(ids)
            self._waiting += ids.size
            if self._waiting >= TOGETHER:
                self._count()
        else:
            media = without_text(ids, self.pattern, self.has_text)
            self._add(media, self.pattern.books(media, document.grid))

    def _count(self) -> None:
        """The documents that wait."""
        if self._ids:
            ids = without_text(np.concatenate(self._ids, axis=-1), self.pattern, self.has_text)
            self._add(ids, self.pattern.books(ids))
            self._ids, self._waiting = [], 0

    def _add(self, ids: Ids, books: Ids) -> None:
        ids, books = ids[books >= 0], books[books >= 0]
        entries = self._bases[books] + ids - self.pattern.vocabulary.first[books]
        self._counts += np.bincount(entries, minlength=len(self._counts))

    @property
    def counts(self) -> list[NDArray[np.int64]]:
        """How often each code of each codebook occurs, codebooks counted over all streams: int64 (V,) each."""
        self._count()
        return np.split(self._counts, self._bases[1:-1])

    def entropies(self) -> list[float]:
        """Bits of a code of each codebook by how often each occurs: what a model that sees nothing else needs."""
        return [entropy(count) for count in self.counts]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a script or the card."""
        books, entropies, counts = self.pattern.vocabulary.codebooks(), self.entropies(), self.counts
        bits = sum(e * int(n.sum()) for e, n in zip(entropies, counts, strict=True))
        uniform = sum(np.log2(len(n)) * int(n.sum()) for n in counts)
        unit = "picture" if self.pattern.spec.media == "image" else "second"
        lengths = np.array(self.lengths)
        return {
            "documents": len(lengths),
            "ids": int(lengths.sum()),
            "codes": int(self._counts.sum()),
            "ids_per_document": {
                "least": int(lengths.min()),
                "mean": round(float(lengths.mean()), 3),
                "most": int(lengths.max()),
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
                for book, count, bits in zip(books, counts, entropies, strict=True)
            ],
        }


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits of a draw, where things occur so often."""
    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log2(share)).sum()) + 0.0


def amount_of(document: Document, spec: TokenSpec) -> float:
    """Seconds of a recording or a clip; 1 of a picture; 0 where that is not known."""
    if spec.media == "image":
        return 1.0
    if spec.sample_rate is not None and document.size:
        return document.size[0] / spec.sample_rate
    if isinstance(document.fit, VideoFit) and document.fit.rate:
        return document.size[0] / float(document.fit.rate)
    return 0.0
