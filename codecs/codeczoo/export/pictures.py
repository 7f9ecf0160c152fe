"""Pictures to tokens and back, in batches of equal size."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.batches import WINDOW, Prefix, Runner, threaded, windows
from codeczoo.export.sources import Media, Options, Sample, guarded, refuse, refuse_clips
from codeczoo.io import image
from codeczoo.io.files import Found
from codeczoo.io.image import Fit


class Pictures(Media):
    """Pictures of any size. Arguments: see Media."""

    UNIT: ClassVar[str] = "pictures"
    SUFFIXES: ClassVar[tuple[str, ...]] = image.SUFFIXES
    FORMATS: ClassVar[tuple[str, ...]] = ("png", "jpg", "webp")

    def __init__(self, runner: Runner, options: Options) -> None:
        super().__init__(runner, options)
        refuse_clips(options)
        refuse("window", options.window, "pictures have no windows in time")
        if runner.codec.spec.input_size is None:
            refuse("fit", options.fit, "this codec takes pictures of any size, nothing is to be fitted")

    @property
    def _together(self) -> int:
        """How many are looked at together: more of them where only those of like size make a batch."""
        return self.runner.batch if self.runner.codec.spec.input_size else WINDOW * self.runner.batch

    @property
    def _ahead(self) -> int:
        return 2 * self._together

    def _load(self, found: Found, source: Path | bytes, fit: str = "resize") -> Sample:
        x, plan = see(image.read(source), self.runner.codec.spec, self.options.fit or fit)
        return Sample(found, None, plan, x=x)

    def encode_loaded(self, samples: Iterable[Sample], prefix: Prefix) -> Iterator[Sample]:
        """See Media."""
        for window in self._windows(samples):
            pieces = [piece for sample in window if sample.x is not None for piece in sample.x]
            done = iter(self.runner.encode(pieces, prefix))
            for sample in window:
                if sample.x is not None:
                    sample = replace(sample, tokens=Tokens.stack([next(done) for _ in sample.x]))
                yield sample

    def _original(self, sample: Sample) -> Sample:
        return sample

    def joined(self, sample: Sample, x: Tensor) -> Tensor:
        """See Media: tiles are blended, as they are in the end; all others are what the codec sees."""
        fit = sample.fit
        return image.unfit(x, fit)[None] if isinstance(fit, Fit) and fit.mode == "tile" else x

    def clips(self, files: Iterable[Found]) -> Iterator[Sample]:
        """See Media: cropped unless another fit was chosen."""

        def load(found: Found) -> Sample:
            return self._load(found, found.source(), "crop")

        return self.encode_loaded(threaded(files, guarded(load), self._ahead), Prefix())

    def _decode(self, files: Iterable[Found], prefix: Prefix, place: Callable[[Found], Path]) -> Iterator[Sample]:
        def load(found: Found) -> Sample:
            return self.load_tokens(found, prefix)

        def write(sample: Sample) -> Sample:
            if sample.x is not None:
                x_hat = sample.x[0] if sample.fit is None else image.unfit(sample.x, _plan(sample))
                image.write(place(sample.found), x_hat)
            return replace(sample, x=None)

        loaded = threaded(files, guarded(load), self._ahead)
        return threaded(self._decoded(loaded), write, 2 * self.runner.batch)

    def _decoded(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for window in self._windows(samples):
            pieces = [s.tokens[i] for s in window if s.tokens is not None for i in range(s.tokens.batch)]
            done = iter(self.runner.decode(pieces))
            for s in window:
                yield s if s.tokens is None else replace(s, x=torch.stack([next(done) for _ in range(s.tokens.batch)]))

    def _windows(self, samples: Iterable[Sample]) -> Iterator[list[Sample]]:
        return windows(samples, lambda window: sum(map(_pieces, window)) >= self._together)


def see(pixels: Tensor, spec: TokenSpec, fit: str) -> tuple[Tensor, Fit | None]:
    """A picture, uint8 (3, H, W), as the codec sees it: (n, 3, h, w) in [0, 1]."""
    if spec.input_size is None:
        return pixels[None].float() / 255, None
    height, width = spec.input_size
    return image.fit(pixels, (height, width), fit)


def _pieces(sample: Sample) -> int:
    """How many samples the codec sees; 1 for a bad file, so that windows of bad files end too."""
    return len(sample.x) if sample.x is not None else sample.tokens.batch if sample.tokens is not None else 1


def _plan(sample: Sample) -> Fit:
    assert isinstance(sample.fit, Fit)
    return sample.fit
