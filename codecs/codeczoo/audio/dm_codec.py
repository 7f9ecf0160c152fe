"""DM-Codec: SpeechTokenizer's network, whose first codebook learned from a text model too.

Source: "DM-Codec: Distilling Multimodal Representations for Speech Tokenization" (arXiv 2410.15017),
github.com/mubtasimahasan/DM-Codec (Apache-2.0).
Differs: see SpeechTokenizer.
"""

from collections.abc import Mapping
from typing import Any

from codeczoo.audio import speechtokenizer
from codeczoo.audio.speechtokenizer import RENAMES, UNUSED, SpeechTokenizer, original_state

__all__ = ["RENAMES", "UNUSED", "DMCodec", "original_state", "original_tree"]


class DMCodec(SpeechTokenizer):
    """The network of SpeechTokenizer; what differs is the teacher. Arguments: see SpeechTokenizer."""


def original_tree(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration tree of the codec that the authors' `config.json` describes."""
    return speechtokenizer.original_tree(config) | {"_target_": "codeczoo.audio.dm_codec.DMCodec"}
