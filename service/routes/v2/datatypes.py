"""The datatypes of the protocol, and one tensor as its bytes: little-endian, row after row.

An element of BYTES is its length as a 4-byte unsigned integer, followed by as many bytes.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError, TooLargeError
from runtime.npy import MAX_RANK
from service.problems import bad_request

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
"""What the protocol calls the types of a manifest."""

MOST_TEXTS = 1 << 18
"""Elements of a tensor of BYTES. Each becomes a Python object, which takes more than its bytes."""

_NATIVE = {name: np.dtype(name) for name in DATATYPES if name != "string"}
_LITTLE = {name: dtype.newbyteorder("<") for name, dtype in _NATIVE.items()}
_OF_DTYPE = {dtype: DATATYPES[name] for name, dtype in _NATIVE.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(array: NDArray[Any]) -> str:
    """What the protocol calls the type of an array."""
    return _OF_DTYPE.get(array.dtype, "BYTES")


def read_shape(value: Any, name: str) -> tuple[int, ...]:
    """The shape of a tensor as JSON gives it.

    Raises:
        Problem: 400, it is none.
    """
    if (
        not isinstance(value, list)
        or len(value) > MAX_RANK
        or any(type(size) is not int or size < 0 for size in value)
        or math.prod(size for size in value if size) > sys.maxsize >> 4  # numpy counts the bytes of an empty one, too
    ):
        raise bad_request(
            f"the shape {repr(value)[:80]} of {name!r}", f"a list of at most {MAX_RANK} sizes, none below 0"
        )
    return tuple(value)


def tensor_of_bytes(dtype: str, shape: tuple[int, ...], data: memoryview, name: str) -> NDArray[Any]:
    """The tensor that some bytes are, without a copy where its numbers lie as the processor reads them.

    Args:
        dtype: As a manifest names it.
        shape: Of the tensor.
        data: Its bytes.
        name: How messages call it.

    Returns:
        The array, which may not be written to; of ``string``, an object array of bytes.

    Raises:
        Problem: 400, there are more bytes or fewer than the shape needs.
        InputError: a truth value is neither 0 nor 1.
        TooLargeError: there are more than `MOST_TEXTS` elements of BYTES.
    """
    count = math.prod(shape)
    if dtype == "string":
        return _read_elements(count, data, name).reshape(shape)
    little = _LITTLE[dtype]
    if count * little.itemsize != len(data):
        raise bad_request(
            f"{len(data):,} bytes of {name!r}",
            f"{count * little.itemsize:,}, as {DATATYPES[dtype]} of the shape {list(shape)} has",
        )
    if not count:
        return np.empty(shape, _NATIVE[dtype])
    array = np.frombuffer(data, little).reshape(shape)
    if dtype == "bool" and array.view(np.uint8).max() > 1:
        raise InputError(f"{name} holds truth values that are neither 0 nor 1")
    return np.require(array, _NATIVE[dtype], "A")


def bytes_of_tensor(array: NDArray[Any]) -> memoryview:
    """The bytes of a tensor, without a copy where they lie as they are sent."""
    if array.dtype.kind not in "OU":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        data = element if isinstance(element, bytes) else str(element).encode()
        parts += (_LENGTH.pack(len(data)), data)
    return memoryview(b"".join(parts))


def object_array(elements: Sequence[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Python objects as an array of a shape."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def texts_of(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The texts that an object array of bytes holds, as a graph takes them.

    Raises:
        InputError: one of them is not UTF-8.
    """
    try:
        return object_array([element.decode() for element in array.reshape(-1).tolist()], array.shape)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} holds bytes that are not UTF-8 ({error.reason} at byte {error.start})") from error


def _read_elements(count: int, data: memoryview, name: str) -> NDArray[Any]:
    if count > MOST_TEXTS:
        raise TooLargeError(f"{name} has {count:,} elements; at most {MOST_TEXTS:,} of BYTES are taken")
    elements, at = [], 0
    for index in range(count):
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else start
        if end > len(data):
            raise bad_request(
                f"{len(data):,} bytes of {name!r}, which end within element {index} of {count}",
                "each element of BYTES as its length (4 bytes, little-endian) and its bytes",
            )
        elements.append(bytes(data[start:end]))
        at = end
    if at != len(data):
        raise bad_request(f"{len(data):,} bytes of {name!r}", f"{at:,}, which its {count} elements have")
    return object_array(elements, (count,))
