"""Requests and answers of the Open Inference Protocol as bytes: the round trip, and whatever else may arrive."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.manifest import ModelSpec, TensorSpec
from service.problems import Problem
from service.routes.v2 import tensors
from service.routes.v2.datatypes import DATATYPES
from service.routes.v2.encoding import decompress, read_header_length
from service.routes.v2.tensors import Inference, read_infer, write_infer

SIZES = {"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8}
SIZES |= {"FP16": 2, "FP32": 4, "FP64": 8}
NUMBERS = sorted(DATATYPES.keys() - {"string"})
PICTURES = ModelSpec({}, (TensorSpec("face", "uint8", ("N", "H", "W", 3)),), (TensorSpec("age", "float32", ("N",)),))
TWO = ModelSpec(
    {},
    (TensorSpec("x", "float32", ("N", 3)), TensorSpec("flags", "bool", ("N",))),
    (TensorSpec("y", "float32", ("N", 3)), TensorSpec("z", "float64", ("N",))),
)
TEXTS = ModelSpec({}, (TensorSpec("input", "string", ("N",)),), (TensorSpec("output", "string", ("N",)),))


def spec_of(dtype: str, rank: int) -> ModelSpec:
    tensor = TensorSpec("x", dtype, tuple(f"D{axis}" for axis in range(rank)), finite=False)
    return ModelSpec({}, (tensor,), (TensorSpec("y", dtype, tensor.shape),))


def request(array: NDArray[Any], *, binary: bool, nested: bool = False, **more: Any) -> tuple[bytes, int | None]:
    """A request as the documents of the protocol describe it."""
    dtype = "string" if array.dtype.kind == "O" else array.dtype.name
    tensor: dict[str, Any] = {"name": "x", "shape": list(array.shape), "datatype": DATATYPES[dtype]}
    data = b""
    if binary:
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        tensor["parameters"] = {"binary_data_size": len(data)}
    else:
        tensor["data"] = array.tolist() if nested else array.ravel().tolist()
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + data, len(head) if binary else None


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@settings(max_examples=120, deadline=None)
@given(st.data())
def test_arrays_come_through_bit_for_bit(binary: bool, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(NUMBERS))
    elements = arrays.from_dtype(np.dtype(dtype), **({} if binary else {"allow_nan": False, "allow_infinity": False}))
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    array = data.draw(arrays.arrays(dtype, shape, elements=elements))
    nested = not binary and 0 not in shape and len(shape) > 0 and data.draw(st.booleans())
    body, header_length = request(array, binary=binary, nested=nested, id="7")
    inference = read_infer(body, header_length, spec_of(dtype, len(shape)))
    read = inference.inputs["x"]
    assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert read.flags.aligned

    wanted = Inference(inference.inputs, (("y", binary),), inference.id)
    # An output need not lie in memory as it is sent.
    strided = np.repeat(array[..., None], 2, axis=-1)[..., 0]
    headers, sent = write_infer("m", "1", wanted, {"y": strided})
    length = int(headers.get("Inference-Header-Content-Length", len(sent)))
    document = json.loads(sent[:length])
    (output,) = document.pop("outputs")
    assert document == {"model_name": "m", "model_version": "1", "id": "7"}
    assert (output["name"], output["datatype"], output["shape"]) == ("y", DATATYPES[dtype], list(array.shape))
    if binary:
        assert output["parameters"] == {"binary_data_size": array.size * SIZES[output["datatype"]]}
        assert sent[length:] == array.astype(array.dtype.newbyteorder("<")).tobytes()
    else:
        assert np.array(output["data"], dtype).tobytes() == array.tobytes()
        assert length == len(sent)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=5), st.booleans())
def test_bytes_come_through(elements: list[bytes], binary: bool) -> None:
    data = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    tensor = {"name": "input", "shape": [len(elements)], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    inference = read_infer(head + data, len(head), TEXTS, raw=True)
    assert inference.inputs["input"].tolist() == elements
    headers, sent = write_infer("m", "1", inference, {"output": inference.inputs["input"]})
    assert sent[int(headers["Inference-Header-Content-Length"]) :] == data


def test_texts_come_through_as_json() -> None:
    body = json.dumps({"inputs": [{"name": "input", "shape": [1, 2], "datatype": "BYTES", "data": ["å", ""]}]}).encode()
    spec = ModelSpec({}, (TensorSpec("input", "string", (1, "N")),), TEXTS.outputs)
    assert read_infer(body, None, spec).inputs["input"].tolist() == [["å", ""]]
    read = read_infer(body, None, spec, raw=True)
    assert read.inputs["input"].tolist() == [["å".encode(), b""]]
    sent = write_infer("m", "1", read, {"output": read.inputs["input"]})[1]
    assert json.loads(sent)["outputs"][0]["data"] == ["å", ""]


def test_base64_says_so() -> None:
    tensor = {"name": "input", "shape": [1], "datatype": "BYTES", "data": ["/9j/"]}
    tensor["parameters"] = {"content_type": "base64"}
    body = json.dumps({"inputs": [tensor]}).encode()
    assert read_infer(body, None, TEXTS, raw=True).inputs["input"].tolist() == [b"\xff\xd8\xff"]
    with pytest.raises(Problem, match="not base64"):
        read_infer(body.replace(b"/9j/", b"/9j"), None, TEXTS, raw=True)


def test_a_picture_is_not_copied() -> None:
    picture = np.arange(2 * 64 * 64 * 3, dtype=np.uint8).reshape(2, 64, 64, 3)
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "face",
                    "shape": picture.shape,
                    "datatype": "UINT8",
                    "parameters": {"binary_data_size": picture.nbytes},
                }
            ]
        }
    ).encode()
    body = head + picture.tobytes()
    read = read_infer(body, len(head), PICTURES)
    assert np.array_equal(read.inputs["face"], picture)
    assert np.shares_memory(read.inputs["face"], np.frombuffer(body, np.uint8))
    assert read.rows == 2


def test_outputs_are_those_that_were_asked_for() -> None:
    x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    flags = {"name": "flags", "shape": [1], "datatype": "BOOL", "data": [True]}

    def outputs(**more: Any) -> tuple[tuple[str, bool], ...]:
        return read_infer(json.dumps({"inputs": [x, flags], **more}).encode(), None, TWO).outputs

    assert outputs() == outputs(outputs=[]) == (("y", False), ("z", False))
    assert outputs(parameters={"binary_data_output": True}) == (("y", True), ("z", True))
    asked = [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}]
    assert outputs(outputs=asked, parameters={"binary_data_output": True}) == (("z", False), ("y", True))
    assert outputs(outputs=[{"name": "y", "parameters": {"binary_data": True}}]) == (("y", True),)


def test_parameters_are_handed_on() -> None:
    array = np.zeros((1, 3), np.float32)
    body, _ = request(array, binary=False, id="x", parameters={"timeout": 5, "binary_data_output": False, "top_k": 3})
    read = read_infer(body, None, spec_of("float32", 2))
    assert (read.id, read.parameters) == ("x", {"timeout": 5, "top_k": 3})


def test_a_request_may_be_the_bytes_of_its_only_input() -> None:
    spec = ModelSpec({}, (TensorSpec("x", "float32", ("N", 3)),), (TensorSpec("y", "float32", ("N", 3)),))
    read = read_infer(np.arange(6, dtype="<f4").tobytes(), 0, spec)
    assert read.inputs["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read.outputs == (("y", True),)
    assert read_infer(b"\xff\xd8", 0, TEXTS, raw=True).inputs["input"].tolist() == [b"\xff\xd8"]
    for body, other in ((bytes(13), spec), (bytes(12), PICTURES), (bytes(12), TWO), (b"\xff", TEXTS)):
        with pytest.raises((Problem, InputError)):
            read_infer(body, 0, other)


X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
BAD: dict[str, tuple[Any, str]] = {
    "no object": ([], "Found a request of type array"),
    "no inputs": ({"id": "1"}, "inputs of type null"),
    "unknown key": ({"inputs": [X], "output": []}, "the key 'output'"),
    "unknown input": ({"inputs": [X | {"name": "y"}]}, "the input 'y'; expected x"),
    "nameless input": ({"inputs": [X | {"name": ["x"]}]}, "the input type array"),
    "twice": ({"inputs": [X, X]}, "the input 'x' twice"),
    "missing": ({"inputs": []}, r"Found no input; expected x \(FP32\)"),
    "no data": ({"inputs": [{k: v for k, v in X.items() if k != "data"}]}, "data of the input 'x' of type null"),
    "datatype": ({"inputs": [X | {"datatype": "FP64"}]}, "'FP64'; it is FP32"),
    "datatype list": ({"inputs": [X | {"datatype": []}]}, "type array; it is FP32"),
    "count": ({"inputs": [X | {"shape": [2, 3]}]}, "the 6 elements"),
    "nested": ({"inputs": [X | {"data": [[1], [2], [3]]}]}, r"lists of the shape \[3, 1\]"),
    "ragged": ({"inputs": [X | {"data": [[1, 2], [3]]}]}, "lists of equal lengths"),
    "text": ({"inputs": [X | {"data": [1, "2", 3]}]}, r"x\[1\] is the text '2'"),
    "null": ({"inputs": [X | {"data": [1, None, 3]}]}, r"x\[1\] is null"),
    "negative": ({"inputs": [X | {"shape": [-1, 3]}]}, r"the shape \[-1, 3\]"),
    "huge": ({"inputs": [X | {"shape": [2**62, 2**62], "data": []}]}, "the shape"),
    "huge and empty": ({"inputs": [X | {"shape": [2**62, 0, 2**62], "data": []}]}, "the shape"),
    "deep": ({"inputs": [X | {"shape": [1] * 33, "data": [1]}]}, "at most 32 sizes"),
    "truth": ({"inputs": [X | {"shape": [True, 3]}]}, "the shape"),
    "fraction": ({"inputs": [X | {"shape": [1.0, 3]}]}, "the shape"),
    "id": ({"inputs": [X], "id": 7}, "an id of 7"),
    "long id": ({"inputs": [X], "id": "x" * 2000}, "at most 1000 characters"),
    "parameters": ({"inputs": [X], "parameters": [1]}, "parameters of the request of type array"),
    "output": ({"inputs": [X], "outputs": [{"name": "z"}]}, "the output 'z'; expected y"),
    "output twice": ({"inputs": [X], "outputs": [{"name": "y"}, {"name": "y"}]}, "the output 'y' twice"),
    "binary_data": ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "true or false"),
    "classes": ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "classification"),
    "sequence": ({"inputs": [X], "parameters": {"sequence_id": 4}}, "the state as a tensor"),
    "region": ({"inputs": [X | {"parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
    "size": ({"inputs": [X | {"parameters": {"binary_data_size": -4}}]}, "a binary_data_size of -4"),
    "no header": ({"inputs": [X | {"parameters": {"binary_data_size": 12}}]}, "at most the 0 bytes that follow"),
    "both": ({"inputs": [X | {"parameters": {"binary_data_size": 0}}]}, "data and binary_data_size"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(name: str) -> None:
    document, message = BAD[name]
    with pytest.raises((Problem, InputError), match=message) as refused:
        read_infer(json.dumps(document).encode(), None, spec_of("float32", 2))
    if isinstance(refused.value, Problem):
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("size", "data", "message"),
    [
        (12, bytes(11), "at most the 11 bytes"),
        (12, bytes(13), "Found 13 bytes after the JSON; expected the 12"),
        (8, bytes(8), r"Found 8 bytes of 'x'; expected 12, as FP32 of the shape \[1, 3\]"),
    ],
    ids=["short", "long", "shape"],
)
def test_bytes_that_do_not_fit(size: int, data: bytes, message: str) -> None:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(Problem, match=message):
        read_infer(head + data, len(head), spec_of("float32", 2))


@pytest.mark.parametrize(
    ("count", "data"),
    [(1, b"\2\0\0\0x"), (2, b"\1\0\0\0x"), (0, b"\0\0\0\0"), (1, b"\xff\xff\xff\xff"), (10**15, b"\0" * 8)],
    ids=["element", "missing", "rest", "length", "count"],
)
def test_elements_that_do_not_fit(count: int, data: bytes) -> None:
    tensor = {"name": "input", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises((Problem, InputError), match="element"):
        read_infer(head + data, len(head), TEXTS, raw=True)


def test_truth_values_are_0_or_1() -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(InputError, match="neither 0 nor 1"):
        read_infer(head + b"\1\2", len(head), spec_of("bool", 1))


def test_json_has_no_infinities_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Inference({}, (("y", False),))
    with pytest.raises(InputError, match="NaN or infinities"):
        write_infer("m", "1", wanted, {"y": np.array([1, np.inf], np.float32)})
    monkeypatch.setattr(tensors, "MOST_NUMBERS", 2)
    with pytest.raises(InputError, match="ask for binary data"):
        write_infer("m", "1", wanted, {"y": np.zeros(3, np.int8)})


@pytest.mark.parametrize("text", ["", "-1", "1.5", "٣", "1" * 30, "0x10"])
def test_header_lengths_that_are_none(text: str) -> None:
    with pytest.raises(Problem, match="expected the length of the JSON"):
        read_header_length(text)


def test_bodies_are_decompressed_within_a_bound() -> None:
    body = b"x" * 1000
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), (None, body)):
        assert decompress(packed, encoding, 1000) == body
    with pytest.raises(Problem) as bomb:
        decompress(gzip.compress(bytes(10**6)), "gzip", 1000)
    assert bomb.value.status == 413
    with pytest.raises(Problem) as unknown:
        decompress(body, "br", 1000)
    assert (unknown.value.status, unknown.value.headers) == (415, {"Accept-Encoding": "gzip, deflate"})
    for packed in (b"", b"xyz", gzip.compress(body)[:-4], gzip.compress(body) + b"rest"):
        with pytest.raises(Problem) as broken:
            decompress(packed, "gzip", 1000)
        assert broken.value.status == 400


def refused_or_read(body: bytes, header_length: int | None, spec: ModelSpec, *, raw: bool) -> None:
    statuses = []
    try:
        inference = read_infer(body, header_length, spec, raw=raw)
    except Problem as problem:
        statuses = [problem.status]
    except InputError:
        pass
    else:
        assert inference.inputs.keys() == {tensor.name for tensor in spec.inputs}
        assert inference.rows >= 0
    assert set(statuses) <= {400, 413}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=64), st.none() | st.integers(0, 80), st.sampled_from([TWO, TEXTS, PICTURES]), st.booleans())
def test_whatever_arrives_is_read_or_refused(body: bytes, length: int | None, spec: ModelSpec, raw: bool) -> None:
    refused_or_read(body, length, spec, raw=raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SIZE = st.integers(0, 4) | st.sampled_from([-1, 2**31, 2**62, 2**64 - 1, 1.5, True])
PARAMETERS = st.none() | JSON | st.fixed_dictionaries({"binary_data_size": SIZE | st.integers(0, 40)})
TENSOR = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "flags", "input"]) | JSON},
    optional={
        "shape": st.lists(SIZE, max_size=4) | JSON,
        "datatype": st.sampled_from(["FP32", "BOOL", "BYTES"]) | JSON,
        "data": JSON | st.lists(JSON, max_size=6),
        "parameters": PARAMETERS,
    },
)
DOCUMENT = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3) | JSON},
    optional={
        "id": JSON,
        "parameters": JSON,
        "outputs": JSON | st.lists(st.fixed_dictionaries({"name": st.sampled_from(["y", "z"]) | JSON}), max_size=2),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENT, st.binary(max_size=40), st.integers(-3, 3), st.sampled_from([TWO, TEXTS]), st.booleans())
@example({"inputs": [X | {"shape": [1] * 40, "data": json.loads("[" * 70 + "]" * 70)}]}, b"", 0, TWO, False)
def test_whatever_the_json_says_it_is_read_or_refused(
    document: Any, data: bytes, off: int, spec: ModelSpec, raw: bool
) -> None:
    head = json.dumps(document).encode()
    refused_or_read(head + data, max(0, len(head) + off), spec, raw=raw)
    refused_or_read(head, None, spec, raw=raw)
