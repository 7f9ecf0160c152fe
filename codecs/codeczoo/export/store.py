"""The canonical store: the parts of a plan, and what makes them an export: header.json and manifest.jsonl.

manifest.jsonl has a line for each input, in order: number, id, path, and status "done", or "failed" or
"skipped" and why.
header.json appears last: with it the export is finished, and `export.read` opens it.
"""

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from codeczoo.core.errors import InputError
from codeczoo.core.types import TokenSpec
from codeczoo.export.appearing import appearing, clean
from codeczoo.export.dataset import HEADER
from codeczoo.export.inputs import Absent
from codeczoo.export.plan import INPUTS, Plan
from codeczoo.export.shard import Facts, merged

MANIFEST = "manifest.jsonl"


def is_done(plan: Plan, shard: int) -> bool:
    """Whether the part of a shard is there. Raises FormatError for a part of another export."""
    return Facts.read(plan, shard) is not None


def to_do(plan: Plan, shards: Iterable[int]) -> Iterator[int]:
    """Those of the shards whose part is not there when it is their turn. Raises as `is_done`."""
    return (shard for shard in shards if not is_done(plan, shard))


def finish(plan: Plan, header: dict[str, Any]) -> dict[str, Any]:
    """Makes an export of the parts, which must all be there.

    Args:
        plan: of the parts.
        header: from `dataset.header_of`.

    Returns:
        The header with the counts.

    Raises:
        InputError: parts are missing, or all inputs were bad: the folder goes; or a file cannot be written.
    """
    spec = TokenSpec.from_dict(header["spec"])
    facts, missing = Facts.none(plan, 0, spec), 0
    for shard in range(len(plan.shards)):
        part = Facts.read(plan, shard)
        facts, missing = (facts, missing + 1) if part is None else (merged(facts, part), missing)
    if missing:
        raise InputError(f"{plan.folder}: {missing} of {len(plan.shards)} shards are still to be done")
    if not facts.documents:
        shutil.rmtree(plan.folder)
        raise InputError(f"nothing exported: all {plan.inputs} inputs are bad")
    header = header | {"dtype": plan.options["dtype"], "documents": facts.documents, "tokens": facts.tokens}
    header |= {"inputs_sha256": inputs_sha256(plan), "failed": len(facts.failed)}
    header |= {"missed": len(facts.missed)} if plan.options.get("target") else {}
    header |= {"used": [int(book.sum()) for book in facts.used], "plan": plan.digest}
    with appearing(plan.folder / MANIFEST) as temporary, temporary.open("w") as file:
        for line in manifest(plan, facts.failed):
            file.write(json.dumps(line) + "\n")
    with appearing(plan.folder / HEADER) as temporary:
        temporary.write_text(json.dumps(header, indent=2) + "\n")
    clean(plan.folder)
    return header


def manifest(plan: Plan, failed: dict[int, str]) -> Iterator[dict[str, Any]]:
    """A line for each input, in order."""
    for shard, (_, first, _) in enumerate(plan.shards):
        for number, one in enumerate(plan.inputs_of(shard), first):
            about = {"input": number, "id": one.id, "path": one.where}
            if number in failed:
                yield about | {"status": "failed", "why": failed[number]}
            elif isinstance(one, Absent):
                yield about | {"status": "skipped", "why": one.why}
            else:
                yield about | {"status": "done"}


def inputs_sha256(plan: Plan) -> str:
    """Over the lines `SHA256 ID` of all documents in order, hex."""
    digest = sha256()
    for shard in range(len(plan.shards)):
        for batch in pq.ParquetFile(plan.part(shard)).iter_batches(columns=["sha256", "id"]):
            for row in batch.to_pylist():
                digest.update(f"{row['sha256']} {row['id']}\n".encode())
    return digest.hexdigest()


def failures(folder: Path) -> list[dict[str, str]]:
    """Path and error of each input that failed, of a finished export."""
    with (folder / MANIFEST).open() as file:
        lines = (json.loads(line) for line in file)
        return [{"path": line["path"], "error": line["why"]} for line in lines if line["status"] == "failed"]


def state(folder: Path) -> str:
    """How far an export is. Raises InputError where none was begun."""
    plan = Plan.open(folder)
    there = sum(plan.part(shard).exists() for shard in range(len(plan.shards)))
    return "finished" if (folder / HEADER).is_file() else f"{there} of {len(plan.shards)} shards done"


def is_free(folder: Path) -> bool:
    """Whether an export may begin there: nothing is there but what one leaves that was killed before its plan."""
    return not folder.exists() or all(p.name.startswith(".") or p.name == INPUTS for p in folder.iterdir())


@contextmanager
def aside(folder: Path) -> Iterator[None]:
    """The folder, unless it is free, is out of the way; it goes when the block succeeds, else it comes back."""
    old = folder.with_name(f".{secrets.token_hex(8)}.old")
    if is_free(folder):
        yield
        return
    folder.rename(old)
    try:
        yield
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old)
