"""What video codecs share whose encoder and decoder are layers over time: clips, images, padded batches, streams.

Time follows one rule, whatever the system: T = 1 + f n frames are 1 + n latents, and latent 0 is the first frame alone.
Other clips are filled up at the end with their last frame, frames at the bottom and on the right with their edge.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codeczoo.core.base import Codec, Quantizer
from codeczoo.core.errors import ConfigError, InputError
from codeczoo.core.types import Reconstruction, StreamSpec, Tokens, TokenSpec
from codeczoo.nn.conv3d import Conv3d, FrameConv, TimeConv, join
from codeczoo.nn.stream import Length, VideoCoder, hide
from codeczoo.quantizers.layered import Layered


class VideoCodec(Codec):
    """An encoder, a quantizer, a decoder.

    Args:
        encoder: video (B, 3, T, H, W) in [-1, 1] to latents (B, D, 1 + (T - 1) / f, H / h, W / w).
        quantizer: of the latents.
        decoder: latents to video in [-1, 1].

    Raises:
        ConfigError: parts that do not fit together.
    """

    encoder: VideoCoder
    quantizer: Quantizer
    decoder: VideoCoder

    def __init__(self, encoder: VideoCoder, quantizer: Quantizer, decoder: VideoCoder) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.check_parts()
        self.spec = TokenSpec("video", "pixel", self.grids(), ("positions", *quantizer.prefixes))

    def check_parts(self) -> None:
        """Raises ConfigError for parts that do not fit together."""
        encoder, quantizer, decoder = self.encoder, self.quantizer, self.decoder
        if not encoder.dim == quantizer.dim == decoder.dim:
            dims = f"{encoder.dim}, {quantizer.dim}, {decoder.dim}"
            raise ConfigError(f"encoder, quantizer and decoder must agree in the channels of latents, got {dims}")
        if encoder.stride != decoder.stride:
            raise ConfigError(f"encoder and decoder must agree in stride, got {encoder.stride}, {decoder.stride}")

    def grids(self) -> tuple[StreamSpec, ...]:
        """The streams of codes, coarse to fine."""
        return (video_stream(self.quantizer.vocab_sizes, self.encoder.stride),)

    @property
    def stride(self) -> tuple[int, int, int]:
        """(f, h, w), frames, rows and columns that a position of the coarsest stream stands for."""
        stride = self.spec.streams[0].stride
        assert stride is not None
        return stride

    # --- whole clips -------------------------------------------------------------------------------------------------

    def encode(
        self, x: Tensor, *, n_positions: int | None = None, n_codebooks: int | None = None,
        n_streams: int | None = None, lengths: Tensor | None = None,
    ) -> Tokens:
        """x (B, 3, T, H, W) in [0, 1] to codes (B, K, 1 + ceil((T - 1) / f), ceil(H / h), ceil(W / w)) each stream.

        Args:
            x: the clips; `lengths` int64 (B,) says how many frames of each count, where they differ. Each clip gets the
                codes that it gets by itself, and 0 behind its last latent.
        """
        self.check_media(x)
        z, steps = self.latents(x, lengths)
        streams = self.first_codes(z, n_codebooks, n_streams)
        size = torch.tensor(x.shape[2:], dtype=torch.int64, device=x.device).repeat(len(x), 1)
        if lengths is not None:
            size[:, 0] = lengths
        own = None if steps is None else tuple(self.of_stream(s, steps) for s in range(len(streams)))
        if own is not None:
            streams = tuple(hide(codes, n) for codes, n in zip(streams, own, strict=True))
        return Tokens(self.spec, streams, size, own).prefix(n_positions, None, n_streams)

    def first_codes(self, z: Any, n_codebooks: int | None = None, n_streams: int | None = None) -> tuple[Tensor, ...]:
        """Latents to codes (B, K, t, h, w) of each stream, or the first codebooks or streams. Raises InputError."""
        if isinstance(self.quantizer, Layered) and n_codebooks is not None:
            return (self.quantizer.encode(z, n_codebooks),)
        self.check_codebooks(n_codebooks)
        return (self.quantizer.encode(z),)

    def check_codebooks(self, n: int | None) -> None:
        """Raises InputError unless n is None or as many codebooks as a stream has."""
        most = max(len(stream.vocab_sizes) for stream in self.spec.streams)
        if n not in (None, most):
            name = type(self).__name__
            raise InputError(f"this {name} decodes no prefix of codebooks: n_codebooks must be {most}, got {n}")

    def dequantized(self, streams: tuple[Tensor, ...]) -> Tensor:
        """Codes to what the decoder takes, (B, D, t, h, w)."""
        return self.quantizer.decode(streams[0])

    def of_stream(self, stream: int, steps: Length) -> Length:
        """Positions in time of a stream that go with so many of the coarsest."""
        stride = self.spec.streams[stream].stride
        assert stride is not None
        return 1 + (steps - 1) * self.stride[0] // stride[0]

    def latents(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """x (B, 3, T, H, W) in [0, 1] to latents (B, D, t, h, w), and how many of them each clip has; None: all.

        Latents of several streams are several, and the number is that of the coarsest.
        """
        x = 2 * self.filled(x) - 1
        more = self.whole(x.shape[2]) - x.shape[2]
        if lengths is None:
            return self.encoder(join([x, x[:, :, -1:].expand(-1, -1, more, -1, -1)]) if more else x), None
        source = torch.arange(x.shape[2] + more, device=x.device).minimum(lengths[:, None] - 1)  # (B, T)
        x = x.gather(2, source[:, None, :, None, None].expand(-1, 3, -1, *x.shape[3:]))
        return self.encoder(x, self.whole(lengths)), self.steps(lengths)

    def whole(self, n: Length) -> Length:
        """Frames that the encoder gets of n frames, 1 + f * k."""
        return 1 + (self.steps(n) - 1) * self.stride[0]

    def steps(self, n: Length) -> Length:
        """Latents in time that n frames become."""
        return 1 - (1 - n) // self.stride[0]

    def filled(self, x: Tensor) -> Tensor:
        """x (B, 3, T, H, W) with its last row and column repeated up to multiples of the stride."""
        bottom, right = (-side % own for side, own in zip(x.shape[3:], self.stride[1:], strict=True))
        if not bottom and not right:
            return x
        frames = x.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W)
        if x.shape[2]:
            frames = F.pad(frames, (0, right, 0, bottom), "replicate")
        else:
            frames = F.pad(frames, (0, right, 0, bottom))
        return frames.unflatten(0, (len(x), x.shape[2])).transpose(1, 2)

    def decode(self, tokens: Tokens) -> Tensor:
        """Codes (B, K, t, h, w) of each stream to x_hat (B, 3, T, H, W) in [0, 1], 0 behind the end of each clip.

        Each size is the largest of the batch. A prefix in time gives the frames that it covers.
        """
        tokens = tokens.check_range()
        z = self.dequantized(tokens.streams)
        latents = tokens.stream_lengths()
        frames = torch.minimum(tokens.size[:, 0], 1 + (latents - 1) * self.stride[0])
        height, width = tokens.size[:, 1:].amax(0).tolist()
        x_hat = self.render(z, None if tokens.lengths is None else self.of_stream(-1, latents))
        x_hat = x_hat[:, :, : int(frames.max()), :height, :width].clamp(0, 1)
        return x_hat if tokens.lengths is None else hide(x_hat, frames)

    def render(self, z: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Quantized latents (B, D, t, h, w) to x_hat (B, 3, 1 + f (t - 1), H', W'), neither clamped nor cut to a size.

        Args:
            z: the latents; `lengths` int64 (B,) says how many in time each clip has; None: all.
        """
        return (self.decoder(z, lengths) + 1) / 2

    def forward(self, x: Tensor, *, pixels: bool = True) -> Reconstruction:
        """One training pass, on clips of one length."""
        self.check_media(x)
        z, _ = self.latents(x)
        q = self.quantizer(z)
        x_hat = self.render(q.z)[:, :, : x.shape[2], : x.shape[3], : x.shape[4]] if pixels else None
        return Reconstruction(self.tokens(q.streams, x), x_hat, q.losses)

    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution."""
        convolutions = [part for part in self.decoder.modules() if isinstance(part, Conv3d | FrameConv | TimeConv)]
        return convolutions[-1].weight

    # --- long clips --------------------------------------------------------------------------------------------------

    def stream(self) -> "Stream":
        """A new stream in both directions."""
        return Stream(self)


class Stream:
    """A clip that comes piece by piece; its state is here, so streams may take turns on one codec.

    Args:
        codec: in evaluation mode.
    """

    def __init__(self, codec: VideoCodec) -> None:
        self.codec = codec
        self._encoding, self._decoding = codec.encoder.begin(), codec.decoder.begin()
        self._given = 0
        self._newest: Tensor | None = None

    @torch.no_grad()
    def encode(self, x: Tensor, last: bool = False, n_codebooks: int | None = None) -> tuple[Tensor, ...]:
        """The next frames (B, 3, t, H, W), t >= 0, to the codes that can be told by now, (B, K, t', h, w) each stream.

        Raises InputError for media of another shape, or where the encoder cannot run piece by piece.
        """
        codec = self.codec
        codec.check_media(x, piece=True)
        codec.encoder.check_streamable()
        x = 2 * codec.filled(x) - 1
        self._given += x.shape[2]
        if x.shape[2]:
            self._newest = x[:, :, -1:].clone()
        if last and self._newest is not None:
            more = codec.whole(self._given) - self._given
            x = join([x, self._newest.expand(-1, -1, more, -1, -1)])
        return self.quantized(codec.encoder.step(x, self._encoding, last), last, n_codebooks)

    @torch.no_grad()
    def decode(self, streams: tuple[Tensor, ...], last: bool = False) -> Tensor:
        """The next codes (B, K, t, h, w) of each stream, t >= 0, to the frames that can be told by now, in [0, 1].

        Whole clips are cut to their size, which a stream does not know. Raises InputError where the decoder cannot run
        piece by piece.
        """
        self.codec.decoder.check_streamable()
        z = self.dequantized(streams, last)
        return ((self.codec.decoder.step(z, self._decoding, last) + 1) / 2).clamp(0, 1)

    def quantized(self, z: Any, last: bool, n_codebooks: int | None) -> tuple[Tensor, ...]:
        """The next latents to codes."""
        return self.codec.first_codes(z, n_codebooks)

    def dequantized(self, streams: tuple[Tensor, ...], last: bool) -> Tensor:
        """The next codes to what the decoder takes."""
        return self.codec.dequantized(streams)

    @property
    def lookahead(self) -> int:
        """Most frames that must have come behind the last one of a latent before all of its own are decoded."""
        f, fine = self.codec.stride[0], self.codec.decoder.stride[0]
        ends = [1 + n * f for n in range(64)]
        latents = [1 - (1 - self.codec.decoder.needs(end)) * fine // f for end in ends]  # of the coarsest stream
        return max(self.codec.encoder.needs(n) - end for n, end in zip(latents, ends, strict=True))


def video_stream(vocab_sizes: tuple[int, ...], stride: tuple[int, int, int], name: str = "codes") -> StreamSpec:
    """One grid of codes over time, rows and columns."""
    axes = ("time", "row", "column")
    return StreamSpec(vocab_sizes, axes, (None, None, None), 1 / (stride[0] * stride[1] * stride[2]), name, stride)
