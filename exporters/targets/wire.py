"""One message between this machine and a target, simple enough for Python, JavaScript and C.

A message is its length in bytes (8 bytes, little-endian), then that many bytes: the length of a header (8 bytes,
little-endian), the header as JSON, filled up with spaces to a multiple of 8, and the tensors one after the other, raw
and little-endian. ``tensors`` in the header lists them: ``{"name", "dtype", "shape"}``, with numpy's names of types. Of
texts (``string``) no bytes follow; their ``values`` stand in the header. This file is sent to targets together with
`replay`, so it needs the standard library and numpy only, and runs with Python 3.8.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO

    from numpy.typing import NDArray

_LENGTH = struct.Struct("<q")
MOST_BYTES = 4 << 30
"""Of one message. Whoever says more does not speak this language."""


class WireError(Exception):
    """What came is no message: it is cut, or its parts do not fit."""


def pack(header: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]] | None = None) -> bytes:
    """The bytes of a message.

    Args:
        header: JSON-able values; the key ``tensors`` is written here.
        tensors: Arrays by name; texts are arrays of ``object`` or of ``str``.
    """
    described, raw = [], []
    for name, array in (tensors or {}).items():
        entry: dict[str, Any] = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
        if array.dtype.kind in "OUS":
            texts = [value.decode() if isinstance(value, bytes) else str(value) for value in array.ravel().tolist()]
            entry.update(dtype="string", values=texts)
        else:
            raw.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        described.append(entry)
    text = json.dumps({**header, "tensors": described}).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join([_LENGTH.pack(len(text)), text, *raw])
    return _LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the tensors of a message without its length.

    Raises:
        WireError: its parts do not fit.
    """
    import numpy as np

    try:
        (length,) = _LENGTH.unpack_from(body)
        place = _LENGTH.size + length
        header = json.loads(body[_LENGTH.size : place].decode())
        tensors: dict[str, NDArray[Any]] = {}
        for entry in header.pop("tensors"):
            shape = tuple(entry["shape"])
            if entry["dtype"] == "string":
                array = np.array(entry["values"], dtype=object)
            else:
                dtype = np.dtype(entry["dtype"]).newbyteorder("<")
                count = 1
                for size in shape:
                    count *= size
                array = np.frombuffer(body, dtype, count, place).astype(dtype.newbyteorder("="))
                place += array.nbytes
            tensors[entry["name"]] = array.reshape(shape)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WireError(f"the parts of a message do not fit: {error}") from error
    if place != len(body):
        raise WireError(f"a message has {len(body)} bytes, its header tells of {place}")
    return header, tensors


def read(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """The next message of a stream; None at its end.

    Raises:
        WireError: the stream ends within a message, or holds something else.
    """
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    (length,) = _LENGTH.unpack(head) if len(head) == _LENGTH.size else (-1,)
    if not _LENGTH.size <= length <= MOST_BYTES:
        raise WireError(f"{head!r} is no length of a message")
    body = stream.read(length)
    if len(body) != length:
        raise WireError(f"a message of {length} bytes ends after {len(body)}")
    return unpack(body)
