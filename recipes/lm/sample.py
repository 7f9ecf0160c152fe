"""Writes new documents with a model of train.py, as an export.

    python recipes/lm/sample.py runs/lm tokens/val -o samples --n 8
    codeczoo decode samples -o media        (or codeczoo inspect samples -o look)

A new document has the layout of one that is there: its text and all ids that are no codes are given, and every code is
drawn among those of its codebook. So any pattern can be sampled, and what comes out is always a document.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model import LanguageModel
from torch import Tensor
from transformers import DynamicCache

import codeczoo.export
from codeczoo.export.dataset import Reader
from codeczoo.export.patterns import grid_of


def layout(reader: Reader, i: int, positions: int | None) -> tuple[Tensor, Tensor]:
    """Ids (L, rows) of a document, and which codebook each is of; -1 for those that are given.

    Of codecs with one stream, of at most so many positions of its first axis.
    """
    ids, about = reader.ids(i).astype(np.int64), reader.document(i)
    tokens, text = reader.tokens_of(about, ids), ids[:0]
    if reader.header.get("text"):
        text = ids[: int(np.argmax(ids >= reader.pattern.vocabulary.offset))]
    if positions is not None and len(tokens.streams) == 1:
        tokens = replace(tokens[0], streams=(tokens[0].codes[:, :, :positions],))
    media = reader.pattern.ids(tokens)
    books = reader.pattern.books(media, grid_of(tokens))
    if media.ndim == 1:
        media = np.concatenate([text, media])[None]
        books = np.concatenate([np.full(len(text), -1), books])[None]
    return torch.from_numpy(media.T.copy()), torch.from_numpy(books.T.copy())  # (L, rows)


@torch.inference_mode()
def write(model: LanguageModel, ids: Tensor, books: Tensor, reader: Reader, args: argparse.Namespace) -> Tensor:
    """New ids (B, L, rows) in the layouts (B, L, rows) of others."""
    vocabulary, made, cache = reader.pattern.vocabulary, ids[:, :1].clone(), DynamicCache()
    first, sizes = torch.from_numpy(vocabulary.first), torch.from_numpy(vocabulary.sizes)
    logits = model(made, cache)
    for step in range(1, ids.shape[1]):
        book = books[:, step]  # (B, rows)
        low, high = first[book.clamp(min=0)], (first + sizes)[book.clamp(min=0)]
        scores = logits[:, -1].float() / args.temperature  # (B, rows, vocab)
        codes = torch.arange(scores.shape[-1])
        scores = scores.masked_fill((codes < low[..., None]) | (codes >= high[..., None]), -torch.inf)
        if args.top_k:
            least = scores.topk(min(args.top_k, scores.shape[-1]), -1).values[..., -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        drawn = torch.distributions.Categorical(logits=scores).sample()  # (B, rows)
        following = torch.where(book < 0, ids[:, step], drawn)[:, None]
        made = torch.cat([made, following], 1)
        logits = model(following, cache)
    return made


def main() -> None:
    """Samples in groups of equal layout, writes the export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("like", type=Path, help="export whose documents' layouts and texts are taken")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--documents", type=int, nargs="*", help="which; default: N from the first to the last")
    parser.add_argument("--positions", type=int, help="at most so many, of recordings: shorter documents")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=0, help="0: all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model, reader = LanguageModel.load(args.model), codeczoo.export.read(args.like)
    numbers = args.documents or [round(i * (len(reader) - 1) / max(1, args.n - 1)) for i in range(args.n)]
    groups: dict[Any, list[int]] = {}
    layouts = [layout(reader, number, args.positions) for number in numbers]
    for i, (ids, _) in enumerate(layouts):
        groups.setdefault(ids.shape, []).append(i)
    made: dict[int, Any] = {}
    for members in groups.values():
        ids, books = (torch.stack([layouts[i][part] for i in members]) for part in (0, 1))
        for i, found in zip(members, write(model, ids, books, reader, args), strict=True):  # (L, rows)
            made[i] = found[:, 0].numpy() if reader.pattern.rows is None else found.T.numpy()
    names = [f"{i:02}_like_{reader.document(n).id.replace('/', '_')}" for i, n in enumerate(numbers)]
    codeczoo.export.generated(
        args.output, reader, [made[i] for i in range(len(numbers))], reader.document(numbers[0]).grid, names
    )
    print(f"{len(made)} documents in {args.output}")


if __name__ == "__main__":
    main()
