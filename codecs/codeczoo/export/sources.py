"""Files to tokens and back: what is the same for all media. One result per file, in order; a bad one has an error."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from codeczoo.core.errors import CodeczooError, InputError
from codeczoo.core.types import Tokens
from codeczoo.export.batches import WINDOW, Prefix, Runner, threaded
from codeczoo.io import tokens
from codeczoo.io.audio_fit import AudioFit
from codeczoo.io.files import Found
from codeczoo.io.fit import Fit
from codeczoo.io.target import Target
from codeczoo.io.video_fit import VideoFit


@dataclass(frozen=True)
class Sample:
    """What became of one file.

    Args:
        found: the file and the name of its output.
        tokens: batch > 1 when a picture was tiled, or the channels of a recording were coded one by one.
        fit: how the media was brought to what the codec takes; None where there was nothing to do.
        attachments: what goes with the tokens into their file: the sound of a clip.
        x: what the codec sees, (n, C, *spatial); None where nobody wants it or it is too long to be held.
        target: what the length of the tokens was chosen for.
        sha256: of the file, hex.
        error: why there are no tokens, one line; empty when all is well.
    """

    found: Found
    tokens: Tokens | None = None
    fit: Fit | AudioFit | VideoFit | None = None
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    x: Tensor | None = None
    target: Target | None = None
    sha256: str = ""
    error: str = ""


@dataclass(frozen=True)
class Options:
    """What the user may choose of how media are taken; None: not chosen.

    Args:
        fit: one of `io.image.MODES`, for pictures.
        window: seconds, for audio codecs that cannot run piece by piece.
        audio: codec for the sound of clips.
        tile: pixels, longest side of what is decoded of a clip's frame at once.
    """

    fit: str | None = None
    window: float | None = None
    audio: Runner | None = None
    tile: int | None = None


class Media(ABC):
    """How one kind of media is read, fitted to the codec, batched and written.

    Args:
        runner: the codec.
        options: what the user chose.

    Raises:
        InputError: an option that is not for this codec.

    Attributes:
        UNIT: what one file of it is called.
        SUFFIXES: of files that are read.
        TOKEN_SUFFIXES: of token files that are read.
        FORMATS: of files that are written, the default first.
    """

    UNIT: ClassVar[str]
    SUFFIXES: ClassVar[tuple[str, ...]]
    TOKEN_SUFFIXES: ClassVar[tuple[str, ...]] = (tokens.SUFFIX,)
    FORMATS: ClassVar[tuple[str, ...]]

    def __init__(self, runner: Runner, options: Options) -> None:
        self.runner, self.options = runner, options

    def encode(self, files: Iterable[Found], prefix: Prefix) -> Iterator[Sample]:
        """Media to tokens; token files of the same codec among them are read, and cut to the prefix.

        Raises InputError before the first file for a prefix that the codec cannot do.
        """
        prefix.check(self.runner.codec.spec)
        return self.encode_loaded(self.loaded(files, prefix), prefix)

    def loaded(self, files: Iterable[Found], prefix: Prefix) -> Generator[Sample, None, None]:
        """The first half of `encode`: files as threads read them, some ahead.

        Token files come with their tokens, short media with x, long ones with neither; all but bad ones with sha256.
        """

        def load(found: Found) -> Sample:
            source = found.source()
            sha256 = digest(source)
            known = found.path.suffix in self.TOKEN_SUFFIXES
            return replace(self.load_tokens(found, prefix) if known else self._load(found, source), sha256=sha256)

        return threaded(files, guarded(load), self._ahead)

    @abstractmethod
    def encode_loaded(self, samples: Iterable[Sample], prefix: Prefix) -> Iterator[Sample]:
        """The second half of `encode`."""

    @property
    def _ahead(self) -> int:
        """How many files are read before they are wanted."""
        return WINDOW * self.runner.batch

    @abstractmethod
    def _load(self, found: Found, source: Path | bytes) -> Sample:
        """A file that holds media: with x, or where that is long without."""

    def complete(self, sample: Sample) -> Sample:
        """A sample that `encode` gave, with what else belongs into its token file: the sound of a clip."""
        return sample

    def original(self, sample: Sample) -> Sample:
        """A sample that `encode` gave, with x, for measuring; x stays None where it is too long: then see `pairs`.

        Raises InputError for what was read from a token file.
        """
        if sample.found.path.suffix in self.TOKEN_SUFFIXES:
            raise InputError("tokens that were in a file have no original that they could be compared with")
        return self._original(sample)

    @abstractmethod
    def _original(self, sample: Sample) -> Sample: ...

    def pairs(self, sample: Sample) -> Iterator[tuple[Tensor, Tensor]]:
        """A long sample that `encode` gave, piece by piece: what the codec saw, and what the tokens decode to.

        Both are (n, C, *spatial), of equal shape.
        """
        raise NotImplementedError  # here, everything can be held

    def joined(self, sample: Sample, x: Tensor) -> Tensor:
        """What is measured of x, or of what its tokens decode to, (n, C, *spatial)."""
        return x

    @abstractmethod
    def clips(self, files: Iterable[Found]) -> Iterator[Sample]:
        """Media for measuring: one piece each, with its tokens and with `x`, held as a whole."""

    def decode(self, files: Iterable[Found], prefix: Prefix, place: Callable[[Found], Path]) -> Iterator[Sample]:
        """Token files to media, each written to where `place` says, in the format that its suffix says.

        Raises InputError before the first file for a prefix that the codec cannot do.
        """
        prefix.check(self.runner.codec.spec)
        return self._decode(files, prefix, place)

    def format_of(self, found: Found) -> str:
        """What a token file is decoded to where nothing else is wished, one of FORMATS."""
        return self.FORMATS[0]

    @abstractmethod
    def _decode(self, files: Iterable[Found], prefix: Prefix, place: Callable[[Found], Path]) -> Iterator[Sample]: ...

    def load_tokens(self, found: Found, prefix: Prefix) -> Sample:
        """A token file, cut to a prefix. Raises FormatError, also for tokens of another codec."""
        context = self.runner.context
        file = tokens.read(found.read(), contexts=[] if context is None else [context])
        tokens.check_codec(file.header, self.runner.name, self.runner.weights_hash)
        fit = fit_of(file.header.fit, file.header.spec.media)
        return Sample(found, prefix.of(file.tokens), fit, file.attachments)


def contents(runner: Runner, sample: Sample) -> bytes:
    """The token file of an encoded sample. Raises InputError where there can be none."""
    assert sample.tokens is not None
    return tokens.dumps(
        sample.tokens,
        codec=runner.name,
        weights_hash=runner.weights_hash,
        fit=None if sample.fit is None else sample.fit.to_dict(),
        attachments=sample.attachments,
        target=sample.target,
        context=runner.context,
    )


def fit_of(values: dict[str, object] | None, media: str) -> Fit | AudioFit | VideoFit | None:
    """How media were fitted, from the plain values in a header. Raises FormatError."""
    kinds: dict[str, type[Fit] | type[AudioFit] | type[VideoFit]] = {
        "image": Fit, "audio": AudioFit, "video": VideoFit
    }  # fmt: skip
    return None if values is None else kinds[media].from_dict(values)


def digest(source: Path | bytes) -> str:
    """SHA-256 of a file or of its content, hex, without holding the file."""
    if isinstance(source, bytes):
        return sha256(source).hexdigest()
    with source.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def guarded(load: Callable[[Found], Sample]) -> Callable[[Found], Sample]:
    """`load` whose failures become a sample with an error."""

    def run(found: Found) -> Sample:
        try:
            return load(found)
        except CodeczooError as error:
            return Sample(found, error=str(error))
        except OSError as error:
            return Sample(found, error=error.strerror or str(error))

    return run


def refuse(option: str, value: object, why: str) -> None:
    """Raises InputError for an option that was given."""
    if value is not None:
        raise InputError(f"--{option} {value}: {why}")


def refuse_clips(options: Options) -> None:
    """Raises InputError for options that are for clips."""
    refuse("audio", None if options.audio is None else options.audio.name, "is for the sound of clips")
    refuse("tile", options.tile, "is for the frames of clips")
