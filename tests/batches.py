"""Training batches of data modules, for tests of their order."""

from itertools import islice
from typing import Any

import torch

from codeczoo.data.module import DataModule


def first(module: DataModule, n: int) -> list[dict[str, Any]]:
    return list(islice(module.train_dataloader(), n))


def same(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> bool:
    return len(a) == len(b) and all(
        p["key"] == q["key"] and torch.equal(p["x"], q["x"]) for p, q in zip(a, b, strict=True)
    )
