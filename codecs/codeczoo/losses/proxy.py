"""Learning the codes of another tokenizer: TiTok's first stage."""

import torch
from torch import Tensor, nn

from codeczoo.core.base import Codec
from codeczoo.core.errors import InputError
from codeczoo.core.types import Reconstruction
from codeczoo.losses.base import Term
from codeczoo.losses.frozen import Frozen


class ProxyCodes(Term):
    """Cross-entropy of predicted logits with the codes that a frozen teacher gives the same media.

    Source: TiTok (arXiv 2406.07550) stage 1; the teacher there is a MaskGIT-VQGAN with 1024 codes.

    Args:
        teacher: codec with one stream; the codes of its first codebook are the targets. Never trained, never saved.
        label_smoothing: share of the probability spread over all codes, 0..1; 0 in TiTok, 0.1 in KARL.
    """

    reads = frozenset({"logits"})

    def __init__(self, teacher: Codec, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.teacher = Frozen(teacher)
        self.label_smoothing = label_smoothing

    def value(self, x: Tensor, reconstruction: Reconstruction) -> Tensor:
        """x (B, C, *spatial), logits (B, V, *S), teacher codes (B, K, *S) to a scalar.

        Raises InputError when the logits are not one per code of the teacher's grid.
        """
        with torch.no_grad():
            codes = self.teacher.net.encode(x).codes[:, 0]  # (B, *S)
        logits = reconstruction.logits
        vocab_size = self.teacher.net.spec.streams[0].vocab_sizes[0]
        wanted = (len(codes), vocab_size, *codes.shape[1:])
        if logits is None or logits.shape != wanted:
            got = None if logits is None else tuple(logits.shape)
            raise InputError(f"ProxyCodes: the teacher's codes want logits {wanted}, the codec gives {got}")
        return nn.functional.cross_entropy(logits.float(), codes, label_smoothing=self.label_smoothing)
