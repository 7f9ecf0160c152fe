"""An export written again: in another format, with other ids, shorter, or with text."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from codeczoo.core.errors import InputError
from codeczoo.core.types import Prefix as Kind
from codeczoo.core.types import Tokens
from codeczoo.export import card
from codeczoo.export.dataset import Document, Reader, format_module, ids_of
from codeczoo.export.patterns import Ids, Pattern, grid_of
from codeczoo.export.statistics import Statistics
from codeczoo.export.text import Text


@dataclass(frozen=True)
class Vary:
    """A prefix of its own for each document.

    Args:
        kind: "positions", "codebooks" or "streams".
        low, high: the number is drawn between them, both counted, by the document's SHA-256: the same in every run.
        field: or it is this field of what is said of the document; low and high are not read then.
    """

    kind: Kind
    low: int = 1
    high: int = 1
    field: str | None = None

    def of(self, tokens: Tokens, document: Document) -> Tokens:
        """The prefix. Documents that are shorter stay whole. Raises InputError."""
        wanted = self._wanted(document)
        axis = {"positions": tokens.streams[0].shape[2], "codebooks": max(c.shape[1] for c in tokens.streams)}
        return tokens.prefix(**{self.kind: min(wanted, axis.get(self.kind, len(tokens.streams)))})

    def _wanted(self, document: Document) -> int:
        if self.field is None:
            return self.low + int(document.sha256[:15], 16) % (self.high - self.low + 1)
        value = (document.about or {}).get(self.field)
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{document.id}: its '{self.field}' must be a whole number of at least 1, got {value!r}")
        return value


@dataclass(frozen=True)
class Change:
    """What becomes different; None: nothing of it.

    Args:
        pattern: new ids.
        vary: how much is kept of each document.
        text: ids of text around those of the media. Raises InputError for a pattern of several rows.
    """

    pattern: Pattern | None = None
    vary: Vary | None = None
    text: Text | None = None

    def header(self, reader: Reader) -> dict[str, Any]:
        """The header of what it makes of an export. Raises InputError where that cannot be."""
        header = reader.header | ({} if self.pattern is None else ids_of(self.pattern))
        if self.text is not None and header["rows"] is not None:
            raise InputError("text needs a pattern of one row: flat, layer-major or frame-major")
        if self.vary is not None:
            header["vary"] = asdict(self.vary)
            if self.vary.field is None:  # no document has more than both say
                kept, most = header.get("prefix") or {}, self.vary.high
                header["prefix"] = kept | {self.vary.kind: min(most, kept.get(self.vary.kind) or most)}
        if self.text is not None:
            header["text"] = {"field": self.text.field, "place": self.text.place}
        elif self.rewrites and header.pop("text", None) is not None:
            raise InputError(f"{reader.folder}: its ids have text among them; say anew which, or take one without")
        return header

    @property
    def rewrites(self) -> bool:
        """Whether ids are made anew."""
        return self != Change()

    def of(self, reader: Reader) -> Iterator[tuple[Document, Ids]]:
        """The documents of an export with their new ids. Raises InputError in the end where none of them has text."""
        if not self.rewrites:
            yield from reader
            return
        pattern, texts = self.pattern or reader.pattern, 0
        for document, ids in reader:
            if self.pattern is None and self.vary is None:
                media = reader.without_text(ids)
            else:
                tokens = reader.tokens_of(document, ids)
                tokens = tokens if self.vary is None else self.vary.of(tokens, document)
                document, media = replace(document, grid=tuple(grid_of(tokens))), pattern.ids(tokens)
            whole = media if self.text is None else self.text.around(document, media)
            texts += len(whole) > len(media)
            yield document, whole
        if self.text is not None and not texts:
            raise InputError(f"no document says a '{self.text.field}'")


def derive(
    documents: Iterable[tuple[Document, Ids]], header: dict[str, Any], folder: Path, format_: str, dtype: str
) -> dict[str, Any]:
    """Writes documents into an empty folder as an export, with its card; returns its header.

    Args:
        documents: with their ids.
        header: that belongs to them, e.g. from `Change.header`.
        folder: exists and is empty.
        format_: one of codeczoo.export.FORMATS.
        dtype: from the format's `Writer.dtype_for`.
    """
    writer, found = format_module(format_).Writer(folder, dtype), Statistics(header)
    for document, ids in documents:
        writer.add(document, ids)
        found.add(document, ids)
    closed: dict[str, Any] = writer.close(header | {"format": format_})
    card.write(folder, closed, found)
    return closed
