"""The frozen plan of an export: which inputs, in which order and shards, made how. A restart changes none of it.

plan.json      options, counts, and for each shard (start, first, inputs): where its lines begin in inputs.jsonl, the
               number of its first input, and how many it has
inputs.jsonl   one line for each input, in order: see Entry
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from codeczoo.core.errors import FormatError, InputError
from codeczoo.io.files import Found, atomic

PLAN, INPUTS = "plan.json", "inputs.jsonl"
VERSION = 1
SHARD_BYTES = 2**28  # of input files: a shard ends after the one that fills it


class Entry(NamedTuple):
    """One input.

    Args:
        id: of its document: a relative path, distinct among all inputs.
        path: of the file, absolute.
        bytes: of the file.
        about: what a manifest says of it, plain values by name; None where nothing does.
    """

    id: str
    path: str
    bytes: int
    about: dict[str, Any] | None = None

    @staticmethod
    def of(found: Found) -> "Entry":
        """A file. Raises InputError when it is gone."""
        try:
            return Entry(found.stem.as_posix(), str(found.path.absolute()), found.path.stat().st_size)
        except OSError as error:
            raise InputError(f"{found.path}: {error.strerror}") from None

    def found(self) -> Found:
        """The input as commands read it."""
        return Found(Path(self.path), Path(self.id))


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
    def freeze(folder: Path, entries: Iterable[Entry], options: dict[str, Any], most: int) -> "Plan":
        """A new plan, of shards of at most `most` inputs. It is there when plan.json is.

        Raises InputError where nothing can be written.
        """
        options = json.loads(json.dumps(options))
        decisive = json.dumps({name: value for name, value in options.items() if name != "PATH"})
        shards, digest, start, number, filled = [Shard(0, 0, 0)], sha256(decisive.encode()), 0, 0, 0
        with atomic(folder / INPUTS) as temporary, temporary.open("wb") as file:
            for number, entry in enumerate(entries):
                last = shards[-1]
                if last.inputs >= most or filled >= SHARD_BYTES:
                    shards.append(last := Shard(start, number, 0))
                    filled = 0
                shards[-1] = last._replace(inputs=last.inputs + 1)
                filled += entry.bytes
                digest.update(f"\n{entry.id}".encode(errors="surrogateescape"))
                start += file.write(json.dumps(entry).encode() + b"\n")
        plan = Plan(folder, options, tuple(shards), digest.hexdigest())
        values = {"version": VERSION, "inputs": number + 1, "digest": plan.digest, "options": options, "shards": shards}
        with atomic(folder / PLAN) as temporary:
            temporary.write_text(json.dumps(values) + "\n")
        return plan

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

    def entries(self, shard: int) -> list[Entry]:
        """The inputs of a shard. Raises FormatError."""
        path, (start, _, count) = self.folder / INPUTS, self.shards[shard]
        try:
            with path.open("rb") as file:
                file.seek(start)
                return [Entry(*json.loads(file.readline())) for _ in range(count)]
        except (OSError, ValueError, TypeError) as error:
            raise FormatError(f"{path}: not the inputs of {PLAN} ({error})") from None

    def part(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"part-{shard:05d}.parquet"
