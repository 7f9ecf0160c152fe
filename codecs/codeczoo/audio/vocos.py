"""VocosCodec: spectra, ConvNeXt blocks, residual codes, ConvNeXt blocks, spectra; all work is at the rate of the codes.

Ours: the decoder is that of Vocos (arXiv 2306.00814), the encoder its mirror, the quantizer that of EnCodec (arXiv
2210.13438). Codecs whose layers run at the rate of samples spend most of their time on few channels; here nearly all
is products of matrices, which suits processors. No checkpoints of others exist.
"""

from codeczoo.audio.waveform import WaveformCodec


class VocosCodec(WaveformCodec):
    """Vocos on both sides of a quantizer. Arguments: see WaveformCodec; `backbones.vocos.Encoder` and `.Decoder`."""
