"""Which codec takes which files where none is named: the shipped one for pictures, recordings or videos."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from codeczoo.core.errors import InputError
from codeczoo.core.places import DEFAULTS, shipped

if TYPE_CHECKING:
    from codeczoo.io.files import Found

UNITS = {"image": "pictures", "audio": "recordings", "video": "videos"}


def suffixes() -> list[str]:
    """Of all files that some codec takes."""
    return sorted({suffix for own in _by_suffix().values() for suffix in own})


def _by_suffix() -> dict[str, tuple[str, ...]]:
    from codeczoo.io import audio, image, video

    return {"image": image.SUFFIXES, "audio": audio.SUFFIXES, "video": video.SUFFIXES}


def by_media(paths: Sequence[str]) -> "dict[str, list[Found]]":
    """The files that paths mean, as `divided`. Raises InputError."""
    from codeczoo.io.files import find

    return divided(find(paths, suffixes()))


def divided(files: "Iterable[Found]") -> "dict[str, list[Found]]":
    """The files of each media, by their suffixes; a .gif that moves is a video. Raises InputError."""
    kinds = _by_suffix()
    found: dict[str, list[Found]] = {media: [] for media in kinds}
    for one in files:
        media = next((media for media, own in kinds.items() if one.path.suffix.lower() in own), None)
        if one.path.suffix.lower() == ".gif" and moves(one):
            media = "video"
        if media is None:
            raise InputError(f"{one.path}: no picture, recording or video by its name; if it is one, name a --codec")
        found[media].append(one)
    return found


def moves(found: "Found") -> bool:
    """Whether a picture has several frames; no where it cannot be read, which is told when it is its turn."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(found.read())) as opened:
            return bool(getattr(opened, "n_frames", 1) > 1)
    except (OSError, UnidentifiedImageError):
        return False


def default(media: str) -> str:
    """Name of the shipped codec for a media. Raises InputError where the weights are not there."""
    name = DEFAULTS[media]
    if name not in shipped():
        raise InputError(f"no codec for {UNITS[media]} is shipped here: name one with --codec")
    return name


def chosen(paths: Sequence[str]) -> "list[tuple[str, list[Found]]]":
    """Names of shipped codecs and the files for each. Raises InputError."""
    return [(default(media), files) for media, files in by_media(paths).items() if files]


def only(paths: Sequence[str], column: str | None = None) -> str:
    """Name of the one shipped codec that takes all inputs of an export. Raises InputError, as `only_for`."""
    from codeczoo.export.inputs.listing import inputs

    return only_for(one.found() for one in inputs(paths, suffixes(), column))


def only_for(files: "Iterable[Found]") -> str:
    """Name of the one shipped codec that takes all of the files. Raises InputError for files of several media."""
    found = [media for media, own in divided(files).items() if own]
    if len(found) > 1:
        kinds = " and ".join(UNITS[media] for media in found)
        raise InputError(f"{kinds} want a codec each: give them one by one, or name a --codec")
    return default(found[0])
