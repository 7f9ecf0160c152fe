"""Text around media: ids of a Hugging Face tokenizer, and that tokenizer with the ids of codecs behind its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from codeczoo.core.errors import InputError, MissingError
from codeczoo.export.dataset import Document
from codeczoo.export.patterns import Ids
from codeczoo.export.vocabulary import Block

Place = Literal["before", "after"]


def load(folder: Path) -> Any:
    """A tokenizer as transformers saved it. Raises InputError, MissingError."""
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError:
        raise MissingError('tokenizers need transformers: pip install "codeczoo[text]"') from None
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a tokenizer is one that transformers' save_pretrained made")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: transformers reads no tokenizer there ({error})") from None


def size_of(tokenizer: Any) -> int:
    """One more than its largest id."""
    return 1 + max(tokenizer.get_vocab().values())


def extend(tokenizer: Any, blocks: Iterable[Block]) -> Any:
    """The tokenizer itself, with a special token for each id of the blocks. Raises InputError where names are taken."""
    from tokenizers import AddedToken

    for block in blocks:
        if size_of(tokenizer) != block.offset or len(tokenizer) != block.offset:
            have = f"the tokenizer has {len(tokenizer)} tokens, up to id {size_of(tokenizer) - 1}"
            raise InputError(f"{have}; the ids of '{block.name}' begin at {block.offset}")
        names = block.names()
        added = [AddedToken(name, special=True, normalized=False) for name in names]
        tokenizer.add_tokens(added, special_tokens=True)
        if size_of(tokenizer) != block.offset + len(names):
            raise InputError(f"the tokenizer has tokens already that are called like those of '{block.name}'")
    return tokenizer


@dataclass(frozen=True)
class Text:
    """A field of what is said of each document, as ids before or after its media.

    Args:
        tokenizer: of transformers.
        field: name of the field.
        place: "before" the media, or "after" them and then the tokenizer's end-of-text id.

    Raises:
        InputError: text after the media and a tokenizer without such an id.
    """

    tokenizer: Any
    field: str
    place: Place

    def __post_init__(self) -> None:
        if self.place == "after" and self.tokenizer.eos_token_id is None:
            raise InputError("text after the media must end, and this tokenizer has no eos_token")

    def around(self, document: Document, ids: Ids) -> Ids:
        """A document's ids (L,) with those of its text; as they are where it has no such field."""
        value = (document.about or {}).get(self.field)
        if value is None:
            return ids
        found = self.tokenizer(str(value), add_special_tokens=False).input_ids
        if self.place == "before":
            return np.concatenate([np.array(found, np.int64), ids])
        return np.concatenate([ids, np.array([*found, self.tokenizer.eos_token_id], np.int64)])
