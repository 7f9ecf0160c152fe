"""VidTok: a causal encoder and decoder of convolutions around finite scalar quantization.

Source: VidTok (arXiv 2412.13061), github.com/microsoft/VidTok (MIT).
Differs: one rule of time for every clip (see video/codec.py); the original puts copies of the first frame in front, and
gives the same codes where T = 1 + f n. Streams; padded batches; any frame size.
"""

from codeczoo.video.codec import VideoCodec


class VidTok(VideoCodec):
    """Encoder, quantizer, decoder. Arguments: see VideoCodec."""
