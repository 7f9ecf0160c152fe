"""A codebook of fixed random vectors behind one learned linear map.

Source: SimVQ, "Addressing Representation Collapse in Vector Quantized Models with One Linear Layer" (arXiv 2411.02038).
Differs: no bias; straight-through by default where vector-quantize-pytorch rotates, which raises the commitment loss.
"""

import torch
from torch import Tensor, nn

from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.penalties import Penalty
from codeczoo.quantizers.tables import Matching


class SimVQ(Matching):
    """Euclidean nearest neighbour among mapped vectors: every step moves all entries, so none dies.

    Losses: "commitment" mean (z - sg(code))^2 and "codebook" mean (code - sg(z))^2, which trains the map. The vectors
    are part of the weights: other ones would make other codes.

    Args:
        vocab_size: V, entries.
        dim: D, channels of a latent.
        estimator: how gradients pass; None: straight through.
        penalty: losses of the mapped table; None: none.
    """

    frozen: Tensor

    def __init__(
        self, vocab_size: int, dim: int, estimator: Estimator | None = None, penalty: Penalty | None = None
    ) -> None:
        super().__init__(vocab_size, dim, estimator, penalty)
        self.register_buffer("frozen", torch.randn(vocab_size, dim) / dim**0.5)
        self.map = nn.Linear(dim, dim, bias=False)

    def table(self) -> Tensor:
        """See Matching."""
        return self.map(self.frozen)
