"""One-D-Piece: TiTok whose every prefix of tokens decodes, learned by dropping the tail.

Source: "One-D-Piece: Image Tokenizer Meets Quality-Controllable Compression" (arXiv 2501.10064),
github.com/turingmotors/One-D-Piece (Apache-2.0).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from codeczoo.backbones.vit1d import Decoder1D, Encoder1D
from codeczoo.core.base import Quantizer
from codeczoo.image import titok
from codeczoo.image.titok import CodebookHead, PixelHead, TiTok
from codeczoo.quantizers.dropout import kept


class OneDPiece(TiTok):
    """TiTok with Tail Token Drop. In training the decoder sees the first k latents, k uniform in 1..N.

    As published, k is one draw for the whole batch (each rank draws its own), dropped latents are not there at all, and
    the quantizer's losses are over all N.

    Args: as TiTok.
    """

    def __init__(
        self, encoder: Encoder1D, quantizer: Quantizer, decoder: Decoder1D, head: PixelHead | CodebookHead
    ) -> None:
        super().__init__(encoder, quantizer, decoder, head)
        self.spec = replace(self.spec, prefixes=("positions", *quantizer.prefixes))

    def thin(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """z (B, D, N) to (B, D, k) in training; all of it in evaluation.

        Under torch.compile, which wants one length, all of it and a mask (B, N), True where the decoder may look.
        """
        if not self.training:
            return z, None
        n = z.shape[2]
        left = torch.randint(1, n + 1, ())
        if torch.compiler.is_compiling():
            return z, kept(left.to(z.device).expand(len(z)), n)
        return z[:, :, : int(left)], None


# --- the authors' checkpoints ---------------------------------------------------------------------------------------

RENAMES = titok.RENAMES
UNUSED = titok.UNUSED


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' `config.json` describes: a two-stage TiTok with prefixes."""
    return titok.original_tree(config) | {"_target_": "codeczoo.image.one_d_piece.OneDPiece"}
