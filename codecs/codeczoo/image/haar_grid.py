"""HaarGrid: Haar wavelets, convolutions, residual codes on a grid, convolutions, wavelets; pictures of any size.

Ours: the wavelets are those of Cosmos (arXiv 2501.03575), the layers of codes those of RQ-VAE (arXiv 2203.01941). No
checkpoints of others exist.
"""

from torch import Tensor

from codeczoo.backbones.haar2d import Decoder, Encoder
from codeczoo.core.base import Quantizer
from codeczoo.image.grid import SignedGridCodec


class HaarGrid(SignedGridCodec):
    """Encoder, a quantizer, Decoder.

    Args:
        encoder: image to a grid of latents.
        quantizer: of the latents.
        decoder: grid of latents to image.
    """

    decoder: Decoder

    def __init__(self, encoder: Encoder, quantizer: Quantizer, decoder: Decoder) -> None:
        super().__init__(encoder, quantizer, decoder, encoder.stride, (encoder.dim, decoder.dim))

    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution."""
        return self.decoder.conv_out.weight
