"""Shared fixtures: a tiny codec, and where the parity fixtures and the real data lie."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each worker and for what it starts
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def one_d_piece_tree() -> dict[str, Any]:
    """A One-D-Piece of 16 tokens for 32 px images."""
    size = {"image_size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 2, "n_tokens": 16, "dim": 8}
    return {
        "_target_": "codeczoo.image.one_d_piece.OneDPiece",
        "encoder": {"_target_": "codeczoo.backbones.vit1d.Encoder1D", **size},
        "quantizer": {"_target_": "codeczoo.quantizers.vq.CosineVQ", "vocab_size": 64, "dim": 8},
        "decoder": {"_target_": "codeczoo.backbones.vit1d.Decoder1D", **size},
        "head": {"_target_": "codeczoo.image.titok.PixelHead", "width": 32, "patch": 8},
    }


@pytest.fixture
def tiny_tree() -> dict[str, Any]:
    return one_d_piece_tree()


@pytest.fixture
def tiny_codec() -> Any:
    import codeczoo

    torch.manual_seed(0)
    return codeczoo.build(one_d_piece_tree()).eval()


@pytest.fixture(scope="session")
def data_root() -> Path:
    root = Path(os.environ.get("CODECZOO_DATA", SHARED / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root} (set CODECZOO_DATA)")
    return root
