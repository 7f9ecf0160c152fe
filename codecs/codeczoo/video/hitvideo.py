"""HiTVideo's idea: several discrete layers of a video, the higher ones coarse and semantic, the lower ones detail.

Source: "HiTVideo: Hierarchical Tokenizers for Enhancing Text-to-Video Generation" (arXiv 2503.11513), of which neither
code nor weights nor a table of layers is public; VQ-VAE-2 (arXiv 1906.00446), the same family with two layers.
Differs: grids, networks, quantizers and losses are ours, see recipes/video/hitvideo.yaml.
"""

from itertools import pairwise
from typing import Any

from torch import Tensor

from codeczoo.backbones.pyramid import Decoder, Encoder
from codeczoo.core.errors import ConfigError
from codeczoo.core.types import StreamSpec
from codeczoo.quantizers.topdown import TopDown
from codeczoo.video.codec import Stream, VideoCodec, video_stream


class HiTVideo(VideoCodec):
    """A pyramid of features, quantized top-down, and a decoder of the finest grid. Any prefix of streams decodes.

    Clips are filled up to 1 + f n frames, f that of the coarsest grid; codes of all grids are known when the last frame
    of a coarsest step is.

    Args:
        encoder: video to features.
        quantizer: of the features.
        decoder: what the quantizer gives to video.

    Raises:
        ConfigError: parts that do not fit together.
    """

    encoder: Encoder  # type: ignore[assignment]
    quantizer: TopDown  # type: ignore[assignment]
    decoder: Decoder

    def __init__(self, encoder: Encoder, quantizer: TopDown, decoder: Decoder) -> None:
        super().__init__(encoder, quantizer, decoder)  # type: ignore[arg-type]

    def check_parts(self) -> None:
        """See VideoCodec."""
        encoder, quantizer, decoder = self.encoder, self.quantizer, self.decoder
        if encoder.dims != quantizer.dims or quantizer.dim != decoder.dim:
            got = f"{encoder.dims} for {quantizer.dims} and {quantizer.dim} for {decoder.dim}"
            raise ConfigError(f"features must have the channels that the quantizer and the decoder take, got {got}")
        given = [tuple(coarse // own for coarse, own in zip(*pair, strict=True)) for pair in pairwise(encoder.strides)]
        if given != quantizer.strides or encoder.strides[-1] != decoder.stride:
            ups = f"{quantizer.strides} and a decoder of {decoder.stride}"
            raise ConfigError(f"merges and decoder must undo the encoder's strides {encoder.strides}, got {ups}")

    def grids(self) -> tuple[StreamSpec, ...]:
        """See VideoCodec."""
        pairs = zip(self.quantizer.stream_vocab_sizes, self.encoder.strides, strict=True)
        return tuple(video_stream(sizes, stride, f"layer {i}") for i, (sizes, stride) in enumerate(pairs, 1))

    def first_codes(self, z: Any, n_codebooks: int | None = None, n_streams: int | None = None) -> tuple[Tensor, ...]:
        """See VideoCodec."""
        self.check_codebooks(n_codebooks)
        return self.quantizer.encode(z, n_streams)

    def dequantized(self, streams: tuple[Tensor, ...]) -> Tensor:
        """See VideoCodec."""
        return self.quantizer.decode(streams)

    def stream(self) -> Stream:
        """See VideoCodec."""
        return _Stream(self)


class _Stream(Stream):
    """Piece by piece through the quantizer too: finer layers wait for the coarser ones of the same frames."""

    codec: HiTVideo

    def __init__(self, codec: HiTVideo) -> None:
        super().__init__(codec)
        self._quantizing, self._restoring = codec.quantizer.begin(), codec.quantizer.begin()

    def quantized(self, z: Any, last: bool, n_codebooks: int | None) -> tuple[Tensor, ...]:
        """See Stream."""
        self.codec.check_codebooks(n_codebooks)
        return self.codec.quantizer.encode_step(z, self._quantizing, last)

    def dequantized(self, streams: tuple[Tensor, ...], last: bool) -> Tensor:
        """See Stream. Where the first streams are given, all calls must give as many."""
        return self.codec.quantizer.decode_step(streams, self._restoring, last)
