"""Reading ``.npy`` and ``.npz`` data from people one does not know: no pickle, no memory taken on a header's word."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

MAX_NPZ_BYTES = 1 << 30
"""All arrays of a ``.npz`` file together, unpacked."""

_PLAIN_KINDS = "biufU"  # truth values, integers, floats, fixed-length text (tokens)


def load_npy(data: bytes) -> NDArray[Any]:
    """Decodes one ``.npy`` file that lies in memory.

    Raises:
        ValueError: not such a file, an object array (pickle), or a header that does not fit the length of the data.
    """
    stream = io.BytesIO(data)
    try:
        version = npy_format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"npy format {version} is not read here")
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
    except ValueError:
        raise
    # A hostile header reaches numpy's parser (`ast.literal_eval`), whose errors are many.
    except Exception as error:
        raise ValueError(f"the npy header cannot be read: {error}") from error
    if dtype.kind not in _PLAIN_KINDS or dtype.hasobject:
        raise ValueError(f"the npy file holds {dtype}, expected numbers, truth values or text")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"the npy header gives the shape {shape}")
    found, expected = len(data) - stream.tell(), math.prod(shape) * dtype.itemsize
    if found != expected:
        raise ValueError(f"the npy header promises {expected} bytes of data, the file holds {found}")
    flat = np.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=stream.tell()) if expected else None
    if flat is None:
        return np.empty(shape, dtype)
    # A copy, so that the caller may write to it and `data` can be let go.
    return flat.reshape(shape, order="F" if fortran_order else "C").copy()


def load_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """Decodes a ``.npz`` file that lies in memory: name -> array.

    Raises:
        ValueError: not such a file, damaged, too large when unpacked, or an array that `load_npy` refuses.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > MAX_NPZ_BYTES:
                raise ValueError(f"the npz file unpacks to {total} bytes, more than the {MAX_NPZ_BYTES} that are read")
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
