"""Inputs told apart: ids that differ, and each input once."""

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from codeczoo.export.inputs.entry import Absent, Input, input_of
from codeczoo.io.files import Found, distinct, levels, stem_key


def told_apart(inputs: Iterable[Input], scratch: IO[bytes]) -> Iterator[Input]:
    """The same inputs in the same order, lazily, once all of them were seen.

    Ids that would be the same differ by suffix, then by folders, as `io.files.find` has it; what came before is absent
    when it comes again. Holds about 50 bytes an input.

    Args:
        inputs: any number.
        scratch: an empty file, for reading and writing.

    Raises:
        InputError: links make one path of two files.
    """
    starts, stems, keys = array("Q", [0]), array("Q"), array("Q")
    for one in inputs:
        starts.append(starts[-1] + scratch.write(json.dumps(one.to_dict()).encode() + b"\n"))
        stems.append(stem_key(Path(one.id)))
        keys.frombytes(blake2b(one.key.encode(errors="surrogateescape"), digest_size=8).digest())

    def found(i: int) -> Found:
        scratch.seek(starts[i])
        one = input_of(json.loads(scratch.readline()))
        return Found(Path(one.where), Path(one.id))

    first = _first(np.frombuffer(keys, np.uint64))
    new = np.flatnonzero(first == np.arange(len(first)))
    level = np.zeros(len(first), np.int16)
    level[new] = levels(np.frombuffer(stems, np.uint64)[new], lambda i: found(new[i]))
    scratch.seek(0)
    for number, line in enumerate(scratch):
        one = input_of(json.loads(line))
        if level[number]:
            stem = distinct(Found(Path(one.where), Path(one.id)), int(level[number]))
            one = replace(one, id=stem.as_posix())
        if first[number] != number and not isinstance(one, Absent):
            one = Absent(one.id, one.path, 0, one.about, f"the same as input {first[number]}")
        yield replace(one, id=one.id.encode(errors="surrogateescape").decode(errors="backslashreplace"))


def _first(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each key the number of the first that is equal."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return first[group]
