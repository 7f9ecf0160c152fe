"""One vocabulary for text and several codecs: vocabulary.json, which every export of theirs is given.

First come the ids of the text, then a block for each codec: its codes, then start, end, pad, separator. A block's start
id is what says in a mixed row that its media begin.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codeczoo.core.errors import FormatError, InputError, nearest
from codeczoo.core.types import TokenSpec
from codeczoo.export.patterns import Offsets, Vocabulary, split_spec
from codeczoo.export.patterns.flat import SPECIALS
from codeczoo.io.files import atomic

VERSION = 1
FILE, TOKENIZER = "vocabulary.json", "tokenizer"  # beside each other; a folder as transformers saves it


@dataclass(frozen=True)
class Block:
    """The ids of one codec.

    Args:
        name: e.g. "image"; letters, digits and "-".
        codec: what it is called.
        weights_hash: of its weights.
        spec: of its tokens.
        offset: its first id.
        offsets: whether its codebooks share their ids.
        factors: of its codes, each with ids of its own; none: a code is one id. See `patterns.Factored`.
    """

    name: str
    codec: str
    weights_hash: str
    spec: TokenSpec
    offset: int
    offsets: Offsets = "own"
    factors: tuple[int, ...] = ()

    @property
    def vocabulary(self) -> Vocabulary:
        """Which id means what. Raises InputError for factors that are not those of a codebook."""
        spec = split_spec(self.spec, self.factors) if self.factors else self.spec
        return Vocabulary.of(spec, self.offset, SPECIALS, self.offsets)

    def names(self) -> list[str]:
        """A name for each id, in order: <image_7>; <audio_2_7> for code 7 of the third codebook; then the specials."""
        sizes = self.vocabulary.sizes.tolist()
        if self.offsets == "shared" or len(sizes) == 1:
            codes = [f"<{self.name}_{code}>" for code in range(max(sizes))]
        else:
            codes = [f"<{self.name}_{book}_{code}>" for book, size in enumerate(sizes) for code in range(size)]
        return [*codes, f"<{self.name}>", f"</{self.name}>", f"<{self.name}_pad>", f"<{self.name}_separator>"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the ids are there to be read, `from_dict` counts them again."""
        ids = self.vocabulary
        return {
            "codec": self.codec,
            "weights_hash": self.weights_hash,
            "spec": self.spec.to_dict(),
            "offset": self.offset,
            "offsets": self.offsets,
            "factors": list(self.factors),
            "size": ids.size - self.offset,
            "codebooks": ids.codebooks(),
            "special_ids": ids.special,
        }

    @staticmethod
    def from_dict(name: str, values: dict[str, Any]) -> "Block":
        """Raises KeyError, TypeError or CodeczooError for values that `to_dict` did not make."""
        spec, keys = TokenSpec.from_dict(values["spec"]), ("codec", "weights_hash", "offset", "offsets")
        factors = tuple(values.get("factors", ()))
        return Block(name, spec=spec, factors=factors, **{key: values[key] for key in keys})


@dataclass(frozen=True)
class Vocabularies:
    """Text and codecs together.

    Args:
        text: ids of the text, from 0 on.
        blocks: of the codecs.
    """

    text: int
    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """One more than the largest id: rows of the language model's embedding."""
        return self.blocks[-1].vocabulary.size

    def block(self, name: str) -> Block:
        """By name. Raises InputError."""
        for block in self.blocks:
            if block.name == name:
                return block
        raise InputError(f"no modality '{name}' in this vocabulary; {nearest(name, [b.name for b in self.blocks])}")

    def write(self, path: Path) -> None:
        """As JSON. Raises InputError."""
        blocks = {block.name: block.to_dict() for block in self.blocks}
        values = {"version": VERSION, "size": self.size, "text": self.text, "modalities": blocks}
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n")

    @staticmethod
    def read(path: Path) -> "Vocabularies":
        """Raises InputError, FormatError."""
        try:
            values = json.loads(path.read_text())
            if values["version"] != VERSION:
                raise FormatError(f"{path}: version {values['version']}, this codeczoo knows {VERSION}")
            blocks = tuple(Block.from_dict(name, block) for name, block in values["modalities"].items())
            found = Vocabularies(values["text"], blocks)
            if found.size != values["size"]:
                raise FormatError(f"{path}: size {values['size']}, its blocks end at {found.size}")
            return found
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise FormatError(f"{path}: not a vocabulary ({error})") from None


def stacked(text: int, blocks: Iterable[Block]) -> Vocabularies:
    """Blocks laid behind the text and one another, whatever their offsets were. Raises InputError."""
    laid: list[Block] = []
    for block in blocks:
        if not block.name.replace("-", "").isalnum():
            raise InputError(f"a modality's name is letters, digits and '-', got '{block.name}'")
        if any(other.name == block.name for other in laid):
            raise InputError(f"two modalities are called '{block.name}'")
        laid.append(replace(block, offset=laid[-1].vocabulary.size if laid else text))
    return Vocabularies(text, tuple(laid))
