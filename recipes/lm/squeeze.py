"""Codes documents with a model of train.py as their probabilities, decodes them, and compares bytes with .cz files.

    python recipes/lm/squeeze.py runs/lm tokens/val --n 8

Probabilities become whole numbers that sum to 2^24 before the range coder sees them, and encoder and decoder ask the
model step by step in the same way. So what is decoded is equal on the machine that coded it; another machine may round
the model's sums otherwise, and then decodes nonsense. What .cz files are coded with, `codeczoo context`, is a smaller
model in whole numbers.
"""

import argparse
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import torch
from model import LanguageModel
from sample import layout
from transformers import DynamicCache

import codeczoo.export
from codeczoo.export.dataset import Reader
from codeczoo.io import tokens

TOTAL = 2**24


class Walk:
    """The model along one document: the distribution of every code, given those before it."""

    def __init__(self, model: LanguageModel, reader: Reader) -> None:
        self.model, self.cache, self.vocabulary = model, DynamicCache(), reader.pattern.vocabulary

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits (rows, vocab) of what follows ids (rows,)."""
        return self.model(ids[None, None], self.cache)[0, -1].double()

    def weights(self, logits: torch.Tensor, book: int) -> Any:
        """A model of the entries of a codebook, of whole numbers that sum to TOTAL."""
        first, size = int(self.vocabulary.first[book]), int(self.vocabulary.sizes[book])
        share = torch.softmax(logits[first : first + size], 0).numpy()
        whole = np.floor(share * (TOTAL - 2 * size)).astype(np.int64)
        whole[whole.argmax()] += TOTAL - size - whole.sum()
        return constriction.stream.model.Categorical(whole.astype(np.float64), perfect=False)


@torch.inference_mode()
def encode(model: LanguageModel, reader: Reader, ids: torch.Tensor, books: torch.Tensor) -> bytes:
    """The codes of a document (L, rows) as bytes; what is no code is known from its layout."""
    walk, coder = Walk(model, reader), constriction.stream.queue.RangeEncoder()
    for step in range(1, len(ids)):
        logits = walk.step(ids[step - 1])
        for row, book in enumerate(books[step].tolist()):
            if book >= 0:
                coder.encode(int(ids[step, row] - walk.vocabulary.first[book]), walk.weights(logits[row], book))
    return coder.get_compressed().tobytes()


@torch.inference_mode()
def decode(model: LanguageModel, reader: Reader, data: bytes, given: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """The inverse: `given` has whatever where codes are to come."""
    walk, coder = Walk(model, reader), constriction.stream.queue.RangeDecoder(np.frombuffer(data, np.uint32))
    ids = given.clone()
    for step in range(1, len(ids)):
        logits = walk.step(ids[step - 1])
        for row, book in enumerate(books[step].tolist()):
            if book >= 0:
                ids[step, row] = walk.vocabulary.first[book] + coder.decode(walk.weights(logits[row], book))
    return ids


def main() -> None:
    """Prints bytes of each document, and of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("export", type=Path)
    parser.add_argument("--n", type=int, default=8, help="documents, evenly from the first to the last")
    parser.add_argument("--positions", type=int, help="at most so many of each recording")
    args = parser.parse_args()
    model, reader = LanguageModel.load(args.model), codeczoo.export.read(args.export)
    sums = np.zeros(3, np.int64)
    for i in sorted({round(k * (len(reader) - 1) / max(1, args.n - 1)) for k in range(args.n)}):
        ids, books = layout(reader, i, args.positions)
        data = encode(model, reader, ids, books)
        if not torch.equal(decode(model, reader, data, torch.where(books < 0, ids, 0), books), ids):
            raise SystemExit(f"document {i} is decoded otherwise")
        codes = reader.pattern.tokens(
            reader.without_text((ids[:, 0] if reader.pattern.rows is None else ids.T).numpy())
        )
        static = tokens.read_header(tokens.dumps(codes, codec="", weights_hash="")).payload_bytes
        packed = sum(np.log2(reader.pattern.vocabulary.sizes[book]) for book in books[books >= 0].tolist()) / 8
        sums += [len(data), static, round(packed)]
        name = reader.document(i).id
        print(f"{name}: {len(data)} bytes by the model, {static} in a .cz file, {packed:.0f} packed", flush=True)
    print(f"all: {sums[0]} by the model, {sums[1]} in .cz files, {sums[2]} packed: {1 - sums[0] / sums[1]:.1%} less")


if __name__ == "__main__":
    main()
