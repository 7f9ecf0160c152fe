"""Samples out of tar shards: the files of one sample share their name up to the first dot."""

import json
import random
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from logging import getLogger
from pathlib import PurePath
from typing import Any

import torch

from codeczoo.core.errors import CodeczooError, FormatError, InputError, MissingError
from codeczoo.data.media import Media, Tally
from codeczoo.data.samples import Sample

try:
    import webdataset as wds
    from webdataset.shardlists import expand_urls
except ImportError:
    raise MissingError('tar shards want webdataset: pip install "codeczoo[train]"') from None

log = getLogger(__name__)
NAMED = 10  # unusable samples that each worker names in the log; the others are only counted


class ShardReader:
    """Shards to samples, and the count of what could not be used.

    Args:
        shards: files or URLs.
        media: how a file becomes x.
        text: where the caption is: "txt", or "json.FIELD"; None reads none.
        workers: that will read, 0 for the training process itself.
    """

    def __init__(self, shards: list[str], media: Media, text: str | None, workers: int) -> None:
        self.shards, self.media, self.text = shards, media, text
        self.tally = Tally(workers)

    @property
    def skipped(self) -> int:
        """Samples and damaged shards that could not be used so far; counted again each time they come by."""
        return self.tally.total

    def raw(self, shard: str) -> Iterator[dict[str, Any]]:
        """The undecoded samples of one shard, up to where it is damaged. Raises InputError when it cannot be opened.

        A shard that was cut exactly between two files looks whole: tar archives do not say how long they are.
        """
        try:
            yield from wds.tarfile_to_samples()([{"url": shard}])
        except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
            self.skip(f"the rest of shard {shard} is damaged ({error.args[0] if error.args else error})")
        except OSError as error:
            raise InputError(f"cannot read shard {shard}: {error.args[0] if error.args else error}") from None

    def shuffled(self, shards: list[str], buffer: int, seed: str) -> Iterator[dict[str, Any]]:
        """The undecoded samples of `shards`, each drawn from the next `buffer` ones."""
        samples = (sample for shard in shards for sample in self.raw(shard))
        return wds.shuffle(buffer, rng=random.Random(seed))(samples)

    def load(self, raw: dict[str, Any], random_stream: torch.Generator, media: Media) -> Sample | None:
        """Decodes one sample by `media`, which is the reader's or that of a batch; None, counted, when it cannot."""
        try:
            data = content(raw, media.suffixes)
            sample: Sample = {"x": media(data, random_stream), "key": raw["__key__"]}
            if self.text is not None:
                sample["text"] = caption(raw, self.text)
            return sample
        except CodeczooError as error:
            self.skip(f"sample {raw.get('__key__')} in {raw.get('__url__')}: {error}")
            return None

    def skip(self, what: str) -> None:
        """Counts, and names the first ones."""
        if self.tally.add() <= NAMED:
            log.warning("skipped: %s", what)


def expand(urls: str | list[str]) -> list[str]:
    """Shards in order, braces expanded."""
    return [shard for url in ([urls] if isinstance(urls, str) else urls) for shard in expand_urls(url)]


def content(raw: dict[str, Any], suffixes: Sequence[str]) -> bytes:
    """The bytes of the file in a sample that ends in one of `suffixes`. Raises FormatError when there is none."""
    for suffix, data in raw.items():
        if not suffix.startswith("__") and PurePath(f"x.{suffix}").suffix in suffixes:
            return data
    there = ", ".join(k for k in raw if not k.startswith("__"))
    raise FormatError(f"no file ending in {', '.join(suffixes)}, only {there}")


def caption(raw: dict[str, Any], place: str) -> str:
    """The caption at "SUFFIX" or "SUFFIX.FIELD" of a JSON file. Raises FormatError when there is none."""
    suffix, _, field = place.partition(".")
    try:
        text = raw[suffix].decode()
        value = json.loads(text)[field] if field else text.strip()
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"no caption at {place} ({error})") from None
    if not isinstance(value, str):
        raise FormatError(f"the caption at {place} is {type(value).__name__}, not text")
    return value
