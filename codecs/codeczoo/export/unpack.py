"""Documents of an export as token files, which `codeczoo decode` makes media of."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from codeczoo.core.errors import FormatError
from codeczoo.export.dataset import Document, Reader
from codeczoo.io import tokens
from codeczoo.io.files import Found


def unpack(reader: Reader, numbers: Iterable[int]) -> Iterator[Found]:
    """Token files that lie inside an export; the stem of each is the document's id.

    Raises FormatError for an id that is no relative path, so that nothing is ever written beside the output folder.
    """
    for i in numbers:
        document = reader.document(i)
        stem = PurePosixPath(document.id)
        if stem.is_absolute() or ".." in stem.parts or not stem.name:
            raise FormatError(f"{reader.folder}: document {i}: '{document.id}' is no relative path")
        path = reader.folder / stem.with_name(stem.name + tokens.SUFFIX)
        yield Found(path, Path(stem), partial(_token_file, reader, document, i))


def _token_file(reader: Reader, document: Document, i: int) -> bytes:
    fit = None if document.fit is None else document.fit.to_dict()
    codes, header = reader.tokens_of(document, reader.ids(i)), reader.header
    return tokens.dumps(codes, codec=header["codec"], weights_hash=header["weights_hash"], fit=fit)
