"""Ids that a language model wrote, as an export: `codeczoo decode` makes media of them, `codeczoo inspect` counts."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codeczoo.export.dataset import Document, Reader, atomic_folder, format_module
from codeczoo.export.patterns import grid_of, sizes_of


def generated(
    folder: str | Path, like: Reader, ids: Iterable[Any], grid: Sequence[int] | None = None, names: Iterable[str] = ()
) -> dict[str, Any]:
    """Writes rows of ids as an export of format npy; gives its header.

    Args:
        folder: is not there yet.
        like: the export that the model was trained with.
        ids: integers (L,) or (rows, L) of each document, with `start` and `end` or `special` as there.
        grid: sizes of the position axes, for codecs without fixed ones; see `Pattern.tokens`.
        names: of the documents; sample_00000 and so on where there are fewer.

    Raises:
        FormatError: ids that the pattern cannot have made: which document, and the first wrong place.
        InputError: the folder is there already; the codec takes any size and there is no grid.
    """
    npy = format_module("npy")
    kept = {key: value for key, value in like.header.items() if key not in ("plan", "used", "failed", "vary")}
    called = iter(names)
    with atomic_folder(Path(folder)) as temporary:
        writer = npy.Writer(temporary, npy.Writer.dtype_for(like.header["vocab_size"]))
        for i, row in enumerate(ids):
            array = np.asarray(row, dtype=np.int64)
            name = next(called, f"sample_{i:05}")
            tokens = like.tokens_of(Document(name, (), tuple(grid or ()), None, ""), array)
            about = Document(name, tuple(sizes_of(tokens)), tuple(grid_of(tokens)), None, "")
            writer.add(about, array)
        header: dict[str, Any] = writer.close(kept | {"format": "npy"})
    return header
