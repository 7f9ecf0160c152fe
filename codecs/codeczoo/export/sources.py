"""Files to tokens, and .cz files to pictures: one result per file, in order; a bad file is a result with an error."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor

from codeczoo.core.errors import CodeczooError, InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.batches import Prefix, Runner, threaded, windows
from codeczoo.io import image, tokens
from codeczoo.io.files import Found
from codeczoo.io.image import Fit


@dataclass(frozen=True)
class Sample:
    """What became of one file.

    Args:
        found: the file and the name of its output.
        tokens: batch > 1 when the picture was tiled.
        fit: how the picture was brought to the codec's size; None where the codec takes any size.
        x: what the codec sees, (n, C, *spatial); None for files that hold tokens already.
        sha256: of the file, hex.
        error: why there are no tokens, one line; empty when all is well.
    """

    found: Found
    tokens: Tokens | None = None
    fit: Fit | None = None
    x: Tensor | None = None
    sha256: str = ""
    error: str = ""

    @property
    def pieces(self) -> int:
        """How many samples the codec sees; 1 for a bad file, so that windows of bad files end too."""
        return len(self.x) if self.x is not None else self.tokens.batch if self.tokens is not None else 1


def encode_files(
    runner: Runner, files: Iterable[Found], prefix: Prefix, fit: str | None = None
) -> Iterator[Sample]:
    """Pictures to tokens; .cz files of the same codec among them are read, and cut to the prefix.

    Args:
        runner: the codec.
        files: pictures and .cz files.
        prefix: how much of the tokens to keep.
        fit: one of `io.image.MODES`; None is "resize" where the codec has one size.

    Raises:
        InputError: before the first file, for a fit or a prefix that the codec cannot do.
    """
    spec = runner.codec.spec
    check_fit(spec, fit)
    prefix.check(spec)

    def load(found: Found) -> Sample:
        data = found.path.read_bytes()
        digest = sha256(data).hexdigest()
        if found.path.suffix == tokens.SUFFIX:
            return replace(load_tokens(found, data, runner, prefix), sha256=digest)
        x, plan = see(image.read(data), spec, fit)
        return Sample(found, None, plan, x, digest)

    return _stream(runner, files, load, lambda window: _encode(runner, window, prefix))


def _encode(runner: Runner, window: list[Sample], prefix: Prefix) -> Iterator[Sample]:
    pieces = [piece for sample in window if sample.x is not None for piece in sample.x]
    done = iter(runner.encode(pieces, prefix))
    for sample in window:
        if sample.x is not None:
            sample = replace(sample, tokens=Tokens.stack([next(done) for _ in sample.x]))
        yield sample


def decode_files(runner: Runner, files: Iterable[Found], prefix: Prefix) -> Iterator[Sample]:
    """.cz files to pictures: `x` of each sample is what the codec decoded, before `unfit`.

    Raises:
        InputError: before the first file, for a prefix that the codec cannot do.
    """
    prefix.check(runner.codec.spec)

    def load(found: Found) -> Sample:
        return load_tokens(found, found.path.read_bytes(), runner, prefix)

    return _stream(runner, files, load, lambda window: _decode(runner, window))


def _decode(runner: Runner, window: list[Sample]) -> Iterator[Sample]:
    pieces = [s.tokens[i] for s in window if s.tokens is not None for i in range(s.tokens.batch)]
    done = iter(runner.decode(pieces))
    for s in window:
        yield s if s.tokens is None else replace(s, x=torch.stack([next(done) for _ in range(s.tokens.batch)]))


def _stream(
    runner: Runner,
    files: Iterable[Found],
    load: Callable[[Found], Sample],
    work: Callable[[list[Sample]], Iterator[Sample]],
) -> Iterator[Sample]:
    # Pictures of all sizes batch only with their like, so look at more of them at once.
    most = runner.batch if runner.codec.spec.input_size else 4 * runner.batch
    for window in windows(threaded(files, guarded(load), 2 * most), lambda w: sum(s.pieces for s in w) >= most):
        yield from work(window)


def picture(sample: Sample) -> Tensor:
    """A decoded sample at the original size, (3, H, W)."""
    assert sample.x is not None
    return sample.x[0] if sample.fit is None else image.unfit(sample.x, sample.fit)


def see(pixels: Tensor, spec: TokenSpec, fit: str | None) -> tuple[Tensor, Fit | None]:
    """A picture, uint8 (3, H, W), as the codec sees it: (n, 3, h, w) in [0, 1]."""
    if spec.input_size is None:
        return pixels[None].float() / 255, None
    height, width = spec.input_size
    return image.fit(pixels, (height, width), fit or "resize")


def check_fit(spec: TokenSpec, fit: str | None) -> None:
    """Raises InputError for a codec that takes no pictures, or a fit where there is nothing to fit."""
    if spec.media != "image":
        raise InputError(f"this codec takes {spec.media}; only image files can be read so far")
    if spec.input_size is None and fit is not None:
        raise InputError(f"--fit {fit}: this codec takes pictures of any size, nothing is to be fitted")


def load_tokens(found: Found, data: bytes, runner: Runner, prefix: Prefix) -> Sample:
    """The tokens of a .cz file, cut to a prefix. Raises FormatError, also for tokens of another codec."""
    file = tokens.read(data)
    tokens.check_codec(file.header, runner.name, runner.weights_hash)
    plan = None if file.header.fit is None else Fit.from_dict(file.header.fit)
    return Sample(found, prefix.of(file.tokens), plan)


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
