"""MATLAB files against scipy's reader, and damaged ones, with which that reader may end the process."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat, savemat

from edgedl.tasks.age.data import matlab
from edgedl.tasks.age.data.imdb_wiki import FIELDS
from edgedl.tasks.age.data.matlab import read_variables
from tests.edgedl.data.mats import NAMES, cell, mat, record


def saved(variables: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_imdb_wiki_is_read_as_scipy_reads_it(compressed: bool) -> None:
    records = [record(name, face_location=(1.5, 2, 30 + i, 40)) for i, name in enumerate(NAMES)]
    data = mat(records, compressed=compressed, celeb_id=[3.0, 4.0, 5.0], celeb_names=cell(["x", "y"]))
    fields = (*FIELDS, "celeb_id")
    found = read_variables(data, fields)["wiki"]
    theirs = loadmat(io.BytesIO(data), struct_as_record=True)["wiki"][0, 0]
    assert isinstance(found, dict)
    assert set(found) == set(fields), "what was not asked for is passed over"
    for field in fields:
        for mine, other in zip(found[field], theirs[field].ravel(), strict=True):
            np.testing.assert_array_equal(np.ravel(mine), np.ravel(other), err_msg=field)


numbers = hnp.arrays(
    st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
texts = st.text(st.characters(codec="utf-8", min_codepoint=1, exclude_categories=["Cs"]), max_size=9)


@given(st.lists(numbers | texts, max_size=4), st.booleans())
def test_numbers_and_texts_in_cells_are_scipys(values: list[Any], compressed: bool) -> None:
    data = saved({"x": {"values": cell(values), "other": 1.0}}, do_compression=compressed)
    found = read_variables(data, ("values",))["x"]
    theirs = loadmat(io.BytesIO(data))["x"][0, 0]["values"].ravel()
    assert isinstance(found, dict)
    assert len(found["values"]) == len(theirs)
    for mine, other in zip(found["values"], theirs, strict=True):
        if isinstance(mine, str):
            assert mine == "".join(other.tolist())
        else:
            np.testing.assert_array_equal(mine, other.ravel(order="F"))


def test_big_endian() -> None:
    """As old Macs and Suns wrote: by hand after the format's description, section 1."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">2I", kind, len(content)) + content + bytes(-len(content) % 8)

    def matrix(kind: int, name: bytes, dimensions: tuple[int, int], *content: bytes) -> bytes:
        parts = element(6, struct.pack(">2I", kind, 0)), element(5, struct.pack(">2i", *dimensions)), element(1, name)
        return element(14, b"".join((*parts, *content)))

    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    ages = matrix(6, b"ages", (1, 3), element(3, struct.pack(">3h", 1, 300, -2)))  # doubles, stored as they fit
    small = matrix(4, b"name", (1, 2), struct.pack(">2H", 4, 4) + "αβ".encode("utf-16-be"))
    found = read_variables(header + ages + small, ())
    assert found["ages"].tolist() == [1, 300, -2]
    assert found["name"] == "αβ"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no header"),
        (b"name,age\n" * 40, "no header"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400), "another version, perhaps 7.3: save it with -v7"),
        (saved({"x": 1.0})[:-9], "cut off"),
        (saved({"x": 1.0}, do_compression=True)[:-9], "cut off"),
        (saved({"x": "a text of which the end is missing"})[:-16], "cut off"),
    ],
    ids=["empty", "text", "v7.3", "cut", "cut while compressed", "cut in a text"],
)
def test_what_is_no_such_file_is_told(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_variables(data, ())


def test_a_variable_that_grows_beyond_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="has more than 1,000 bytes"):
        read_variables(saved({"x": np.zeros(1000)}, do_compression=True), ())


def test_cells_in_cells_in_cells_end() -> None:
    inner: Any = 1.0
    for _ in range(40):
        inner = cell([inner])
    with pytest.raises(ValueError, match="more than 8 deep"):
        read_variables(saved({"x": inner}), ())


def test_sizes_that_are_not_there_take_no_memory() -> None:
    data = bytearray(saved({"x": cell([1.0, 2.0])}))
    place = data.find(struct.pack("<2i", 1, 2))
    data[place : place + 8] = struct.pack("<2i", 1, 2**31 - 1)
    with pytest.raises(ValueError, match=r"a matrix .* in"):
        read_variables(bytes(data), ())


def test_any_damage_is_an_error_of_its_own_kind() -> None:
    chance = random.Random(0)
    whole = [mat([record(name) for name in NAMES], compressed=compressed) for compressed in (False, True)]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        data = bytearray(chance.choice(whole))
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.randrange(1, 6)):
            if data:
                data[chance.randrange(len(data))] = chance.choice((0, 255, chance.randrange(256)))
        try:
            read_variables(bytes(data), FIELDS)
            outcomes["read"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert all(outcomes.values()), outcomes


def test_damage_under_the_compression_is_an_error_too() -> None:
    """Of a compressed variable the checksum would tell; here it is packed again after the damage."""
    chance = random.Random(1)
    plain = mat([record(name) for name in NAMES])
    for _ in range(300):
        content = bytearray(plain[128:])
        for _ in range(chance.randrange(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        packed = zlib.compress(bytes(content), 1)
        data = plain[:128] + struct.pack("<2I", 15, len(packed)) + packed
        try:
            read_variables(data, FIELDS)
        except ValueError:
            continue
