"""Inputs for the guard of the robot's runtime: objects that raise or lie when they are read, and unusual ones that are sound.

Like the runtime this file is written for Python 3.8, in which a test runs both.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np


class RaisingArray:
    """Raises when numpy asks for its array."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise self.error


class ReturningArray:
    """Gives numpy some object in place of its array."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        return self.result


class LyingSequence:
    """Claims a length that it does not have."""

    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> Any:
        return self.length

    def __getitem__(self, index: Any) -> float:
        if isinstance(index, int) and index < 3:
            return 0.0
        raise IndexError(index)


class LyingList(list):
    """A list that claims to be longer than it is."""

    def __len__(self) -> int:
        return 10**6


class RaisingNumber:
    """Raises when it is compared or converted."""

    def __float__(self) -> float:
        raise RuntimeError("no number")

    __index__ = __bool__ = __len__ = __float__

    def __eq__(self, other: Any) -> bool:
        raise RuntimeError("no comparison")

    __lt__ = __le__ = __gt__ = __ge__ = __ne__ = __eq__
    __hash__ = None


class RaisingAttributes:
    """Raises whichever attribute is read."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class LyingDimensions:
    """Has an `ndim` that is no number."""

    ndim = RaisingNumber()


class UnprintableError(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class RaisingSubclass(np.ndarray):
    """A kind of array whose operations raise."""

    def __array_ufunc__(self, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no operations")

    __array_function__ = __getitem__ = __len__ = __iter__ = __array_ufunc__


def nest(depth: int) -> list:
    """Returns a list in a list and so on, this deep."""
    nested: list = [0.0]
    for _ in range(depth):
        nested = [nested]
    return nested


def contain_itself() -> list:
    """Returns a list that is its own member."""
    endless: list = []
    endless.append(endless)
    return endless


def put_first(number: Any, size: int, dtype: Any = np.float64) -> np.ndarray:
    """Returns zeros with this number in front."""
    numbers = np.zeros(size, dtype)
    numbers[0] = number
    return numbers


# Each makes an input at fault for an array of `size` numbers.
FAULTS: dict[str, Callable[[int], Any]] = {
    "__array__ raises RuntimeError": lambda size: RaisingArray(RuntimeError("detach it first")),
    "__array__ raises TypeError": lambda size: RaisingArray(TypeError("on another device")),
    "__array__ raises MemoryError": lambda size: RaisingArray(MemoryError()),
    "__array__ raises RecursionError": lambda size: RaisingArray(RecursionError()),
    "__array__ raises StopIteration": lambda size: RaisingArray(StopIteration()),
    "__array__ raises a warning": lambda size: RaisingArray(UserWarning("old")),
    "__array__ raises what has no text": lambda size: RaisingArray(UnprintableError()),
    "__array__ returns text": lambda size: ReturningArray("text"),
    "__array__ returns None": lambda size: ReturningArray(None),
    "__array__ returns a list": lambda size: ReturningArray([0.0] * size),
    "__array__ returns NaN": lambda size: ReturningArray(np.full(size, np.nan)),
    "a row that raises": lambda size: [RaisingArray(RuntimeError())] * size,
    "numbers that raise": lambda size: [RaisingNumber()] * size,
    "attributes that raise": lambda size: RaisingAttributes(),
    "ndim that is no number": lambda size: LyingDimensions(),
    "length is a lie": lambda size: LyingSequence(size),
    "length is far too large": lambda size: LyingSequence(10**18),
    "length is negative": lambda size: LyingSequence(-1),
    "length is no number": lambda size: LyingSequence("long"),
    "length of a list is a lie": lambda size: LyingList([0.0]),
    "None": lambda size: None,
    "a number": lambda size: 1.0,
    "text": lambda size: "1.0",
    "bytes": lambda size: b"1.0",
    "dict": lambda size: {"observation": [0.0] * size},
    "set": lambda size: {0.0},
    "generator": lambda size: (0.0 for _ in range(size)),
    "class": lambda size: float,
    "list of None": lambda size: [None] * size,
    "list of text": lambda size: ["1.0"] * size,
    "list of whole numbers": lambda size: [1] * size,
    "list of large whole numbers": lambda size: [10**400] * size,
    "list of Decimal": lambda size: [Decimal(1)] * size,
    "list of complex numbers": lambda size: [1j] * size,
    "list of lists and numbers": lambda size: [[0.0] * size, 0.0],
    "rows of different lengths": lambda size: [[0.0], [0.0] * size],
    "1,000 lists deep": lambda size: nest(1000),
    "100,000 lists deep": lambda size: nest(100_000),
    "a list in itself": lambda size: contain_itself(),
    "bool": lambda size: np.zeros(size, bool),
    "int64": lambda size: np.zeros(size, np.int64),
    "complex": lambda size: np.zeros(size, np.complex64),
    "datetime64": lambda size: np.zeros(size, "datetime64[s]"),
    "timedelta64": lambda size: np.zeros(size, "timedelta64[s]"),
    "array of text": lambda size: np.zeros(size, "U3"),
    "array of bytes": lambda size: np.zeros(size, "S3"),
    "array of objects": lambda size: np.zeros(size, object),
    "array of objects that raise": lambda size: np.array([RaisingNumber()] * size, object),
    "structured": lambda size: np.zeros(size, [("x", np.float32), ("y", np.float32)]),
    "structured, one number": lambda size: np.zeros(size, [("x", np.float32)]),
    "void": lambda size: np.zeros(size, "V4"),
    "0-d": lambda size: np.float32(0.0),
    "empty": lambda size: np.zeros(0, np.float32),
    "a number too few": lambda size: np.zeros(size - 1, np.float32),
    "a number too many": lambda size: np.zeros(size + 1, np.float32),
    "NaN": lambda size: put_first(np.nan, size),
    "infinite": lambda size: put_first(-np.inf, size, np.float32),
    "too large for float32": lambda size: put_first(1e300, size),
    "too large for float64": lambda size: put_first(np.finfo(np.longdouble).max, size, np.longdouble),
    "masked": lambda size: np.ma.array(np.zeros(size), mask=[True] + [False] * (size - 1)),
    "list of masked numbers": lambda size: [np.ma.masked] * size,
}  # fmt: skip

# The same with more dimensions than one, as a batch has.
BATCH_FAULTS: dict[str, Callable[[int], Any]] = {
    "3-d": lambda size: np.zeros((1, 1, size), np.float32),
    "20-d": lambda size: np.zeros((1,) * 19 + (size,), np.float32),
    "batch of too few numbers": lambda size: np.zeros((3, size - 1), np.float32),
    "batch of nothing": lambda size: np.zeros((3, 0), np.float32),
    "batch with NaN": lambda size: [[0.0] * size, [np.nan] * size],
    "batch of masked rows": lambda size: [np.ma.array(np.zeros(size), mask=True)] * 2,
    # A petabyte, more than a process can address.
    "batch beyond all memory": lambda size: np.broadcast_to(np.float32(0.0), (2**45, size)),
}

# Each makes a sound input of `numbers`, a list.
SOUND: dict[str, Callable[[Any], Any]] = {
    "list": lambda numbers: list(numbers),
    "tuple": lambda numbers: tuple(numbers),
    "array.array": lambda numbers: array.array("d", numbers),
    "memoryview": lambda numbers: memoryview(array.array("f", numbers)),
    "list of numpy's numbers": lambda numbers: [np.float32(number) for number in numbers],
    "float16": lambda numbers: np.array(numbers, np.float16),
    "float32": lambda numbers: np.array(numbers, np.float32),
    "float64": lambda numbers: np.array(numbers, np.float64),
    "long double": lambda numbers: np.array(numbers, np.longdouble),
    "other byte order": lambda numbers: np.array(numbers, np.dtype(np.float32).newbyteorder()),
    "every other number": lambda numbers: np.repeat(np.array(numbers, np.float32), 2)[::2],
    "read-only": lambda numbers: np.frombuffer(np.array(numbers, np.float32).tobytes(), np.float32),
    "__array__": lambda numbers: ReturningArray(np.array(numbers)),
    "subclass": lambda numbers: np.array(numbers, np.float32).view(RaisingSubclass),
    "masked array without a mask": lambda numbers: np.ma.array(numbers),
}
