"""Trains a small Llama on an export of format litdata and compares it with what needs no model.

    codeczoo export train.jsonl -o tokens/train --codec runs/encodec_small --format litdata
    codeczoo export val.jsonl -o tokens/val --codec runs/encodec_small --format litdata
    python recipes/lm/train.py tokens/train tokens/val -o runs/lm --minutes 15

Prints bits of an id, of a picture or of a second: if all codes of a codebook were as likely, by how often each occurs
in the training data, by the id before, and by the model. OUT has the weights, curve.csv and curve.png.
"""

import argparse
import csv
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.item_loader import TokensLoader
from model import LanguageModel, Size
from torch import Tensor

import codeczoo.export
from codeczoo.export.dataset import Reader
from codeczoo.export.patterns import Ids, Vocabulary
from codeczoo.nn.hardware import bf16_is_fast


class Task(L.LightningModule):
    """AdamW, warm-up, then a cosine to a tenth; keeps the weights with the best validation loss."""

    def __init__(self, model: LanguageModel, lr: float, steps: int, out: Path) -> None:
        super().__init__()
        self.model, self.lr, self.steps, self.out = model, lr, steps, out
        self.curve: list[dict[str, float]] = []
        self.losses: list[Tensor] = []

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        loss = self.model.loss(self.stepwise(batch))
        self.losses.append(loss.detach())
        return loss

    def stepwise(self, batch: Tensor) -> Tensor:
        return batch.long().unflatten(1, (-1, self.model.size.rows))  # (B, T * rows) -> (B, T, rows)

    def on_validation_epoch_start(self) -> None:
        self.valid: list[Tensor] = []

    def validation_step(self, batch: Tensor, _: int) -> None:
        self.valid.append(self.model.loss(self.stepwise(batch)))

    def on_validation_epoch_end(self) -> None:
        if not self.losses:  # time was up right after a validation
            return
        val = float(torch.stack(self.valid).mean()) / math.log(2)
        train = float(torch.stack(self.losses).mean()) / math.log(2)
        self.losses = []
        self.curve.append({"step": self.global_step, "train": train, "val": val})
        print(f"step {self.global_step}: {train:.3f} bits an id, {val:.3f} in validation", flush=True)
        if val <= min(point["val"] for point in self.curve):
            self.model.save(self.out)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.lr, betas=(0.9, 0.95), weight_decay=0.1)
        warm = max(1, min(100, self.steps // 10))

        def factor(step: int) -> float:
            done = min(1.0, max(0.0, (step - warm) / max(1, self.steps - warm)))
            return min(1.0, (step + 1) / warm) * (0.55 + 0.45 * math.cos(math.pi * done))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loader(folder: Path, block: int, batch: int, shuffle: bool) -> StreamingDataLoader:
    """Blocks of an export as LitGPT reads them."""
    data = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=block), shuffle=shuffle, drop_last=False)
    return StreamingDataLoader(data, batch_size=batch, num_workers=0)


def stream(reader: Reader) -> tuple[Ids, Ids]:
    """All documents one after the other: ids and the codebook of each, -1 of those that are no codes; (steps, rows)."""
    rows, found, books = reader.pattern.rows or 1, [], []
    for document, ids in reader:
        media = reader.without_text(ids)
        of = np.full(ids.shape, -1)
        of[..., ids.shape[-1] - media.shape[-1] :] = reader.pattern.books(media, document.grid)
        if reader.header.get("text", {}).get("place") == "after":
            of = np.roll(of, media.shape[-1] - ids.shape[-1], -1)
        found.append(ids.T.astype(np.int64).reshape(-1, rows))
        books.append(of.T.reshape(-1, rows))
    return np.concatenate(found), np.concatenate(books)


