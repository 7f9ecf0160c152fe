"""What audio codecs share whose encoder and decoder are layers over time: whole signals, padded batches, streams."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.base import Codec, Quantizer
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Quantized, Reconstruction, StreamSpec, Tokens, TokenSpec
from codeczoo.nn.conv1d import Conv1d, ConvTranspose1d
from codeczoo.nn.stream import Coder, Length, before, hide
from codeczoo.quantizers.layered import Layered


class WaveformCodec(Codec):
    """An encoder, a quantizer, a decoder.

    Args:
        encoder: (B, C, T) to latents (B, D, ceil(T / hop)).
        quantizer: of the latents.
        decoder: latents to (B, C, T').
        sample_rate: Hz.

    Raises:
        ConfigError: parts that do not fit together.
    """

    encoder: Coder
    quantizer: Quantizer
    decoder: Coder

    def __init__(self, encoder: Coder, quantizer: Quantizer, decoder: Coder, sample_rate: int) -> None:
        super().__init__()
        if not encoder.dim == quantizer.dim == decoder.dim:
            dims = f"{encoder.dim}, {quantizer.dim}, {decoder.dim}"
            raise ConfigError(f"encoder, quantizer and decoder must agree in the channels of latents, got {dims}")
        if (encoder.hop, encoder.channels) != (decoder.hop, decoder.channels):
            raise ConfigError("encoder and decoder must agree in hop and channels")
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.hop = encoder.hop
        stream = StreamSpec(quantizer.vocab_sizes, ("time",), (None,), rate=sample_rate / self.hop)
        self.spec = TokenSpec(
            "audio", "second", (stream,), quantizer.prefixes, sample_rate=sample_rate, channels=encoder.channels
        )

    @property
    def sample_rate(self) -> int:
        """Of the audio, Hz."""
        assert self.spec.sample_rate is not None
        return self.spec.sample_rate

    def whole(self, n: Length) -> Length:
        """Samples that the encoder gets of n samples: the rest are zeros. Here n, others fill up the last hop."""
        return n

    # --- whole signals -----------------------------------------------------------------------------------------------

    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None,
        n_streams: int | None = None, lengths: Tensor | None = None,
    ) -> Tokens:
        """x (B, C, T) in [-1, 1] to codes (B, K, frames), or to the first codebooks of them.

        Args:
            x: the signals; `lengths` int64 (B,) says how many samples of each count, where they differ. Each signal
                gets the codes that it gets by itself, and 0 behind its last frame.
        """
        self.check_media(x)
        z, frames = self.latents(x, lengths)
        codes = self.first_codes(z, n_codebooks)
        size = torch.full((len(x),), x.shape[2], dtype=torch.int64, device=x.device) if lengths is None else lengths
        if frames is not None:
            codes = codes * before(frames, codes.shape[2])[:, None]
        own = None if frames is None else (frames,)
        tokens = Tokens(self.spec, (codes,), size[:, None], own, self.sample_rate)
        return tokens.prefix(n_positions, None, n_streams)

    def first_codes(self, z: Tensor, n: int | None) -> Tensor:
        """Latents (B, D, frames) to the first n codebooks (B, n, frames); None: all. Raises InputError."""
        if n is None:
            return self.quantizer.encode(z)
        if isinstance(self.quantizer, Layered):
            return self.quantizer.encode(z, n)
        if n != len(self.quantizer.vocab_sizes):
            name, most = type(self).__name__, len(self.quantizer.vocab_sizes)
            raise InputError(f"this {name} decodes no prefix of codebooks: n_codebooks must be {most}, got {n}")
        return self.quantizer.encode(z)

    def latents(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x (B, C, T) to latents (B, D, frames), and how many of them each signal has, (B,); None: all."""
        wanted = self.whole(x.shape[2])
        x = F.pad(hide(x, lengths), (0, wanted - x.shape[2]))
        if lengths is None:
            return self.encoder(x), None
        lengths = self.whole(lengths)
        return self.encoder(x, lengths), self.encoder.length(lengths)

    def decode(self, tokens: Tokens) -> Tensor:
        """Codes (B, K, frames) to x_hat (B, C, T) in [-1, 1], T the largest size of the batch; 0 behind each end."""
        z = self.quantizer.decode(tokens.check_range().codes)
        sizes = tokens.size[:, 0]
        if tokens.lengths is None:
            return fitted(self.render(z), int(sizes.max())).clamp(-1, 1)
        frames = tokens.stream_lengths()
        x_hat = hide(self.render(z, frames), torch.minimum(sizes, self.decoder.length(frames)))
        return fitted(x_hat, int(sizes.max())).clamp(-1, 1)

    def render(self, z: Tensor, frames: Tensor | None = None) -> Tensor:
        """Quantized latents (B, D, frames) to x_hat (B, C, T'), neither clamped nor cut to a size."""
        return self.decoder(z, frames)

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        """One training pass, on signals of one length."""
        self.check_media(x)
        z, _ = self.latents(x)
        q = self.quantizer(z)
        size = torch.full((len(x), 1), x.shape[2], dtype=torch.int64, device=x.device)
        tokens = Tokens(self.spec, q.streams, size, sample_rate=self.sample_rate)
        x_hat = fitted(self.render(q.z), x.shape[2]) if pixels else None
        return Reconstruction(tokens, x_hat, q.losses, features=self.features(z, q))

    def features(self, z: Tensor, q: Quantized) -> Tensor | None:
        """What learns from a teacher, of the latents z and their codes, (B, D, frames); None: nothing does."""
        return None

    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution; where it is normalised, its direction."""
        convolutions = [part for part in self.decoder.modules() if isinstance(part, Conv1d | ConvTranspose1d)]
        return next(p for name, p in convolutions[-1].named_parameters() if name in ("weight", "weight_v"))

    # --- long signals ------------------------------------------------------------------------------------------------

    def stream(self) -> "Stream":
        """A new stream in both directions. Raises InputError where neither can run piece by piece."""
        return Stream(self)


class Stream:
    """A signal that comes piece by piece; its state is here, so streams may take turns on one codec.

    Args:
        codec: in evaluation mode.
    """

    def __init__(self, codec: WaveformCodec) -> None:
        self.codec = codec
        self._encoding, self._decoding = codec.encoder.begin(), codec.decoder.begin()
        self._given = 0

    @torch.no_grad()
    def encode(self, x: Tensor, last: bool = False, n_codebooks: int | None = None) -> Tensor:
        """The next samples (B, C, t), t >= 0, to the codes that can be told by now, (B, K, frames).

        Raises InputError for media of another shape, or where the encoder cannot run piece by piece.
        """
        codec = self.codec
        codec.check_media(x, piece=True)
        codec.encoder.check_streamable()
        self._given += x.shape[2]
        if last:
            x = F.pad(x, (0, codec.whole(self._given) - self._given))
        z = codec.encoder.step(x, self._encoding, last)
        return codec.first_codes(z, n_codebooks)

    @torch.no_grad()
    def decode(self, codes: Tensor, last: bool = False) -> Tensor:
        """The next codes (B, K, frames), frames >= 0, to the samples that can be told by now, (B, C, t) in [-1, 1].

        Whole signals are cut to their length, which a stream does not know. Raises InputError where the decoder cannot
        run piece by piece.
        """
        self.codec.decoder.check_streamable()
        return self.codec.decoder.step(self.codec.quantizer.decode(codes), self._decoding, last).clamp(-1, 1)

    @property
    def encode_latency(self) -> int:
        """Most samples that must have come, from the first sample of a frame on, before its codes do."""
        return latency(self.codec.encoder.needs, self.codec.hop)

    @property
    def latency(self) -> int:
        """As `encode_latency`, until the first sample that the codes of the frame tell is decoded."""
        codec = self.codec
        return latency(lambda n: codec.encoder.needs(codec.decoder.needs((n - 1) * codec.hop + 1)), codec.hop)


def fitted(x: Tensor, samples: int) -> Tensor:
    """x (B, C, T) cut to so many samples, or filled up with zeros."""
    return F.pad(x, (0, samples - x.shape[2])) if x.shape[2] != samples else x


def latency(needs: Callable[[int], int], hop: int, frames: int = 256) -> int:
    """Most samples from the first of a frame to the last that `needs(n)` wants for the first n frames."""
    return max(needs(n) - (n - 1) * hop for n in range(1, frames + 1))
