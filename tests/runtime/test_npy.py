"""Arrays from people one does not know: every order and size is read right, everything else is one sentence."""

from __future__ import annotations

import io
import math
import re
import struct
import tracemalloc
import warnings
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.npy import load_npy, load_npz

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(
    descr: Any = "<f4", shape: Any = (2, 3), data: bytes = VALUES.tobytes(), *, fortran: Any = False, text: str = "",
    version: tuple[int, int] = (1, 0),
) -> bytes:  # fmt: skip
    """An .npy file with any header."""
    header = (text or repr({"descr": descr, "fortran_order": fortran, "shape": shape})).encode(
        "latin-1", "replace"
    ) + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + data


READ: dict[str, tuple[bytes, np.ndarray]] = {
    "plain": (npy(), VALUES),
    "version 2": (npy(version=(2, 0)), VALUES),
    "columns first": (npy(data=np.asfortranarray(VALUES).tobytes("A"), fortran=True), VALUES),
    "big-endian": (npy(">f4", data=VALUES.astype(">f4").tobytes()), VALUES),
    "big-endian columns first": (npy(">i2", (2, 3), VALUES.astype(">i2").tobytes("F"), fortran=True), VALUES),
    "big-endian half": (npy(">f2", data=VALUES.astype(">f2").tobytes()), VALUES),
    "big-endian text": (npy(">U2", (1,), "ab".encode("utf-32-be")), np.array(["ab"])),
    "scalar": (npy("<f4", (), np.float32(7).tobytes()), np.array(7)),
    "nothing": (npy("<f4", (0, 3), b""), np.zeros((0, 3))),
    "nothing, huge": (npy("<f4", (0, 10**18), b""), np.zeros((0, 10**18), np.float32)),
    "truths": (npy("|b1", (2,), b"\0\1"), np.array([False, True])),
    "32 dimensions": (npy("<f4", (1,) * 32, bytes(4)), np.zeros((1,) * 32)),
}


@pytest.mark.parametrize("name", READ)
def test_every_order_of_bytes_and_memory_is_read(name: str) -> None:
    data, expected = READ[name]
    array = load_npy(data)
    assert array.shape == expected.shape
    np.testing.assert_array_equal(array, expected)
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    assert array.flags.writeable


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no npy file: it starts with nothing"),
    "no header": (b"\x93NUMPY", "no npy file: it starts with 93 4e"),
    "cut header": (b"\x93NUMPY\x01\x00\xff\x00{", "the npy header is none"),
    "header of 64 kB": (npy(text=" " * 65_000), "an npy header of 65,001 bytes; at most 10,000 are read"),
    "header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "an npy header of 4,294,967,295 bytes"),
    "code": (npy(text="__import__('os').system('id')"), "the npy header is none"),
    "braces": (npy(text="{" * 3000), "the npy header is none"),
    "other version": (npy(version=(9, 9)), r"npy format \(9, 9\) is not read"),
    "objects": (npy("|O", (1,), b"\x80\x04N."), "holds object"),
    "fields": (npy([("a", "<f4")], (6,)), "expected numbers, truth values or text"),
    "sub-arrays": (npy(("<f4", (3,)), (2,)), "expected numbers, truth values or text"),
    "complex": (npy("<c8", (3,)), "holds complex64"),
    "times": (npy("<M8[s]", (3,)), "holds datetime64"),
    "bytes": (npy("|S4", (6,)), r"holds \|S4"),
    "raw": (npy("|V4", (6,)), r"holds \|V4"),
    "text of nothing": (npy("<U0", (10**9,), b""), "holds <U0"),
    "truths that are none": (npy("|b1", (2,), b"\1\2"), "neither 0 nor 1"),
    "too little": (npy(shape=(2, 4)), "promises 32 bytes of data, the file holds 24"),
    "too much": (npy(shape=(2, 2)), "promises 16 bytes of data, the file holds 24"),
    "far too little": (npy(shape=(10**12, 10**12)), "the file holds 24"),
    "negative": (npy(shape=(-2, -3)), "gives the shape"),
    "truth as a size": (npy(shape=(True, 6)), "gives the shape"),
    "fraction as a size": (npy(shape=(1.0, 6)), "the npy header is none|gives the shape"),
    "no shape": (npy(shape=6), "the npy header is none"),
    "beyond every machine": (npy("<f4", (0, 2**70), b""), "gives the shape"),
    "product beyond every machine": (npy("<f4", (0, 2**62, 2**62), b""), "too big"),
    "64 dimensions": (npy("<f4", (1,) * 64, bytes(4)), "gives the shape"),
    "order": (npy(fortran=2), "the npy header is none"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_a_sentence(name: str) -> None:
    data, words = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=words) as caught:
            load_npy(data)
    assert type(caught.value) is ValueError
    assert not re.search("object at 0x|numpy|Traceback", str(caught.value)), "a stranger reads it"


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def test_an_npz_is_read_by_name_and_refused_as_its_arrays_are() -> None:
    found = load_npz(zipped(x=npy(), y=npy(">f4", data=VALUES.astype(">f4").tobytes())))
    assert found.keys() == {"x", "y"}
    np.testing.assert_array_equal(found["x"], found["y"])
    with pytest.raises(ValueError, match="holds object"):
        load_npz(zipped(x=npy("|O", (1,), b"\x80\x04N.")))
    with pytest.raises(ValueError, match="damaged npz"):
        load_npz(zipped(x=npy())[:-10])


SIZES = st.integers(-2, 6) | st.sampled_from([2**31, 2**62, 2**63, 10**18, 2**70])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "descr": st.sampled_from(["<f4", ">f8", "|u1", "<U0", "<U3", "|b1", "|O", "<f2", "|V0", "|S0", "f", "", "<f3"])
        | st.lists(st.tuples(st.text(max_size=2), st.just("<f4")), max_size=2),
        "fortran_order": st.booleans() | st.integers(0, 2),
        "shape": st.lists(SIZES, max_size=5).map(tuple) | st.integers(0, 3) | st.text(max_size=2),
        "more": st.none(),
    },
).map(repr) | st.text(alphabet="{}[]()'\": ,0123456789<>f4ULO|True", max_size=60)


def held(data: bytes) -> None:
    """What comes out is an array no larger than its file, or a ValueError."""
    for load in (load_npy, lambda given: load_npz(zipped(x=given))["x"], load_npz):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's own words about odd headers
            try:
                array = load(data)
            except ValueError:
                continue
        if isinstance(array, np.ndarray):
            assert math.prod(array.shape) * array.itemsize <= len(data)


@settings(max_examples=200)
@given(HEADERS, st.binary(max_size=30), st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_any_header_is_read_or_refused(text: str, data: bytes, version: tuple[int, int]) -> None:
    held(npy(text=text, data=data, version=version))


@settings(max_examples=100)
@given(st.binary(max_size=200).map(lambda tail: b"\x93NUMPY\x01\x00" + tail) | st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    held(data)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(HEADERS, st.binary(max_size=60), st.sampled_from([(1, 0), (2, 0)]), st.integers(0, 10**6), st.integers(0, 255))
def test_any_header_for_longer(text: str, data: bytes, version: tuple[int, int], place: int, mask: int) -> None:
    file = bytearray(npy(text=text, data=data, version=version))
    file[place % len(file)] ^= mask
    held(bytes(file))


def test_a_header_takes_no_memory_on_its_word() -> None:
    tracemalloc.start()
    try:
        for data, _ in REFUSED.values():
            held(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
