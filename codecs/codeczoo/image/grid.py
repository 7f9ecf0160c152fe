"""What image codecs share whose encoder and decoder are convolutions: pictures of any size to a grid of codes."""

from torch import Tensor, nn
from torch.nn import functional as F

from codeczoo.core.base import Codec, Quantizer
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import Reconstruction, StreamSpec, Tokens, TokenSpec


def padded(x: Tensor, stride: int) -> Tensor:
    """x (B, 3, H, W) with its last row and column repeated up to multiples of the stride."""
    bottom, right = (-side % stride for side in x.shape[2:])
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


class GridCodec(Codec):
    """An encoder, a quantizer, a decoder.

    Args:
        encoder: (B, 3, H, W), sides multiples of `stride`, to latents (B, D, H / stride, W / stride).
        quantizer: of the latents.
        decoder: latents to (B, 3, H, W).
        stride: rows and columns that a code stands for.
        dims: D of the encoder and of the decoder.

    Raises:
        ConfigError: parts that do not fit together.
    """

    def __init__(
        self, encoder: nn.Module, quantizer: Quantizer, decoder: nn.Module, stride: int, dims: tuple[int, int]
    ) -> None:
        super().__init__()
        if {*dims} != {quantizer.dim}:
            found = f"{dims[0]}, {quantizer.dim}, {dims[1]}"
            raise ConfigError(f"encoder, quantizer and decoder must agree in the channels of latents, got {found}")
        self.encoder, self.quantizer, self.decoder, self.stride = encoder, quantizer, decoder, stride
        stream = StreamSpec(quantizer.vocab_sizes, ("row", "column"), (None, None), rate=stride**-2)
        self.spec = TokenSpec("image", "pixel", (stream,), quantizer.prefixes)

    def latents(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) in [0, 1] to latents (B, D, ceil(H/stride), ceil(W/stride))."""
        return self.encoder(padded(x, self.stride))

    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None, n_streams: int | None = None
    ) -> Tokens:
        """x (B, 3, H, W) in [0, 1] to codes (B, K, ceil(H/stride), ceil(W/stride))."""
        self.check_media(x)
        codes = self.quantizer.encode(self.latents(x))
        return self.tokens([codes], x).prefix(n_positions, n_codebooks, n_streams)

    def decode(self, tokens: Tokens) -> Tensor:
        """Codes (B, K, h, w) to x_hat (B, 3, H, W) in [0, 1], trimmed to the largest size of the batch."""
        height, width = tokens.size.amax(0).tolist()
        x_hat = self.render(self.quantizer.decode(tokens.check_range().codes))
        return x_hat[:, :, :height, :width].clamp(0, 1)

    def render(self, z: Tensor) -> Tensor:
        """Quantized latents (B, D, h, w) to x_hat in [0, 1], not clamped."""
        return self.decoder(z)

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        """One training pass."""
        self.check_media(x)
        q = self.quantizer(self.latents(x))
        x_hat = self.render(q.z)[:, :, : x.shape[2], : x.shape[3]] if pixels else None
        return Reconstruction(self.tokens([q.codes], x), x_hat, q.losses)


class SignedGridCodec(GridCodec):
    """A GridCodec whose encoder takes and whose decoder gives pixels in [-1, 1]. Arguments: see GridCodec."""

    def latents(self, x: Tensor) -> Tensor:
        """See GridCodec."""
        return super().latents(2 * x - 1)

    def render(self, z: Tensor) -> Tensor:
        """See GridCodec."""
        return (super().render(z) + 1) / 2
