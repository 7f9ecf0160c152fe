"""Which class takes which media."""

from codeczoo.export.batches import Runner
from codeczoo.export.clips import Clips
from codeczoo.export.pictures import Pictures
from codeczoo.export.recordings import Recordings
from codeczoo.export.sources import Media, Options

MEDIA: dict[str, type[Media]] = {"image": Pictures, "audio": Recordings, "video": Clips}


def media_of(runner: Runner, options: Options | None = None) -> Media:
    """How files get to this codec and back. Raises InputError for options it lacks."""
    return MEDIA[runner.codec.spec.media](runner, options or Options())
