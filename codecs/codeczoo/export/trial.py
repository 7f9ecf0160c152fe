"""One file through one codec at any prefix, beside a baseline that got the same bytes: what the demo shows."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor

from codeczoo.core.errors import InputError
from codeczoo.core.types import Tokens, TokenSpec
from codeczoo.export.batches import Prefix, Runner
from codeczoo.export.evaluate import label, rates_of
from codeczoo.export.judges import JUDGES
from codeczoo.export.judging import Facts, Judge, Networks
from codeczoo.export.media import media_of
from codeczoo.export.sources import Options, Sample
from codeczoo.io import audio, image, tokens, video
from codeczoo.io.files import Found

SHOWN = 64  # codes that are told
PIXELS, PIECE = 400_000_000, 16  # of all frames of a clip; frames that are read at once
SECONDS = {"audio": 120.0, "video": 20.0}  # longer files are not held as a whole, which measuring wants
SUFFIX = {"image": ".png", "audio": ".wav", "video": ".mp4"}


@dataclass(frozen=True)
class Outcome:
    """A file after the codec at one prefix, and after the baseline.

    Args:
        cz: its token file.
        decoded, baseline: media files.
        facts, baseline_facts: bytes, bits and measures by name.
        codes: the first ones of the first stream, as text.
    """

    cz: Path
    decoded: Path
    baseline: Path
    facts: Facts
    baseline_facts: Facts
    codes: str


class Trial:
    """Encodes a file once; any prefix of its tokens can then be looked at.

    Args:
        runner: the codec.
        path: of the file.
        folder: where a folder of its own is made for what is written.

    Raises:
        InputError: a bad file, or one that is longer than SECONDS.
    """

    def __init__(self, runner: Runner, path: Path, folder: Path) -> None:
        self.runner, self.path = runner, path
        spec = runner.codec.spec
        self.media = media_of(runner, Options())
        self.x, self.rate = whole(path, spec)
        self.judge: Judge = JUDGES[spec.media](spec, Networks(), runner.device)
        (sample,) = map(self.media.complete, self.media.encode([Found(path, Path(path.stem))], Prefix()))
        if sample.tokens is None:
            raise InputError(f"{path.name}: {sample.error}")
        self.sample: Sample = sample
        self.rates = prefixes_of(runner)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=folder))

    def at(self, prefix: Prefix, baseline: str) -> Outcome:
        """The file at a prefix, and a baseline of the judge's at the same bytes."""
        assert self.sample.tokens is not None
        media = self.judge.spec.media
        kept = prefix.of(self.sample.tokens)
        name = f"{self.path.stem}-{label(prefix).replace(' ', '-')}"
        cz, decoded = self.folder / f"{name}.cz", self.folder / f"{name}{SUFFIX[media]}"
        fit = None if self.sample.fit is None else self.sample.fit.to_dict()
        total = tokens.write(
            cz, kept, codec=self.runner.name, weights_hash=self.runner.weights_hash, fit=fit,
            attachments=self.sample.attachments,
        )  # fmt: skip
        for done in self.media.decode([Found(cz, Path(name))], Prefix(), lambda _: decoded):
            if done.error:
                raise InputError(f"{cz.name}: {done.error}")
        payload = tokens.read_header(cz).payload_bytes
        total -= sum(map(len, self.sample.attachments.values()))  # the sound of a clip is not what is compared
        x_hat, _ = whole(decoded, self.judge.spec)
        facts = self.judge.sizes(self.x, kept, payload, total) | {"file_bytes": float(total)}
        beside, about = self.judge.baseline(baseline, self.x, payload, total)
        place = self.folder / f"{name}-{baseline}{SUFFIX[media]}"
        self._write(place, beside)
        return Outcome(cz, decoded, place, facts | self._measured(x_hat), about | self._measured(beside), _codes(kept))

    def _measured(self, x_hat: Tensor) -> Facts:
        shape = tuple(slice(0, min(a, b)) for a, b in zip(self.x.shape, x_hat.shape, strict=True))
        with torch.inference_mode():
            return self.judge.measures().of(self.x[shape], x_hat[shape])

    def _write(self, path: Path, x: Tensor) -> None:
        if self.judge.spec.media == "image":
            image.write(path, x)
        elif self.judge.spec.media == "audio":
            audio.write(path, x, int(self.rate))
        else:
            video.write(path, x, self.rate)


def prefixes_of(runner: Runner) -> list[Prefix]:
    """What a slider steps through: every prefix of the codec's first kind, fewest first."""
    spec = runner.codec.spec
    coarse = rates_of(spec)
    (kind, most), *_ = [(name, n) for name, n in vars(coarse[-1]).items() if n is not None] or [("", 0)]
    return [Prefix(**{kind: n}) for n in range(1, most + 1)] if kind else coarse


def whole(path: Path, spec: TokenSpec) -> tuple[Tensor, Fraction]:
    """All of a file, (C, *spatial), sound at the codec's rate; and its samples or frames a second, 0 of a picture.

    Raises InputError for a bad file, or one that is longer than SECONDS.
    """
    if spec.media == "image":
        return image.read(path).float() / 255, Fraction(0)
    about = audio.info(path) if spec.media == "audio" else video.info(path)
    most = SECONDS[spec.media]
    if about.duration is not None and about.duration > most:
        raise InputError(f"{path.name}: {about.duration:.0f} s; at most {most:.0f} s can be looked at here")
    if spec.media == "audio":
        x, rate = audio.read(path, spec.sample_rate)
        return x, Fraction(rate)
    return film(path, most)


def film(path: Path, most: float) -> tuple[Tensor, Fraction]:
    """All frames of a clip and their rate. Raises InputError for one of more than `most` seconds or PIXELS."""
    about, parts = video.info(path), []
    side = about.height * about.width
    for part in video.blocks(path, PIECE):
        parts.append(part)
        frames = sum(one.shape[1] for one in parts)
        if frames > most * about.rate or frames * side > PIXELS:
            most_pixels = f"{most:.0f} s and {PIXELS / 1e6:.0f} megapixels of all frames"
            raise InputError(f"{path.name}: more than can be looked at here, at most {most_pixels}")
    return torch.cat(parts, 1).float() / 255, about.rate


def _codes(kept: Tokens) -> str:
    """The first codes of the first sample, a line for each codebook."""
    lines = [f"{' '.join(map(str, row.flatten()[:SHOWN].tolist()))}" for codes in kept.streams for row in codes[0]]
    return "\n".join(lines)
