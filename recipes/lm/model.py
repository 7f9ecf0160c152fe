"""A Llama of transformers over the ids of an export: one row, or a row for each codebook as MusicGen has them."""

import json
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

# What transformers calls the cache: from 5.40 on nothing but the first.
CACHE = "cache" if "cache" in signature(LlamaModel.forward).parameters else "past_key_values"


@dataclass(frozen=True)
class Size:
    """Args: vocab ids of each row; rows of ids; width, depth, heads of the transformer; context in steps."""

    vocab: int
    rows: int = 1
    width: int = 256
    depth: int = 4
    heads: int = 4
    context: int = 512


class LanguageModel(nn.Module):
    """Embeddings of all rows of a step are added; every row has an output of its own."""

    def __init__(self, size: Size, dropout: float = 0.0) -> None:
        super().__init__()
        self.size = size
        config = LlamaConfig(
            vocab_size=1, hidden_size=size.width, intermediate_size=4 * size.width, num_hidden_layers=size.depth,
            num_attention_heads=size.heads, max_position_embeddings=size.context, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        self.embeddings = nn.ModuleList(nn.Embedding(size.vocab, size.width) for _ in range(size.rows))
        self.dropout = nn.Dropout(dropout)
        self.body = LlamaModel(config)
        self.body.embed_tokens = nn.Identity()  # the embeddings above are given to it
        self.outputs = nn.ModuleList(nn.Linear(size.width, size.vocab, bias=False) for _ in range(size.rows))
        for table in self.embeddings:
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids: Tensor, cache: Any = None) -> Tensor:
        """Logits (B, T, rows, vocab) of what follows each step of ids (B, T, rows); with a cache, of the next steps."""
        x = sum(table(ids[:, :, k]) for k, table in enumerate(self.embeddings))  # (B, T, width)
        hidden = self.body(inputs_embeds=self.dropout(x), use_cache=cache is not None, **{CACHE: cache})
        return torch.stack([out(self.dropout(hidden.last_hidden_state)) for out in self.outputs], 2)

    def loss(self, ids: Tensor) -> Tensor:
        """Mean nats of each id of ids (B, T + 1, rows) but the first step, given those before it."""
        logits = self(ids[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 2).float(), ids[:, 1:].flatten())

    def save(self, folder: Path) -> None:
        """Weights and size."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / "model.safetensors")
        (folder / "size.json").write_text(json.dumps(asdict(self.size)))

    @staticmethod
    def load(folder: Path) -> "LanguageModel":
        """What `save` wrote, ready to write ids."""
        model = LanguageModel(Size(**json.loads((folder / "size.json").read_text())))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
