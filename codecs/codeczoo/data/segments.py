"""Files that count as often as segments fit into them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging import getLogger
from pathlib import Path

import numpy as np

from codeczoo.data.media import Listing, Media
from codeczoo.data.samples import FilledFileSet, Sample
from codeczoo.data.sampling import Draw

log = getLogger(__name__)


class SegmentSet(FilledFileSet):
    """As FilledFileSet, but a file of n segments (at least one) counts as n samples."""

    def __init__(self, files: Listing, seconds: np.ndarray, media: Media, seed: int, segment: float) -> None:
        super().__init__(files, media, seed)
        self.ends = np.maximum(1, (seconds / segment).astype(np.int64)).cumsum()  # (files,)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, draw: Draw) -> Sample:
        return super().__getitem__(draw._replace(sample=int(np.searchsorted(self.ends, draw.sample, side="right"))))


def durations(files: Listing, seconds: Callable[[Path], float]) -> np.ndarray:
    """Seconds of each file, float64 (files,): the manifest's, else what `seconds` says, 0 of a corrupt one."""
    unknown = [i for i, known in enumerate(files.durations) if known is None]
    found = np.array([known or 0.0 for known in files.durations])
    if unknown:
        log.info("reading %d headers in %s; a manifest with durations would save that", len(unknown), files.root)
        with ThreadPoolExecutor(8) as pool:
            found[unknown] = list(pool.map(seconds, (files.root / files.keys[i] for i in unknown)))
    return found
