"""One shard of a plan: its inputs to a part file, which appears whole with everything that is known of it.

Nothing else is written, so that a shard that was begun twice, or killed and begun again, ends as the same file.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import compress, decompress

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from codeczoo.core.config import build
from codeczoo.core.errors import CodeczooError, FormatError, InputError
from codeczoo.core.types import Sampling, Tokens, TokenSpec
from codeczoo.export import dataset, parquet
from codeczoo.export.appearing import appearing
from codeczoo.export.batches import Prefix, Runner
from codeczoo.export.inputs import Input
from codeczoo.export.inputs.sidecars import beside
from codeczoo.export.media import media_of
from codeczoo.export.patterns import Ids, Pattern
from codeczoo.export.plan import Plan
from codeczoo.export.reading import Job, Reading
from codeczoo.export.sources import Options, Sample
from codeczoo.export.targets import ToQuality

FACTS = b"codeczoo_shard"  # key of a part's metadata
KEPT = " (what is done is kept: --resume goes on)"
NOTHING: Ids = np.zeros(0, np.int64)


@dataclass
class Facts:
    """What became of a shard, or of some of its inputs.

    Args:
        plan: digest of the plan.
        shard: number.
        documents: how many inputs became one.
        tokens: ids of them.
        failed: number in the plan and reason, a line, of each other input.
        missed: number in the plan and a line of each document whose quality is below the target.
        used: which entries of each codebook, counted over all streams, occur: bool (V,) each.
    """

    plan: str
    shard: int
    documents: int = 0
    tokens: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    missed: dict[int, str] = field(default_factory=dict)
    used: list[NDArray[np.bool_]] = field(default_factory=list)

    @staticmethod
    def none(plan: Plan, shard: int, spec: TokenSpec) -> "Facts":
        """Of a shard that was not begun."""
        return Facts(plan.digest, shard, used=[np.zeros(v, bool) for s in spec.streams for v in s.vocab_sizes])

    def add(self, tokens: Tokens, ids: int) -> None:
        """Counts a document of so many ids."""
        self.documents += 1
        self.tokens += ids
        book = 0
        for stream, codes in zip(tokens.spec.streams, tokens.streams, strict=False):
            for k in range(codes.shape[1]):
                self.used[book + k][codes[:, k].flatten().numpy()] = True
            book += len(stream.vocab_sizes)

    def dumps(self) -> str:
        """As JSON."""
        used = [(len(book), b64encode(compress(np.packbits(book).tobytes())).decode()) for book in self.used]
        return json.dumps(self.__dict__ | {"used": used})

    @staticmethod
    def loads(text: str | bytes) -> "Facts":
        """The inverse of `dumps`. Raises ValueError, TypeError, KeyError."""
        values = json.loads(text)
        bits = [(n, np.frombuffer(decompress(b64decode(book)), np.uint8)) for n, book in values["used"]]
        values["used"] = [np.unpackbits(book, count=n).astype(bool) for n, book in bits]
        told = {name: {int(number): why for number, why in values[name].items()} for name in ("failed", "missed")}
        return Facts(**values | told)

    @staticmethod
    def read(plan: Plan, shard: int) -> "Facts | None":
        """Of the part of a shard; None where there is none, or it is no whole file.

        Raises FormatError for a part of another export.
        """
        path = plan.part(shard)
        try:
            facts = Facts.loads(pq.read_metadata(path).metadata[FACTS])
        except (OSError, ValueError, KeyError, TypeError):  # pyarrow's own errors are some of them
            return None
        if (facts.plan, facts.shard) != (plan.digest, shard):
            raise FormatError(f"{path}: a part of another export")
        return facts


class Worker:
    """Makes parts.

    Args:
        plan: what is to be done.
        runner: the codec; made ready as the plan's options say.

    Raises:
        InputError: other weights than those of the plan, or options that are not for this codec.
    """

    def __init__(self, plan: Plan, runner: Runner) -> None:
        options, spec = plan.options, runner.codec.spec
        if runner.weights_hash != options["weights_hash"]:
            raise InputError(f"weights {runner.weights_hash}: the export was begun with {options['weights_hash']}")
        self.plan, self.spec = plan, spec
        self.media = media_of(runner, Options(options["fit"], options["window"]))
        self.prefix, self.sidecars = Prefix(**options["prefix"]), options["sidecars"]
        self.cutter = ToQuality(self.media, *options["target"]) if options.get("target") else None
        if options.get("sampling"):
            runner.codec.sampling = Sampling(**options["sampling"])
        self.pattern: Pattern = build(options["pattern"] | {"spec": spec}, allow=("codeczoo.export.patterns.",))
        self.header = json.dumps(dataset.header_of(runner, self.pattern, "parquet"))
        self.prefix.check(self.spec)
        self._reading: Reading | None = None

    def work(self, shard: int, following: Iterable[int] = ()) -> Generator[Facts, None, None]:
        """Makes a part. Gives what became of its inputs so far after each of them; the part is there after the last.

        Args:
            shard: number.
            following: of shards that are likely to be next, asked one by one: when all files of one have been read,
                threads begin with those of the next. What the parts hold does not depend on it.

        Raises InputError when it cannot be written, or the device's memory does not do.
        """
        reading, job = self._reading, None if self._reading is None else self._reading.next()
        if reading is None or job is None or job.shard != shard:
            self.close()
            self._reading = reading = Reading(self.plan, self.media, self.prefix, shard, following)
            job = reading.next()
            assert job is not None
        try:
            facts = yield from self._work(job, reading.samples(job))
        except BaseException as error:
            self.close()
            if isinstance(error, torch.OutOfMemoryError):
                why = "the device is out of memory: --resume goes on, with a smaller --batch"
                raise InputError(why) from None
            raise
        yield facts

    def close(self) -> None:
        """Reads no more; `work` begins anew."""
        if self._reading is not None:
            self._reading.close()
        self._reading = None

    def _work(self, job: Job, loaded: Iterator[Sample]) -> Generator[Facts, None, Facts]:
        facts = Facts.none(self.plan, job.shard, self.spec)
        facts.failed = job.failed
        samples = self.media.encode_loaded(loaded, self.prefix)
        if self.cutter is not None:
            samples = self.cutter.cut(samples)
        with appearing(self.plan.part(job.shard), KEPT) as temporary:
            writer = parquet.Writer(temporary.parent, self.plan.options["dtype"], temporary.name)
            for (number, one), sample in zip(job.present.items(), samples, strict=True):
                assert sample.found.stem == Path(one.id)
                document, ids, why = self._document(one, sample)
                if document is None or sample.tokens is None:
                    why = " ".join(why.split()).removeprefix(f"{one.where}: ")
                    facts.failed[number] = why.replace(one.where, "it")  # parts do not depend on where inputs lie
                else:
                    writer.add(document, ids)
                    facts.add(sample.tokens, ids.size)
                    if self.cutter is not None and (why := self.cutter.missed(sample)):
                        facts.missed[number] = why
                yield facts
            writer.finish({"codeczoo": self.header, FACTS.decode(): facts.dumps()})
        return facts

    def said(self, one: Input) -> dict[str, Any] | None:
        """What is said of an input: where it is listed and, where that is wanted, in files beside it."""
        said = one.said()
        return beside(Path(one.path)) | (said or {}) or None if self.sidecars and type(one) is Input else said

    def _document(self, one: Input, sample: Sample) -> tuple[dataset.Document | None, Ids, str]:
        """What is written of an input, or why nothing is."""
        if sample.tokens is None:
            return None, NOTHING, sample.error
        try:
            return dataset.document_of(sample, self.said(one)), self.pattern.ids(sample.tokens), ""
        except CodeczooError as error:
            return None, NOTHING, str(error)
        except OSError as error:
            return None, NOTHING, error.strerror or str(error)


def merged(a: Facts, b: Facts) -> Facts:
    """Of both together."""
    used = [x | y for x, y in zip(a.used, b.used, strict=True)]
    both = replace(a, documents=a.documents + b.documents, tokens=a.tokens + b.tokens)
    return replace(both, failed=a.failed | b.failed, missed=a.missed | b.missed, used=used)
