"""The frozen plan of an export: which inputs, in which order and shards, made how. A restart changes none of it.

plan.json      options, counts, and for each shard (start, first, inputs): where its lines begin in inputs.jsonl, the
               number of its first input, and how many it has
inputs.jsonl   one line for each input, in order: see inputs.entry
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from codeczoo.core.errors import FormatError, InputError
from codeczoo.export.appearing import appearing
from codeczoo.export.inputs.apart import told_apart
from codeczoo.export.inputs.entry import Input, input_of

PLAN, INPUTS = "plan.json", "inputs.jsonl"
VERSION = 1
SHARD_BYTES = 2**28  # of input files: a shard ends after the one that fills it


class Shard(NamedTuple):
    """Where the lines of a shard begin in inputs.jsonl, the number of its first input, how many it has."""

    start: int
    first: int
    inputs: int


@dataclass(frozen=True)
class Plan:
    """What is to be done, in a folder where workers put what they have done.

    Args:
        folder: of the export.
        options: everything that the ids depend on besides the inputs, plain values by the names of the options.
        shards: in order.
        digest: of the ids of all inputs and the options, PATH left out, hex; stands in every part.
    """

    folder: Path
    options: dict[str, Any]
    shards: tuple[Shard, ...]
    digest: str

    @staticmethod
    def freeze(folder: Path, inputs: Iterable[Input], options: dict[str, Any], most: int) -> "Plan":
        """A new plan, of shards of at most `most` inputs. It is there when plan.json is.

        Args:
            folder: missing or empty.
            inputs: any number; they are told apart.
            options, most: see Plan.

        Raises:
            InputError: as `inputs` does when iterated, or nothing can be written; a folder that was made is gone then.
        """
        decisive = json.dumps({name: value for name, value in options.items() if name != "PATH"})
        shards, digest, start, number, filled = [Shard(0, 0, 0)], sha256(decisive.encode()), 0, 0, 0
        with (
            _made(folder),
            TemporaryFile(dir=folder) as scratch,
            appearing(folder / INPUTS) as temporary,
            temporary.open("wb") as file,
        ):
            for number, one in enumerate(told_apart(inputs, scratch)):
                last = shards[-1]
                if last.inputs >= most or filled >= SHARD_BYTES:
                    shards.append(last := Shard(start, number, 0))
                    filled = 0
                shards[-1] = last._replace(inputs=last.inputs + 1)
                filled += one.bytes
                digest.update(f"\n{one.id}".encode())
                start += file.write(json.dumps(one.to_dict()).encode() + b"\n")
        values = {"version": VERSION, "inputs": number + 1, "digest": digest.hexdigest(), "options": options}
        with appearing(folder / PLAN) as temporary:
            temporary.write_text(json.dumps(values | {"shards": shards}) + "\n")
        return Plan.open(folder)

    @staticmethod
    def open(folder: Path) -> "Plan":
        """The plan of a folder. Raises InputError where there is none, FormatError where it is another version's."""
        try:
            values = json.loads((folder / PLAN).read_text())
            if values["version"] != VERSION:
                raise FormatError(f"{folder / PLAN}: version {values['version']}, this codeczoo knows {VERSION}")
            shards = tuple(Shard(*shard) for shard in values["shards"])
            return Plan(folder, values["options"], shards, values["digest"])
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{folder}: no export was begun here (no {PLAN})") from None
        except (KeyError, TypeError, json.JSONDecodeError):
            raise FormatError(f"{folder / PLAN}: not the plan of an export") from None

    @property
    def inputs(self) -> int:
        """How many."""
        return self.shards[-1].first + self.shards[-1].inputs

    def check(self, options: dict[str, Any]) -> "Plan":
        """Returns self. Raises InputError unless it was made with these options."""
        for name, value in json.loads(json.dumps(options)).items():
            if self.options.get(name) != value:
                began = f"{name} {json.dumps(self.options.get(name))}, not {json.dumps(value)}"
                raise InputError(f"{self.folder}: this export was begun with {began}: resume with the same options")
        return self

    def inputs_of(self, shard: int) -> list[Input]:
        """Those of a shard. Raises FormatError."""
        path, (start, _, number) = self.folder / INPUTS, self.shards[shard]
        try:
            with path.open("rb") as file:
                file.seek(start)
                return [input_of(json.loads(file.readline())) for _ in range(number)]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FormatError(f"{path}: not the inputs of {PLAN} ({error})") from None

    def part(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"part-{shard:06d}.parquet"


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes the folder, which goes when the block fails, if it was not there. Raises InputError where it cannot be."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror or error}") from None
    try:
        yield
    except BaseException:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
