"""Messages between this machine and a target."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from exporters.targets import wire

DTYPES = st.sampled_from(["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64", "uint64"])


@given(st.lists(arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, min_side=0, max_side=3)), max_size=3))
def test_arrays_come_back_bit_for_bit(sent):
    message = wire.pack({"run": 3}, {f"t{i}": array for i, array in enumerate(sent)})
    header, found = wire.read(io.BytesIO(message))
    assert header == {"run": 3}
    assert [array.tobytes() for array in found.values()] == [array.tobytes() for array in sent]
    assert [(a.dtype, a.shape) for a in found.values()] == [(a.dtype, a.shape) for a in sent]


def test_texts_stand_in_the_header():
    texts = np.array([["å", "b"]], object)
    _, found = wire.read(io.BytesIO(wire.pack({}, {"t": texts})))
    assert found["t"].tolist() == [["å", "b"]]


def test_the_layout_is_the_one_that_other_languages_read():
    """By hand: length, length of the header, a header that fills whole words, then the numbers."""
    message = wire.pack({}, {"x": np.array([1.0, -2.0], ">f4")})
    (length,) = struct.unpack_from("<q", message)
    (words,) = struct.unpack_from("<q", message, 8)
    assert length == len(message) - 8
    assert words % 8 == 0
    header = json.loads(message[16 : 16 + words])
    assert header == {"tensors": [{"name": "x", "dtype": "float32", "shape": [2]}]}
    assert message[16 + words :] == struct.pack("<2f", 1.0, -2.0)


@pytest.mark.parametrize(
    "damaged",
    [b"\0" * 4, b"\xff" * 8, struct.pack("<q", 100) + b"{}", struct.pack("<2q", 16, 8) + b"[" * 8],
    ids=["no length", "an impossible length", "cut", "no header"],
)
def test_what_is_no_message_is_refused(damaged):
    with pytest.raises(wire.WireError):
        wire.read(io.BytesIO(damaged))


def test_a_stream_that_ends_between_messages_ends():
    assert wire.read(io.BytesIO(b"")) is None
