"""What all export formats share: the header, the documents, how an export appears whole, how it is read back."""

import json
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import codeczoo
from codeczoo.core.config import build
from codeczoo.core.errors import CodeczooError, FormatError, InputError, MissingError, WeightsError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export import FORMATS
from codeczoo.export.batches import Runner
from codeczoo.export.patterns import Ids, Pattern, grid_of, sizes_of
from codeczoo.export.plan import PLAN
from codeczoo.export.sources import Sample, fit_of
from codeczoo.io.audio_fit import AudioFit
from codeczoo.io.fit import Fit
from codeczoo.io.video_fit import VideoFit

VERSION = 1
HEADER = "header.json"


@dataclass(frozen=True)
class Document:
    """One exported file.

    Args:
        id: its path below the input folder, without suffix.
        size: of each sample as the codec got it: (H, W), samples, or (T, H, W); see `patterns.sizes_of`. (): not known.
        grid: sizes of the position axes, see `patterns.grid_of`. (): not known.
        fit: how the media was fitted to the codec; None where there was nothing to do.
        sha256: of the input file's bytes, hex.
        gains: of each window of the first sample, then of the next, where the codec's tokens have gains.
        about: what is said of the file beside it, e.g. in a manifest: plain values by name; None where nothing is.
    """

    id: str
    size: tuple[int, ...]
    grid: tuple[int, ...]
    fit: Fit | AudioFit | VideoFit | None
    sha256: str
    gains: tuple[float, ...] | None = None
    about: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` is the inverse."""
        fit = None if self.fit is None else self.fit.to_dict()
        about = {"id": self.id, "size": [*self.size], "grid": [*self.grid], "fit": fit, "sha256": self.sha256}
        extras = {"gains": self.gains and [*self.gains], "about": self.about}
        return about | {key: value for key, value in extras.items() if value is not None}

    @staticmethod
    def from_dict(values: dict[str, Any], media: str) -> "Document":
        """Raises FormatError when `values` is not what `to_dict` made."""
        try:
            gains = None if values.get("gains") is None else tuple(map(float, values["gains"]))
            size, grid = tuple(values["size"]), tuple(values["grid"])
            fit = fit_of(values["fit"], media)
            return Document(values["id"], size, grid, fit, values["sha256"], gains, values.get("about"))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not a document of an export: {error}") from None


class Writer(ABC):
    """Writes documents into a folder that nobody reads yet.

    Args:
        folder: exists and is empty.
        dtype: from `dtype_for`.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self.dtype = folder, dtype
        self.documents = self.tokens = 0
        self._inputs = sha256()

    def add(self, document: Document, ids: Ids) -> None:
        """Appends one document, ids (L,) or (rows, L)."""
        self.documents += 1
        self.tokens += ids.size
        self._inputs.update(f"{document.sha256} {document.id}\n".encode())
        self._add(document, ids.T)

    def close(self, header: dict[str, Any]) -> dict[str, Any]:
        """Finishes all files; returns the header with the counts, which also stands in header.json."""
        counts = {"dtype": self.dtype, "documents": self.documents, "tokens": self.tokens}
        header = header | counts | {"inputs_sha256": self._inputs.hexdigest()}
        self._close(json.dumps(header))
        (self.folder / HEADER).write_text(json.dumps(header, indent=2) + "\n")
        return header

    @staticmethod
    def dtype_for(vocab_size: int, wanted: str = "auto") -> str:
        """As the function; formats that lack a type refuse it, or choose another."""
        return dtype_for(vocab_size, wanted)

    @abstractmethod
    def _add(self, document: Document, ids: Ids) -> None:
        """Appends ids (L,) or (L, rows): step by step."""

    @abstractmethod
    def _close(self, header: str) -> None: ...


class Reader(ABC):
    """An export, read back: documents by number, lazily.

    Args:
        folder: of the export.
        header: content of its header.json.
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self.folder, self.header = folder, header
        self.pattern = pattern_of(header)
        self.spec = self.pattern.spec

    def __len__(self) -> int:
        return int(self.header["documents"])

    def ids(self, i: int) -> NDArray[Any]:
        """Ids of document i, (L,) or (rows, L) as the pattern has it, in the type they are stored in."""
        return self._in_rows(i, self._ids(self._number(i)))

    def _in_rows(self, i: int, ids: NDArray[Any]) -> NDArray[Any]:
        """Ids of document i, step by step, as the pattern has them."""
        rows = self.pattern.rows
        if rows is None:
            return ids
        if len(ids) % rows:
            raise FormatError(f"{self.folder}: document {i}: {len(ids)} ids are no steps of {rows} each")
        return ids.reshape(-1, rows).T  # (L * K,) -> (K, L)

    def __iter__(self) -> Iterator[tuple[Document, NDArray[Any]]]:
        """All documents with their ids, in order."""
        return ((self.document(i), self.ids(i)) for i in range(len(self)))

    @abstractmethod
    def _ids(self, i: int) -> NDArray[Any]:
        """All ids of document i >= 0, step by step."""

    @abstractmethod
    def document(self, i: int) -> Document:
        """What is known of document i besides its ids."""

    def tokens(self, i: int) -> Tokens:
        """Document i as the tokens that were exported: `codec.decode(reader.tokens(i))`."""
        return self.tokens_of(self.document(i), self.ids(i))

    def without_text(self, ids: NDArray[Any]) -> Ids:
        """A document's ids without those of its text, where it has one, int64."""
        return without_text(ids, self.pattern, bool(self.header.get("text")))

    def tokens_of(self, document: Document, ids: NDArray[Any]) -> Tokens:
        """A document as the tokens that were exported. Raises FormatError."""
        try:
            tokens = self.pattern.tokens(self.without_text(ids), document.size or None, document.grid or None)
            if isinstance(document.fit, VideoFit) and document.fit.rate is not None:
                tokens = replace(tokens, sample_rate=float(document.fit.rate))
            if document.gains is None:
                return tokens
            return replace(tokens, gains=torch.tensor(document.gains).view(tokens.batch, -1))  # (B, windows)
        except (CodeczooError, RuntimeError) as error:
            raise FormatError(f"{self.folder}: document {document.id}: {error}") from None

    def check_codec(self, weights_hash: str) -> None:
        """Raises WeightsError unless these are the weights that the tokens were made with."""
        if weights_hash != self.header["weights_hash"]:
            made = f"{self.header['codec']} (weights {self.header['weights_hash']})"
            raise WeightsError(f"{self.folder} was made with {made}, not with weights {weights_hash}")

    def _number(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        return i % len(self)


def header_of(runner: Runner, pattern: Pattern, format_: str) -> dict[str, Any]:
    """Everything of the header that is known before the first document."""
    return {
        "version": VERSION,
        "codeczoo": codeczoo.__version__,
        "format": format_,
        "codec": runner.name,
        "weights_hash": runner.weights_hash,
        "spec": pattern.spec.to_dict(),
    } | ids_of(pattern)


def pattern_of(header: dict[str, Any]) -> Pattern:
    """The pattern of an export. Raises FormatError, ConfigError for a header that is none."""
    spec = TokenSpec.from_dict(header["spec"])
    pattern: Pattern = build(header["pattern"] | {"spec": spec}, allow=("codeczoo.export.patterns.",))
    return pattern


def without_text(ids: NDArray[Any], pattern: Pattern, has_text: bool) -> Ids:
    """Ids without those of text, int64: text lies below all codes."""
    return (ids[ids >= pattern.vocabulary.offset] if has_text else ids).astype(np.int64)


def ids_of(pattern: Pattern) -> dict[str, Any]:
    """What the header says of the ids."""
    vocabulary = pattern.vocabulary
    return {
        "pattern": pattern.to_dict(),
        "vocab_size": vocabulary.size,
        "codebooks": vocabulary.codebooks(),
        "special_ids": vocabulary.special,
        "rows": pattern.rows,
    }


def dtype_for(vocab_size: int, wanted: str = "auto") -> str:
    """`wanted`, or for "auto" the smaller of uint16 and uint32 that holds every id. Raises InputError if none does."""
    if wanted == "auto":
        wanted = "uint16" if vocab_size <= 2**16 else "uint32"
    most = int(np.iinfo(wanted).max) + 1
    if vocab_size > most:
        raise InputError(f"{wanted} holds ids below {most}, this vocabulary has {vocab_size}")
    return wanted


@contextmanager
def atomic_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a hidden empty sibling folder; it becomes `path` when the block succeeds, else it goes.

    Raises:
        InputError: `path` is there already and not to be overwritten, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another folder or give --overwrite")
    if path.exists() and not (path / HEADER).is_file():
        raise InputError(f"{path} exists and is no export; it is not overwritten")
    temporary, old = (path.parent / f".{secrets.token_hex(8)}.{kind}" for kind in ("partial", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read(path: str | Path) -> Reader:
    """Opens an export of any format. Raises InputError, FormatError."""
    folder = Path(path)
    try:
        header = json.loads((folder / HEADER).read_text())
        version, format_ = header["version"], header["format"]
    except (FileNotFoundError, NotADirectoryError):
        begun = (folder / PLAN).is_file()
        why = "this export is not finished: --resume goes on" if begun else "no export here"
        raise InputError(f"{folder}: {why} (no {HEADER})") from None
    except (ValueError, KeyError, TypeError):
        raise FormatError(f"{folder / HEADER}: not the header of an export") from None
    if version != VERSION or format_ not in FORMATS:
        raise FormatError(
            f"{folder}: export of version {version}, format {format_}; this codeczoo reads "
            f"version {VERSION}, formats {', '.join(FORMATS)}"
        )
    reader: Reader = format_module(format_).Reader(folder, header)
    return reader


def format_module(format_: str) -> ModuleType:
    """The module with Writer and Reader of a format. Raises MissingError where a package that it needs is not there."""
    try:
        return import_module(f"codeczoo.export.{format_}")
    except ModuleNotFoundError as error:
        raise MissingError(f'format {format_} needs {error.name}: pip install "codeczoo[export]"') from None


def document_of(sample: Sample, about: dict[str, Any] | None = None) -> Document:
    """What is recorded of an encoded file, of which `about` was said."""
    assert sample.tokens is not None
    size, grid = tuple(sizes_of(sample.tokens)), tuple(grid_of(sample.tokens))
    gains = None if sample.tokens.gains is None else tuple(sample.tokens.gains.flatten().tolist())
    return Document(sample.found.stem.as_posix(), size, grid, sample.fit, sample.sha256, gains, about)
