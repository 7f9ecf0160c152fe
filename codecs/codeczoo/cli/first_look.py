"""The first part of `codeczoo quickstart`: the codecs that come with the package, on media made here."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from codeczoo.cli import common
from codeczoo.core.places import DEFAULTS, shipped

SEED, NUMBER = 0, 1_000_000_003  # of what is made; training draws numbers below 10^9
SIDE, RATE, SECONDS, FRAMES, FRAME_RATE = 256, 24000, 4, 25, 12
NEEDS = {"image": (), "audio": ("soundfile", "soxr"), "video": ("av",)}


def first_look(out: Path, step: Callable[..., None]) -> None:
    """Encodes and decodes a picture, a sound and a clip, as far as their codecs and libraries are here, and measures.

    Args:
        out: folder that everything goes to.
        step: prints and runs a command.
    """
    able = [m for m, name in DEFAULTS.items() if name in shipped() and all(map(find_spec, NEEDS[m]))]
    if not able:
        return
    files = [make(media, out / "media") for media in able]
    step("encode", out / "media", "-o", out / "media_tokens", "--overwrite")
    step("decode", out / "media_tokens", "-o", out / "media_decoded", "--overwrite")
    common.say("")
    rows = [row(media, file, out) for media, file in zip(able, files, strict=True)]
    common.table(("file", "codec", "bytes of the file", "bytes of .cz", "quality"), rows)
    for media in DEFAULTS.keys() - set(able):
        common.say(f"no {media}: it wants {' and '.join(NEEDS[media]) or DEFAULTS[media]}")


def make(media: str, folder: Path) -> Path:
    """Writes a generated picture, sound or clip."""
    if media == "image":
        from codeczoo.data.pictures import generated_picture
        from codeczoo.io import image

        path = folder / "picture.png"
        image.write(path, generated_picture(SEED, NUMBER, SIDE))
    elif media == "audio":
        from codeczoo.data.sounds import generated_sound
        from codeczoo.io import audio

        path = folder / "sound.wav"
        audio.write(path, generated_sound(SEED, NUMBER, RATE, SECONDS * RATE), RATE)
    else:
        from codeczoo.data.films import generated_film
        from codeczoo.io import video

        path = folder / "clip.mp4"
        film = generated_film(SEED, NUMBER, SIDE // 2, FRAMES, FRAME_RATE)
        video.write(path, film, FRAME_RATE)
    return path


def row(media: str, file: Path, out: Path) -> dict[str, Any]:
    """A line of the table."""
    coded = out / "media_tokens" / f"{file.stem}.cz"
    sizes = {"bytes of the file": file.stat().st_size, "bytes of .cz": coded.stat().st_size}
    return {"file": file.name, "codec": DEFAULTS[media], **sizes, "quality": quality(media, file, out)}


def quality(media: str, file: Path, out: Path) -> str:
    """How near the decoded file is."""
    from codeczoo.io import audio, image, video
    from codeczoo.metrics.image import psnr

    decoded = next((out / "media_decoded").glob(f"{file.stem}.*"))
    if media == "audio":
        from codeczoo.metrics.audio import mel_distance

        (x, rate), (x_hat, _) = audio.read(file), audio.read(decoded)
        return f"mel distance {mel_distance(x[None], x_hat[None], rate).item():.2f}"
    if media == "image":
        pair = [image.read(path)[None].float() / 255 for path in (file, decoded)]
    else:
        pair = [video.read(path).transpose(0, 1).float() / 255 for path in (file, decoded)]
    return f"PSNR {psnr(*pair).mean():.1f} dB"
