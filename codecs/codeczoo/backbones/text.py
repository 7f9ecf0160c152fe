"""Text towers: captions to features (B, length, dim) that a decoder may look at."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from codeczoo.core.errors import InputError, MissingError


class CLIPText(nn.Module):
    """The frozen text transformer of a CLIP model, all positions of its last layer after the final norm.

    The network is read from `path` on first use and is no part of the codec's weights.

    Source: OpenAI CLIP ViT-L/14-336 as TA-TiTok uses it through open_clip: token ids padded with 0 and the padding not
    masked, which is not what Hugging Face's tokenizer does by default.

    Args:
        path: local folder in Hugging Face layout (config.json, model.safetensors, tokenizer files).
        length: positions; captions are cut to it.
    """

    def __init__(self, path: str, length: int = 77) -> None:
        super().__init__()
        self.path, self.length = path, length
        self._loaded: tuple[nn.Module, object] | None = None  # a tuple, so that its weights stay out of the state dict

    def _load(self) -> tuple[nn.Module, object]:
        if self._loaded is None:
            try:
                from transformers import CLIPTextModel, CLIPTokenizer
            except ImportError:
                raise MissingError('text features want transformers: pip install "codeczoo[text]"') from None
            if not Path(self.path, "config.json").is_file():
                raise MissingError(
                    f"no CLIP text tower at {self.path}: fetch it once with `huggingface-cli download "
                    f"openai/clip-vit-large-patch14-336 --local-dir {self.path}`"
                )
            model = CLIPTextModel.from_pretrained(self.path, local_files_only=True).eval().requires_grad_(False)
            self._loaded = model, CLIPTokenizer.from_pretrained(self.path, local_files_only=True)
        return self._loaded

    @torch.no_grad()
    def forward(self, text: Sequence[str], device: torch.device) -> Tensor:
        """Features (B, length, dim) of B captions."""
        model, tokenizer = self._load()
        ids = torch.zeros(len(text), self.length, dtype=torch.int64)
        for row, caption in zip(ids, text, strict=True):
            found = tokenizer(caption, truncation=True, max_length=self.length)["input_ids"]  # type: ignore[operator]
            row[: len(found)] = torch.tensor(found)
        return model.to(device)(input_ids=ids.to(device)).last_hidden_state


class ByteText(nn.Module):
    """UTF-8 bytes embedded by a table that is trained with the codec: for captions without any downloaded model. Ours.

    Args:
        length: positions; captions are cut to it.
        dim: feature channels.
    """

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(257, dim)  # 256 is "no more text"
        nn.init.trunc_normal_(self.embedding.weight, std=0.02)

    def forward(self, text: Sequence[str], device: torch.device) -> Tensor:
        """Features (B, length, dim) of B captions."""
        ids = torch.full((len(text), self.length), 256)
        for row, caption in zip(ids, text, strict=True):
            found = list(caption.encode()[: self.length])
            row[: len(found)] = torch.tensor(found, dtype=torch.int64)
        return self.embedding(ids.to(device))


class EmptyText(nn.Module):
    """Knows the features of the empty caption only, so that a codec decodes without the tower that made them.

    Args:
        length: positions.
        dim: feature channels.
    """

    features: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("features", torch.zeros(length, dim))

    def forward(self, text: Sequence[str], device: torch.device) -> Tensor:
        """Features (B, length, dim). Raises InputError for a caption that is not empty."""
        for caption in text:
            if caption:
                raise InputError(f"this codec carries features of the empty text only, got {caption!r}")
        return self.features.expand(len(text), -1, -1).to(device)
