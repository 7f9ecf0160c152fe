"""The sound of clips in their token files: packets as they were, or tokens of an audio codec."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from codeczoo import zoo
from codeczoo.core.errors import InputError
from codeczoo.export.batches import Prefix, Runner
from codeczoo.export.recordings import Recordings
from codeczoo.export.sources import Options, Sample, contents
from codeczoo.io import sound, tokens
from codeczoo.io.files import Found
from codeczoo.io.video_fit import VideoFit

TOKENS = "sound.cz"  # name of the attachment


class Soundtracks:
    """Sound out of clips into token files, and back.

    Args:
        runner: of the clips; codecs of sound run as it does.
        audio: codec that makes tokens of sound, and reads them; None: packets are kept, and the codec that a token file
            names is opened.

    Raises:
        InputError: a codec of other media.
    """

    def __init__(self, runner: Runner, audio: Runner | None) -> None:
        self.runner = runner
        self.recordings = None if audio is None else Recordings(audio, Options())

    def taken(self, path: Path, fit: VideoFit) -> tuple[VideoFit, dict[str, bytes]]:
        """The sound of a clip as an attachment, if it has any, and what the clip was by the clock of that sound.

        Raises InputError for sound that cannot be read.
        """
        begin = None if fit.rate is None else sound.begin(path)
        if begin is None:
            return replace(fit, start=Fraction(0)), {}
        if self.recordings is None:
            name, data = sound.copied(path)
            return fit, {name: data}
        sample = _done(next(self.recordings.encode([Found(path, Path(path.stem))], Prefix())))
        return replace(fit, start=fit.start - begin), {TOKENS: contents(self.recordings.runner, sample)}

    @contextmanager
    def given(
        self, attachments: Mapping[str, bytes], fit: VideoFit, suffix: str, whole: bool
    ) -> Iterator[sound.Track | None]:
        """The sound for a clip; None where there is none, or its format holds none.

        Args:
            attachments: of the token file.
            fit: what the clip was.
            suffix: of the file that is written.
            whole: whether all its frames are, not only the first.

        Raises:
            InputError: tokens of sound whose codec is not there.
        """
        packets = [data for name, data in attachments.items() if name in sound.CONTAINERS]
        if suffix not in sound.ENCODERS or not (packets or TOKENS in attachments):
            yield None
        elif packets:
            yield sound.Track(packets[0], fit.start, whole)
        else:
            with TemporaryDirectory() as folder:
                yield sound.Track(self._decoded(attachments[TOKENS], Path(folder), suffix), fit.start, whole)

    def _decoded(self, data: bytes, folder: Path, suffix: str) -> Path:
        """Sound from tokens, as a file in the folder whose packets suit a clip of that suffix."""
        found, recording = Found(folder / TOKENS, Path("sound")), folder / "sound.wav"
        found.path.write_bytes(data)
        if self.recordings is None:
            self.recordings = self._opened(tokens.read_header(data).codec)
        _done(next(self.recordings.decode([found], Prefix(), lambda _: recording)))
        coded = folder / f"coded{'.mp4' if suffix == '.mp4' else '.mka'}"
        sound.encode(recording, coded, suffix)
        return coded

    def _opened(self, name: str) -> Recordings:
        try:
            codec = zoo.load(name)
        except InputError as error:
            raise InputError(f"its sound was made by a codec that --audio may name: {error}") from None
        weights_hash = zoo.weights_hash(codec)
        runner = replace(self.runner, codec=codec.to(self.runner.device), name=name, weights_hash=weights_hash)
        return Recordings(runner, Options())


def _done(sample: Sample) -> Sample:
    """The sample. Raises InputError where it has an error."""
    if sample.error:
        raise InputError(f"its sound: {sample.error}")
    return sample
