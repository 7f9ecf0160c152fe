"""Residual look-up free quantization: every layer gives one more binary digit of each channel.

Source: ResidualLFQ of vector-quantize-pytorch (github.com/lucidrains/vector-quantize-pytorch).
Differs: one estimator around all layers, so that gradients pass with gain 1 at any depth; sums of codes are exact.
"""

from codeczoo.core.errors import ConfigError
from codeczoo.quantizers.dropout import Depth
from codeczoo.quantizers.estimators import Estimator
from codeczoo.quantizers.lfq import LFQ, Order
from codeczoo.quantizers.residual import Residual


class ResidualLFQ(Residual):
    """Layers of LFQ whose codes halve in size: +-1, +-1/2, +-1/4 and so on, which reach -2..2.

    Losses: those of LFQ, averaged over the layers. Any prefix of the codebooks decodes.

    Args:
        dim: D, channels and bits of each layer, 1..62.
        n_layers: K, 1..24, as float32 holds no finer sums.
        temperature: see BinaryQuantizer; of every layer.
        order: see BinaryQuantizer.
        entropy_bits: see BinaryQuantizer.
        depth: how many layers take part in training, per batch or per sample; None: all.
        estimator: how gradients pass; None: straight through.

    Raises:
        ConfigError: for arguments out of range.
    """

    def __init__(
        self,
        dim: int,
        n_layers: int,
        temperature: float = 0.01,
        order: Order = "big",
        entropy_bits: int = 9,
        depth: Depth | None = None,
        estimator: Estimator | None = None,
    ) -> None:
        if not 1 <= n_layers <= 24:
            raise ConfigError(f"ResidualLFQ: n_layers must be 1..24, got {n_layers}")
        layers = [LFQ(dim, 1, 2.0**-k, temperature, order, entropy_bits) for k in range(n_layers)]
        super().__init__(layers, depth, estimator)
