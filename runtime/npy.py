"""Reading ``.npy`` and ``.npz`` data from people one does not know: no pickle, no memory taken on a header's word."""

from __future__ import annotations

import io
import math
import re
import sys
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

MAX_NPZ_BYTES = 1 << 30
"""All arrays of a ``.npz`` file together, unpacked."""

MAX_HEADER_BYTES = 10_000
"""What numpy itself takes for safe to parse."""

MAX_RANK = 32
"""Dimensions; what every numpy can hold."""

_PLAIN_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,4})', 'fortran_order': (True|False), 'shape': "
    rb"\(((?:\d{1,19},)?|\d{1,19}(?:, \d{1,19})+),?\),? *\} *\n"
)
"""What numpy writes. Read without `ast`, which costs more than a small array, and which Python 3.11 does not always
survive in several threads at a time (cpython#106905)."""

_PARSING = Lock()

_PLAIN_KINDS = "biufU"  # truth values, integers, floats, fixed-length text (tokens)


def load_npy(data: bytes) -> NDArray[Any]:
    """Decodes one ``.npy`` file that lies in memory, of any byte order and memory order.

    Raises:
        ValueError: not such a file, an object array (pickle), a header that does not fit the length of the data, or a
            truth value that is neither 0 nor 1.
    """
    if data[:6] != npy_format.MAGIC_PREFIX or len(data) < 10:
        raise ValueError(f"no npy file: it starts with {data[:8].hex(' ') or 'nothing'}")
    version = data[6], data[7]
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy format {version} is not read here")
    begin = 10 if version == (1, 0) else 12
    length = int.from_bytes(data[8:begin], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"an npy header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    shape, fortran_order, dtype = _header(bytes(data[: begin + length]))
    begin += length
    found, expected = len(data) - begin, math.prod(shape) * dtype.itemsize
    if found != expected:
        raise ValueError(f"the npy header promises {expected} bytes of data, the file holds {found}")
    native = dtype.newbyteorder("=")
    if not expected:
        return np.empty(shape, native)
    flat = np.frombuffer(data, dtype=dtype, offset=begin)
    if dtype.kind == "b" and flat.view(np.uint8).max() > 1:
        raise ValueError("the npy file holds truth values that are neither 0 nor 1")
    # A copy, so that the caller may write to it and `data` can be let go.
    return flat.reshape(shape, order="F" if fortran_order else "C").astype(native, order="C")


@lru_cache(maxsize=256)
def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, the memory order and the type that a header gives. Kept: it takes longer to parse than a small array.

    Raises:
        ValueError: see `load_npy`.
    """
    read_header = npy_format.read_array_header_1_0 if head[6] == 1 else npy_format.read_array_header_2_0
    try:
        if plain := _PLAIN_HEADER.fullmatch(head, 10 if head[6] == 1 else 12):
            descr, order, sizes = (part.decode() for part in plain.groups())
            dtype, fortran_order = np.dtype(descr), order == "True"
            shape = tuple(int(size) for size in sizes.split(",") if size.strip())
        else:
            with _PARSING:
                shape, fortran_order, dtype = read_header(io.BytesIO(head[8:]))
    # A hostile header reaches numpy's parser (`ast.literal_eval`), whose errors are many, and some name its objects.
    except Exception as error:
        raise ValueError("the npy header is none; expected descr, fortran_order and shape of an array") from error
    # An element of no bytes would let a header without data ask for any amount of memory.
    if dtype.kind not in _PLAIN_KINDS or dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"the npy file holds {dtype}, expected numbers, truth values or text")
    if len(shape) > MAX_RANK or any(type(size) is not int or not 0 <= size <= sys.maxsize for size in shape):
        raise ValueError(f"the npy header gives the shape {str(shape)[:80]}")
    return shape, fortran_order, dtype


def load_npz(data: bytes, *, most: int | None = None) -> dict[str, NDArray[Any]]:
    """Decodes a ``.npz`` file that lies in memory: name -> array.

    Args:
        data: the file.
        most: bytes of all arrays together, unpacked; None takes `MAX_NPZ_BYTES`.

    Raises:
        ValueError: not such a file, damaged, too large when unpacked, or an array that `load_npy` refuses.
    """
    import zipfile  # here, because a first answer begins quicker without

    most = MAX_NPZ_BYTES if most is None else most
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > most:
                raise ValueError(f"the npz file unpacks to {total} bytes, more than the {most} that are read")
            return {member.filename.removesuffix(".npy"): load_npy(archive.read(member)) for member in members}
    except ValueError:
        raise
    # Damaged bytes reach zipfile and zlib, which raise many kinds of errors.
    except Exception as error:
        raise ValueError(f"damaged npz: {error}") from error


def dump_npy(array: NDArray[Any]) -> bytes:
    """Encodes an array as ``.npy``; refuses object arrays.

    Raises:
        ValueError: the array holds Python objects.
    """
    stream = io.BytesIO()
    npy_format.write_array(stream, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
    return stream.getvalue()