def baselines(train: tuple[Ids, Ids], val: tuple[Ids, Ids], vocabulary: Vocabulary) -> dict[str, float]:
    """Bits of an id of the validation data by counts of ids, and by counts of pairs of ids.

    Which codebook an id is of is known before, and all of its codes may come; of what is no code, what occurs anywhere.
    Pairs fall back on the counts of ids as much as Witten and Bell say: by how many different ids follow the first.
    """
    unigram = bigram = 0.0
    vocab = vocabulary.size
    for k in range(train[0].shape[1]):
        (ids, books), (wanted, due) = ((part[0][:, k], part[1][:, k]) for part in (train, val))
        counts = np.zeros((len(vocabulary.first) + 1, vocab))  # the first row is of what is no code
        np.add.at(counts, (books + 1, ids), 1)
        for own, first, size in zip(counts[1:], vocabulary.first, vocabulary.sizes, strict=True):
            own[first : first + size] += 0.5
        counts[0, np.unique(np.concatenate([ids[books < 0], wanted[due < 0]]))] += 0.5
        p = (counts / counts.sum(1, keepdims=True).clip(1e-9))[due + 1, wanted]
        unigram += -np.log2(p[1:]).sum()
        keys, times = np.unique(ids[:-1] * vocab + ids[1:], return_counts=True)
        total, kinds = np.bincount(keys // vocab, times, vocab), np.bincount(keys // vocab, minlength=vocab)
        pairs = wanted[:-1] * vocab + wanted[1:]
        place = np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)
        found = np.where(keys[place] == pairs, times[place], 0)
        n, t = total[wanted[:-1]], np.maximum(kinds[wanted[:-1]], 1)
        bigram += -np.log2((found + t * p[1:]) / (n + t)).sum()
    return {"unigram": unigram / val[0][1:].size, "bigram": bigram / val[0][1:].size}


def main() -> None:
    """Trains, measures, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    for name, default in (("width", 256), ("depth", 4), ("heads", 4), ("context", 512), ("batch", 16), ("steps", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--every", type=int, default=200, help="steps between validations")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--minutes", type=float, default=15, help="stop by then")
    args = parser.parse_args()
    train, val = codeczoo.export.read(args.train), codeczoo.export.read(args.val)
    rows = train.pattern.rows or 1
    size = Size(train.header["vocab_size"], rows, args.width, args.depth, args.heads, args.context)
    L.seed_everything(0, verbose=False)
    model = LanguageModel(size, args.dropout)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {train.header['tokens']:,} ids")
    task = Task(model, args.lr, args.steps, args.output)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = L.Trainer(
        max_steps=args.steps, max_time={"minutes": args.minutes}, gradient_clip_val=1.0,
        precision="bf16-mixed" if bf16_is_fast(device) else "32-true",
        val_check_interval=args.every, check_val_every_n_epoch=None, num_sanity_val_steps=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    block = rows * (args.context + 1)
    trainer.fit(task, loader(args.train, block, args.batch, True), loader(args.val, block, args.batch, False))
    if task.losses:  # steps that no validation has seen
        trainer.validate(task, loader(args.val, block, args.batch, False), verbose=False)
    report(args, train, val, task, size)


def report(args: argparse.Namespace, train: Reader, val: Reader, task: Task, size: Size) -> None:
    """Writes curve.csv, curve.png and report.json; prints the last."""
    card = json.loads((val.folder / "card.json").read_text())
    unit = "picture" if val.spec.media == "image" else "second"
    uniform = sum(np.log2(book["size"]) * book["codes"] for book in card["codebooks"]) / card["ids"]
    bits = {"uniform": float(uniform), **baselines(stream(train), stream(val), train.pattern.vocabulary)}
    bits["model"] = min(point["val"] for point in task.curve)
    per = card["ids"] / card[f"{unit}s"]
    found = {"bits_of_an_id": bits, f"bits_per_{unit}": {name: value * per for name, value in bits.items()}}
    found |= {
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "size": asdict(size),
        "codec": val.header["codec"],
        "weights_hash": val.header["weights_hash"],
    }
    (args.output / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    with (args.output / "curve.csv").open("w") as file:
        writer = csv.DictWriter(file, ["step", "train", "val"])
        writer.writeheader()
        writer.writerows(task.curve)
    draw(args.output / "curve.png", task.curve, bits)
    print(json.dumps(found))


def draw(path: Path, curve: list[dict[str, float]], bits: dict[str, float]) -> None:
    """The curve, with what needs no model as lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for name in ("train", "val"):
        axis.plot([point["step"] for point in curve], [point[name] for point in curve], label=name)
    for name, style in (("uniform", ":"), ("unigram", "--"), ("bigram", "-.")):
        axis.axhline(bits[name], color="gray", linestyle=style, label=name)
    axis.set(xlabel="step", ylabel="bits of an id")
    axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
