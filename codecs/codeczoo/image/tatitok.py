"""TA-TiTok: one-stage TiTok whose decoder also reads the caption; the tokens do not depend on it.

Source: "Democratizing Text-to-Image Masked Generative Models with Compact Text-Aware One-Dimensional Tokens"
(arXiv 2501.07730), github.com/bytedance/1d-tokenizer (Apache-2.0).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from codeczoo.backbones.text import ByteText, CLIPText, EmptyText
from codeczoo.backbones.vit1d import Decoder1D, Encoder1D
from codeczoo.core.base import Quantizer
from codeczoo.core.errors import InputError
from codeczoo.core.types import Reconstruction, Tokens
from codeczoo.image import titok
from codeczoo.image.titok import CodebookHead, PixelHead, TiTok

Text = Sequence[str] | Tensor | None


class TATiTok(TiTok):
    """TiTok with text features beside the latents in the decoder.

    Args:
        encoder, quantizer, decoder, head: as TiTok.
        text_length: positions of the text features.
        text_dim: channels of the text features.
        text_tower: captions to features; None when the features are always given.
    """

    def __init__(
        self,
        encoder: Encoder1D,
        quantizer: Quantizer,
        decoder: Decoder1D,
        head: PixelHead | CodebookHead,
        text_length: int = 77,
        text_dim: int = 768,
        text_tower: CLIPText | ByteText | EmptyText | None = None,
    ) -> None:
        super().__init__(encoder, quantizer, decoder, head)
        self.text_project = nn.Linear(text_dim, decoder.width)
        self.text_positional_embedding = nn.Parameter(torch.randn(text_length, decoder.width) * decoder.width**-0.5)
        self.text_tower = text_tower
        nn.init.trunc_normal_(self.text_project.weight, std=0.02)
        nn.init.zeros_(self.text_project.bias)

    def condition(self, text: Text, batch: int) -> Tensor:
        """What the decoder reads besides the latents.

        Args:
            text: B captions, their features (B, text_length, text_dim), or None for empty captions.
            batch: B.

        Shapes: gives (B, text_length, width). Raises InputError when captions come without a text tower.
        """
        where = self.text_positional_embedding
        if isinstance(text, Tensor):
            features = text
        else:
            if self.text_tower is None:
                raise InputError(
                    "TA-TiTok wants text features (B, length, channels), or a text tower: "
                    'codeczoo.from_original("tatitok", ..., text_tower=FOLDER of openai/clip-vit-large-patch14-336)'
                )
            features = self.text_tower([""] * batch if text is None else text, where.device)
        wanted = (batch, where.shape[0], self.text_project.in_features)
        if features.shape != wanted:
            raise InputError(f"text features must be {wanted}, got {tuple(features.shape)}")
        return self.text_project(features) + where

    def decode(self, tokens: Tokens, *, text: Text = None) -> Tensor:
        """Codes (B, K, N) and captions (None: empty) to x_hat (B, 3, H, W) in [0, 1]."""
        z, valid = self.latents(tokens)
        return self.render(z, valid, text).clamp(0, 1)

    def render(self, z: Tensor, valid: Tensor | None = None, text: Text = None) -> Tensor:
        """Quantized latents (B, D, N) and captions to x_hat (B, 3, H, W), not clamped."""
        x_hat, _ = self.head(self.decoder(z, valid, self.condition(text, z.shape[0])))
        assert x_hat is not None
        return x_hat

    def forward(self, x: Tensor, *, pixels: bool = True, text: Text = None) -> Reconstruction:
        """One training pass; `text` as in `condition`."""
        self.check_media(x)
        q = self.quantizer(self.encoder(x))
        features = self.decoder(q.z, None, self.condition(text, x.shape[0]))
        x_hat, logits = self.head(features, pixels)
        return Reconstruction(self.tokens([q.codes], x), x_hat, q.losses, logits=logits)


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = (
    (r"^decoder\.text_guidance_proj\.", "text_project."),
    (r"^decoder\.text_guidance_positional_embedding$", "text_positional_embedding"),
    *titok.RENAMES,
)
UNUSED = titok.UNUSED


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' `config.json` describes."""
    model = config["model"]["vq_model"]
    return titok.original_tree(config) | {
        "_target_": "codeczoo.image.tatitok.TATiTok",
        "text_length": model.get("text_context_length", 77),
        "text_dim": model.get("text_embed_dim", 768),
    }
