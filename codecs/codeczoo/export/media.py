"""Which class takes which media."""

from codeczoo.core.errors import InputError
from codeczoo.export.batches import Runner
from codeczoo.export.pictures import Pictures
from codeczoo.export.recordings import Recordings
from codeczoo.export.sources import Media, Options

MEDIA: dict[str, type[Media]] = {"image": Pictures, "audio": Recordings}


def media_of(runner: Runner, options: Options | None = None) -> Media:
    """How files get to this codec and back. Raises InputError for media without a class, and for options it lacks."""
    media = runner.codec.spec.media
    if media not in MEDIA:
        raise InputError(f"this codec takes {media}; files of {' and '.join(MEDIA)} can be read so far")
    return MEDIA[media](runner, options or Options())
