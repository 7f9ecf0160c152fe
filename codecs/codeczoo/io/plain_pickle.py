"""A pickle read as data: plain values, containers, numpy's arrays of numbers; nothing in it is called or imported.

A pickle is a program. A small machine follows the instructions that such values need, keeps names as names, and refuses
every other instruction and every other name. Hostile files cost no more than their size.
"""

from collections.abc import Callable
from io import BytesIO
from math import prod
from pickletools import genops
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeczoo.core.errors import FormatError

MAGIC = b"\x93NUMPY\x01\x00"
HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
NAMES = {("numpy", "ndarray"), ("numpy", "dtype"), *((core, n) for core in CORES for n in ("_reconstruct", "scalar"))}
KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
OBJECTS = ("O8", "O")
DEPTH = 2  # of dictionaries


def read_npy(data: bytes) -> Any:
    """The one object that `numpy.save` wrote. Dictionaries keep their keys, which must be text.

    Raises:
        FormatError: truncated, foreign, or holding anything but plain values and arrays of numbers.
    """
    start = len(MAGIC) + 2 + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 2], "little")
    if not data.startswith(MAGIC) or data[len(MAGIC) + 2 : start].split() != HEADER.split():
        raise FormatError("not what numpy.save makes of a single object")
    try:
        found = Machine().run(BytesIO(data[start:]))
        if not isinstance(found, Array) or found.numbers is not None:
            raise FormatError("its pickle holds no single object")
        return _plain(found.item, DEPTH)
    except FormatError:
        raise
    except Exception as error:  # hostile bytes fail in many ways
        raise FormatError(f"truncated or corrupt ({type(error).__name__} in its pickle)") from None


class Array:
    """An array of a pickle. Its state gives either `numbers` or, for an array of one object, `item`."""

    numbers: NDArray[Any] | None = None
    item: Any = None


class Kind:
    """A number type of a pickle, e.g. "u2" with its byte order."""

    def __init__(self, name: Any) -> None:
        if not isinstance(name, str) or name not in (*KINDS, *OBJECTS):
            raise FormatError(f"its pickle holds numbers of a type that is not read; allowed: {', '.join(KINDS)}")
        self.name, self.order = name, "="


def _plain(found: Any, depth: int) -> Any:
    """Arrays as numpy's own, in dictionaries at most `depth` deep."""
    if isinstance(found, Array):
        if found.numbers is None:
            raise FormatError("its pickle holds an array of objects inside")
        return found.numbers
    if isinstance(found, dict):
        if not depth:
            raise FormatError(f"its pickle holds dictionaries more than {DEPTH} deep")
        return {key: _plain(value, depth - 1) for key, value in found.items()}
    return found


class Machine:
    """Follows the instructions of a pickle, as data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: BytesIO) -> Any:
        """The object that is on the stack in the end. Raises FormatError for an instruction it does not follow."""
        for instruction, argument, _ in genops(file):
            name = instruction.name
            if name in PUSHED:
                self.stack.append(argument)
            elif name in MADE:
                self.stack.append(MADE[name]())
            elif name in DONE:
                DONE[name](self, argument)
            elif name not in SKIPPED:
                raise FormatError(f"its pickle wants {name}, which is not followed")
        (found,) = self.stack
        return found

    def take(self, n: int) -> list[Any]:
        """The last n things of the stack."""
        start = len(self.stack) - n
        items, self.stack[start:] = self.stack[start:], []
        return items

    def take_marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        return self.take(len(self.stack) - self.marks.pop())

    def name(self, module: Any, name: Any) -> None:
        """Pushes one of NAMES, as a name."""
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in NAMES:
            told = f"{module}.{name}"[:80] if isinstance(module, str) and isinstance(name, str) else "no text"
            raise FormatError(f"its pickle names {told}, which is not followed")
        self.stack.append((module, name))

    def fill(self, items: list[Any]) -> None:
        """Sets keys and values of a dictionary."""
        keys = items[::2]
        if not all(isinstance(key, str) for key in keys):
            raise FormatError("its pickle holds a dictionary whose keys are no text")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    def append(self, items: list[Any]) -> None:
        """Appends to a list."""
        self.stack[-1].extend(items)

    def new(self) -> None:
        """Makes an object of a class."""
        raise FormatError("its pickle wants NEWOBJ, which is not followed")

    def outside(self) -> None:
        """Replaces what names data outside of the pickle by it."""
        raise FormatError("its pickle wants BINPERSID, which is not followed")

    def reduce(self) -> None:
        """What numpy's few names make of their arguments."""
        (_, name), arguments = self.take(2)
        if name == "_reconstruct":
            self.stack.append(Array())
        elif name == "dtype":
            self.stack.append(Kind(arguments[0]))
        elif name == "scalar":
            kind, data = arguments
            self.stack.append(_numbers(kind, data, ())[()])
        else:
            raise FormatError(f"its pickle calls {name}, which is not followed")

    def build(self) -> None:
        """Gives an array or a type its state."""
        (state,), found = self.take(1), self.stack[-1]
        if isinstance(found, Kind):
            found.order = state[1]
        elif isinstance(found, Array):
            _, shape, kind, fortran, data = state
            if kind.name in OBJECTS:
                [found.item] = data
            else:
                found.numbers = _numbers(kind, data, shape, fortran)
        else:
            raise FormatError("its pickle sets the state of something else than an array, which is not followed")


def _numbers(kind: Kind, data: bytes, shape: tuple[int, ...], fortran: bool = False) -> NDArray[Any]:
    dtype = np.dtype({"<": "<", ">": ">", "|": "=", "=": "="}[kind.order] + kind.name)
    sides = len(shape) <= 8 and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    if not sides or prod(shape) * dtype.itemsize != len(data):
        raise FormatError(f"its pickle holds an array whose shape does not fit its {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


SKIPPED = ("PROTO", "FRAME", "STOP")
PUSHED = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE",
    "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
MADE: dict[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_LIST": list, "NEWFALSE": bool, "NEWTRUE": lambda: True
}  # fmt: skip
DONE: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "BINPUT": lambda machine, n: machine.memo.update({n: machine.stack[-1]}),
    "LONG_BINPUT": lambda machine, n: machine.memo.update({n: machine.stack[-1]}),
    "BINGET": lambda machine, n: machine.stack.append(machine.memo[n]),
    "LONG_BINGET": lambda machine, n: machine.stack.append(machine.memo[n]),
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.take(2)),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.take_marked())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.take(3))),
    "SETITEM": lambda machine, _: machine.fill(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.fill(machine.take_marked()),
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.take_marked()),
    "REDUCE": lambda machine, _: machine.reduce(),
    "NEWOBJ": lambda machine, _: machine.new(),
    "BINPERSID": lambda machine, _: machine.outside(),
    "BUILD": lambda machine, _: machine.build(),
}
