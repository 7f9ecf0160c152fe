"""TorchScript archives (`encoder.jit`) read as data: their tensors by name. The code inside is neither run nor read.

An archive is a zip file that holds the module's tree as a pickle, numbers in files of their own, and code.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codeczoo.core.errors import FormatError, WeightsError
from codeczoo.io.plain_pickle import Machine

TREE, CONSTANTS = "/data.pkl", "/constants.pkl"
KINDS = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "ByteStorage": torch.uint8, "CharStorage": torch.int8,
    "ShortStorage": torch.int16, "IntStorage": torch.int32, "LongStorage": torch.int64, "BoolStorage": torch.bool,
}  # fmt: skip
LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")
NAMES = {
    *(("torch", kind) for kind in KINDS), *(("torch.jit._pickle", made) for made in LISTS),
    ("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"),
}  # fmt: skip
DEPTH = 64  # of modules within modules


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive; other zip files of torch hold no constants."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith(CONSTANTS) for name in file.namelist())
    except Exception:  # no zip file, or a damaged one
        return False


def read_archive(path: Path) -> dict[str, Tensor]:
    """All tensors that the module holds, by dotted name; tables that torch keeps out of state dicts too.

    Raises:
        WeightsError: truncated, hostile, or a module without tensors (a frozen one has lost their names).
    """
    try:
        with zipfile.ZipFile(path) as file:
            found = dict(_tensors(Archive(file).read(), "", DEPTH))
    except FormatError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # hostile bytes fail in many ways
        raise WeightsError(f"{path}: truncated or corrupt ({type(error).__name__} in the archive)") from None
    if not found:
        raise WeightsError(f"{path}: a frozen module, whose tensors have no names; save the module that is not frozen")
    return found


@dataclass
class Part:
    """A module or another object: its attributes by name."""

    state: dict[str, Any] = field(default_factory=dict)


def _tensors(part: Part, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if not depth:
        raise FormatError(f"modules more than {DEPTH} deep")
    for name, value in part.state.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, Part):
            yield from _tensors(value, f"{prefix}{name}.", depth - 1)


class Archive(Machine):
    """Follows the pickle of an archive, whose numbers are in other files of the same zip.

    Args:
        file: opened for reading.
    """

    def __init__(self, file: zipfile.ZipFile) -> None:
        super().__init__()
        self.file, self.numbers = file, dict[str, Tensor]()
        trees = [name for name in file.namelist() if name.endswith(TREE) and name.count("/") == 1]
        if len(trees) != 1:
            raise FormatError(f"an archive wants one {TREE[1:]}, found {len(trees)}")
        self.root = trees[0].removesuffix(TREE)

    def read(self) -> Part:
        """The module. Raises FormatError."""
        order = f"{self.root}/byteorder"
        if order in self.file.namelist() and self.member(order) != b"little":
            raise FormatError("its numbers are big-endian, which is not read")
        found = self.run(BytesIO(self.member(self.root + TREE)))
        if not isinstance(found, Part):
            raise FormatError("its pickle holds no module")
        return found

    def member(self, name: str) -> bytes:
        """A file of the archive; torch compresses code alone, so data that grows is refused."""
        if self.file.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise FormatError(f"{name} is compressed, which torch never does")
        return self.file.read(name)

    def name(self, module: Any, name: Any) -> None:
        """See Machine: classes of the archive, which are never looked up, and what tensors and lists are made of."""
        if (module, name) not in NAMES and not f"{module}.".startswith("__torch__."):
            raise FormatError(f"its pickle names {module}.{name}"[:120] + ", which is not followed")
        self.stack.append((module, name))

    def new(self) -> None:
        """See Machine: a class and no arguments."""
        self.take(2)
        self.stack.append(Part())

    def outside(self) -> None:
        """See Machine: ("storage", kind, key, device, how many)."""
        ((_, (_, kind), key, _, count),) = self.take(1)
        if key not in self.numbers:
            data = self.member(f"{self.root}/data/{key}")
            dtype = KINDS[kind]
            if len(data) != count * dtype.itemsize:
                raise FormatError(f"data/{key} does not hold {count} numbers")
            self.numbers[key] = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
        self.stack.append(self.numbers[key])

    def reduce(self) -> None:
        """See Machine."""
        (_, name), arguments = self.take(2)
        if name == "_rebuild_tensor_v2":
            numbers, offset, size, stride = arguments[:4]
            if prod(size) > numbers.numel():
                raise FormatError("its pickle holds a tensor that is larger than its numbers")
            self.stack.append(numbers.as_strided(size, stride, offset))
        elif name == "OrderedDict":
            self.stack.append({})
        elif name in LISTS:
            self.stack.append(list(arguments[0]))
        else:
            raise FormatError(f"its pickle calls {name}, which is not followed")

    def build(self) -> None:
        """See Machine: gives an object its attributes."""
        (state,), found = self.take(1), self.stack[-1]
        if not isinstance(found, Part):
            raise FormatError("its pickle sets the state of something else than an object")
        found.state = state if isinstance(state, dict) else {}  # objects with a state of their own hold no weights
