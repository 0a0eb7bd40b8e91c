"""Structs in MATLAB files of level 5 (MathWorks, "MAT-File Format"), which is what ``save`` writes up to v7.

Only what data sets need is read: numbers, text, cells, and structs that are no arrays. Every length is compared with
what is there, so that a damaged file is an error; scipy's reader ends the process with some.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = NDArray[Any] | str | list[Any] | Mapping[str, Any] | None
"""Numbers (n,) in MATLAB's order, a text, a cell's values, a struct, or None for what is of another class."""

MOST_BYTES = 1 << 30
"""Of a variable when it is no longer compressed."""

_HEADER = 128
_INT8, _UINT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 2, 5, 6, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {_INT8: "latin-1", _UINT8: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_CELL, _STRUCT, _CHAR, _NUMERIC = 1, 2, 4, range(6, 16)
_COMPLEX = 0x800
_DEEPEST = 8


def read_variables(data: bytes, fields: Collection[str]) -> dict[str, Value]:
    """The variables of a file.

    Args:
        data: the file.
        fields: of structs; others are passed over.

    Raises:
        ValueError: it is no such file, or damaged.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it has no header of a MATLAB file of level 5")
    order = "<" if data[126:128] == b"IM" else ">"
    if struct.unpack_from(f"{order}H", data, 124)[0] != 0x0100:
        raise ValueError("it is of another version, perhaps 7.3: save it with -v7")
    found: dict[str, Value] = {}
    try:
        for kind, content in _elements(memoryview(data)[_HEADER:], order, padded=False):
            if kind == _COMPRESSED:
                kind, content = _next(_elements(_inflated(content), order))
            if kind == _MATRIX:
                name, value = _matrix(content, order, fields, 0)
                found[name] = value
    except (struct.error, zlib.error) as error:
        raise ValueError(f"it is damaged or cut off: {error}") from error
    return found


def _elements(data: memoryview, order: str, *, padded: bool = True) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each data element."""
    at, whole = 0, struct.Struct(f"{order}2I")
    while at < len(data):
        kind, size = whole.unpack_from(data, at)
        start = at + 8
        if kind >> 16:  # a small element: size and type in one word, the content in the next
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise ValueError(f"a small element has {size} bytes")
            at += 8
        else:
            at = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError(f"an element of {size:,} bytes is cut off")
        yield kind, data[start : start + size]


def _inflated(content: memoryview) -> memoryview:
    inflater = zlib.decompressobj()
    data = inflater.decompress(content, MOST_BYTES)
    if not inflater.eof:
        raise ValueError(f"a compressed element is cut off, or has more than {MOST_BYTES:,} bytes")
    return memoryview(data)


def _matrix(data: memoryview, order: str, fields: Collection[str], depth: int) -> tuple[str, Value]:
    """Name and value of a matrix."""
    if len(data) == 0:
        return "", np.zeros(0)
    if depth > _DEEPEST:
        raise ValueError(f"cells and structs lie in each other more than {_DEEPEST} deep")
    elements = _elements(data, order)
    flags = struct.unpack(f"{order}2I", _next(elements)[1])[0]
    dimensions = np.frombuffer(_next(elements)[1], f"{order}i4").tolist()
    name = bytes(_next(elements)[1]).decode("latin-1")
    count = math.prod(dimensions)
    if count < 0 or count > len(data):
        raise ValueError(f"a matrix {dimensions} in {len(data):,} bytes")
    kind = flags & 0xFF
    if kind == _CELL:
        return name, [_matrix(content, order, fields, depth + 1)[1] for content in _matrices(elements, count)]
    if kind == _STRUCT and count == 1:
        width = struct.unpack(f"{order}i", _next(elements)[1])[0]
        written = bytes(_next(elements)[1])
        if width < 1:
            raise ValueError(f"names of fields have {width} bytes")
        names = [written[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(written), width)]
        values = zip(names, _matrices(elements, len(names)), strict=True)
        return name, {
            field: _matrix(content, order, fields, depth + 1)[1] for field, content in values if field in fields
        }
    if kind == _CHAR or (kind in _NUMERIC and not flags & _COMPLEX):
        stored, content = _next(elements)
        if kind == _CHAR and stored in _TEXTS:
            encoding = _TEXTS[stored]
            ending = {"<": "-le", ">": "-be"}[order] if encoding == "utf-16" else ""
            return name, bytes(content).decode(encoding + ending, "replace")
        if kind != _CHAR and stored in _NUMBERS:
            numbers = np.frombuffer(content, np.dtype(order + _NUMBERS[stored]))
            if len(numbers) != count:
                raise ValueError(f"a matrix {dimensions} of {len(numbers)} numbers")
            return name, numbers
        raise ValueError(f"a matrix of class {kind} is stored as {stored}")
    return name, None


def _matrices(elements: Iterator[tuple[int, memoryview]], count: int) -> Iterator[memoryview]:
    """The contents of the next so many elements, all of them matrices."""
    for _ in range(count):
        kind, content = _next(elements)
        if kind != _MATRIX:
            raise ValueError(f"a matrix was expected, an element of type {kind} is there")
        yield content


def _next(elements: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    for element in elements:
        return element
    raise ValueError("an element is missing")
