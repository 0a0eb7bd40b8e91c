"""Golden cases and npy data."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from runtime import golden
from runtime.errors import BundleError
from runtime.golden import GoldenCase, golden_from_npz, golden_to_npz
from runtime.npy import dump_npy, load_npy

CASES = [
    GoldenCase("batch 1", {"x": np.ones((1, 3), np.float32)}, {"y": np.array([1.5]), "layer/out": np.zeros((0, 2))}),
    GoldenCase("black", {"x": np.zeros((2, 2, 3), np.uint8), "n": np.array(7)}, {"y": np.array(["a", "bc"])}),
    GoldenCase("black", {"x": np.asfortranarray(np.arange(6.0).reshape(2, 3))}, {"y": np.array([True, False])}),
]


def test_cases_come_back_in_order_with_type_and_shape() -> None:
    back = golden_from_npz(golden_to_npz(CASES))
    assert [case.name for case in back] == ["batch 1", "black", "black"]
    for case, other in zip(CASES, back, strict=True):
        for side, again in ((case.inputs, other.inputs), (case.outputs, other.outputs)):
            assert list(side) == list(again)
            for name, array in side.items():
                assert again[name].dtype == array.dtype
                np.testing.assert_array_equal(again[name], array)


def test_numpy_reads_it_and_the_bytes_are_reproducible() -> None:
    data = golden_to_npz(CASES)
    assert data == golden_to_npz(CASES)
    with np.load(io.BytesIO(data), allow_pickle=False) as npz:
        np.testing.assert_array_equal(npz["000/batch 1/in/x"], CASES[0].inputs["x"])
        assert "001/black/out/y" in npz.files


def test_numpys_own_npz_is_read() -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{"000/one/in/x": np.arange(3), "000/one/out/y": np.arange(2.0)})
    (case,) = golden_from_npz(stream.getvalue())
    np.testing.assert_array_equal(case.outputs["y"], [0.0, 1.0])


def test_names_with_a_slash_and_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="without a slash"):
        golden_to_npz([GoldenCase("a/b", {"x": np.zeros(1)}, {})])
    with pytest.raises(ValueError, match="Object arrays"):
        golden_to_npz([GoldenCase("a", {"x": np.array([object()])}, {})])


@pytest.mark.parametrize("name", ["x.npy", "a/b/in/x.npy", "000/b/sideways/x.npy", "000/b/in/.npy", "²/b/in/x.npy"])
def test_other_keys_are_refused(name: str) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, dump_npy(np.zeros(1)))
    with pytest.raises(BundleError, match="is not index/case"):
        golden_from_npz(stream.getvalue())


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = golden_to_npz([GoldenCase("big", {"x": np.zeros(10_000_000, np.uint8)}, {})])
    assert len(data) < 20_000
    monkeypatch.setattr(golden, "MAX_GOLDEN_BYTES", 1_000_000)
    with pytest.raises(BundleError, match="more than is read"):
        golden_from_npz(data)


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    data = bytearray(golden_to_npz([GoldenCase("big", {"x": np.zeros(10_000_000, np.uint8)}, {})]))
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = (200).to_bytes(4, "little")
    with pytest.raises(BundleError, match="damaged npz"):
        golden_from_npz(bytes(data))


def test_pickles_are_never_loaded() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="holds object"):
        load_npy(stream.getvalue())


@pytest.mark.parametrize(
    "array",
    [np.array(3.5), np.zeros((0, 4), np.int8), np.arange(6).reshape(2, 3),
     np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(["ä", "bc"]), np.array([True])],
    ids=["scalar", "empty", "int", "fortran", "text", "bool"],
)  # fmt: skip
def test_npy_round_trip(array: np.ndarray) -> None:
    back = load_npy(dump_npy(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


def test_a_header_that_promises_more_than_there_is() -> None:
    data = dump_npy(np.zeros(3, np.uint8)).replace(b"(3,)", b"(3000000000,)".ljust(4))
    with pytest.raises(ValueError, match=r"promises 3000000000 bytes|header"):
        load_npy(data)
