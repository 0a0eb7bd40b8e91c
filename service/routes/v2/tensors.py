"""Inference requests and answers: from bytes to arrays by name, and from arrays to bytes.

JSON comes first. The tensors whose ``parameters`` give a ``binary_data_size`` follow it as bytes, in their order, and
the header ``Inference-Header-Content-Length`` says where the JSON ends. A request whose header says 0 is the bytes of
the model's only input.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from runtime.errors import InputError, TooLargeError
from runtime.manifest import ModelSpec, TensorSpec
from runtime.values import as_array
from service.json_body import parse_json
from service.problems import Problem, bad_request
from service.routes.inputs import json_type
from service.routes.v2.datatypes import (
    DATATYPES,
    bytes_of_tensor,
    datatype_of,
    object_array,
    read_shape,
    tensor_of_bytes,
    texts_of,
)

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON_TYPE, BINARY_TYPE = "application/json", "application/octet-stream"

MOST_NUMBERS = 1 << 22
"""Of an output in JSON; as binary data there may be more."""

_EXPECTED = 'an object such as {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'
_ADVICE = f" Send tensors as binary data, after the JSON, whose length {HEADER_LENGTH} gives."
_REQUEST_KEYS = frozenset(("id", "model_name", "model_version", "parameters", "inputs", "outputs"))
_INPUT_KEYS = frozenset(("name", "shape", "datatype", "parameters", "data"))
_OUTPUT_KEYS = frozenset(("name", "parameters"))
_MOST_ID = 1000


@dataclass(frozen=True, slots=True)
class Inference:
    """What a request asks for.

    Attributes:
        inputs: Arrays by name, of the types that the model declares.
        outputs: The outputs that are wanted, and of each whether as binary data.
        id: What the sender calls the request; empty where it has no name.
        parameters: Those of the request, without ``binary_data_output``.
    """

    inputs: dict[str, NDArray[Any]]
    outputs: tuple[tuple[str, bool], ...]
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The batch: how many rows the first input has."""
        shape = next(iter(self.inputs.values())).shape if self.inputs else ()
        return shape[0] if shape else 1


def read_infer(body: bytes, header_length: int | None, spec: ModelSpec, *, raw: bool = False) -> Inference:
    """Reads the body of a request.

    Args:
        body: The whole body, uncompressed.
        header_length: Bytes of JSON in front; None where all of it is JSON, 0 where none is.
        spec: The model's inputs and outputs.
        raw: Elements of BYTES stay bytes; otherwise they become texts, as graphs take them.

    Raises:
        Problem: 400, it has another form; 413, there is too much JSON.
        InputError: a tensor does not fit the model, as far as this can be said without running it.
    """
    if header_length == 0:
        return _only_input(body, spec, raw=raw)
    if header_length is not None and header_length > len(body):
        raise bad_request(f"{HEADER_LENGTH} {header_length} of a body of {len(body)} bytes", "at most those bytes")
    head = body if header_length is None else body[:header_length]
    document = _object(parse_json(head, _EXPECTED, advice=_ADVICE), "a request", _REQUEST_KEYS)
    name = document.get("id", "")
    if not isinstance(name, str) or len(name) > _MOST_ID:
        raise bad_request(f"an id of {_found(name)}", f"a text of at most {_MOST_ID} characters")
    parameters = _parameters(document, "the request")
    if parameters.get("sequence_id"):
        raise bad_request("the parameter sequence_id", "the state as a tensor: it is an ordinary input and output")
    inputs = _list(document, "inputs")
    return Inference(
        _read_inputs(inputs, spec, memoryview(body)[len(head) :], raw=raw),
        _read_outputs(document, spec, _truth(parameters, "binary_data_output", "the request")),
        name,
        {key: value for key, value in parameters.items() if key != "binary_data_output"},
    )


def write_infer(
    model: str, version: str, inference: Inference, answers: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, str], bytes]:
    """The headers and the body of an answer.

    Args:
        model: Its name.
        version: Its version.
        inference: What was asked for.
        answers: The outputs by name.

    Raises:
        InputError: an output that JSON is wanted of holds numbers that JSON does not have.
        TooLargeError: it holds too many for JSON.
    """
    outputs: list[dict[str, Any]] = []
    data: list[memoryview] = []
    for name, binary in inference.outputs:
        array = answers[name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": array.shape}
        if binary:
            data.append(bytes_of_tensor(array))
            entry["parameters"] = {"binary_data_size": data[-1].nbytes}
        else:
            entry["data"] = _listed(name, array)
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if inference.id:
        document["id"] = inference.id
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not data:
        return {"Content-Type": JSON_TYPE}, head
    return {"Content-Type": BINARY_TYPE, HEADER_LENGTH: str(len(head))}, b"".join((head, *data))


def _read_inputs(entries: Sequence[Any], spec: ModelSpec, data: memoryview, *, raw: bool) -> dict[str, NDArray[Any]]:
    specs = {tensor.name: tensor for tensor in spec.inputs}
    inputs: dict[str, NDArray[Any]] = {}
    at = 0
    for entry in entries:
        tensor = _object(entry, "an input", _INPUT_KEYS)
        name = _name(tensor, specs, "input", inputs)
        shape = read_shape(tensor.get("shape"), name)
        expected = DATATYPES[specs[name].dtype]
        if tensor.get("datatype") != expected:
            raise InputError(f"the input {name!r} has the datatype {_found(tensor.get('datatype'))}; it is {expected}")
        parameters = _parameters(tensor, f"the input {name!r}")
        size = parameters.get("binary_data_size")
        if size is None:
            inputs[name] = _from_json(specs[name], shape, tensor, parameters, raw=raw)
            continue
        if type(size) is not int or not 0 <= size <= len(data) - at:
            found = f"a binary_data_size of {_found(size)} of the input {name!r}"
            raise bad_request(found, f"at most the {len(data) - at:,} bytes that follow the JSON and earlier inputs")
        if tensor.get("data") is not None:
            raise bad_request(f"the input {name!r} with data and binary_data_size", "one of them")
        array = tensor_of_bytes(specs[name].dtype, shape, data[at : at + size], name)
        inputs[name] = texts_of(array, name) if expected == "BYTES" and not raw else array
        at += size
    if at != len(data):
        raise bad_request(f"{len(data):,} bytes after the JSON", f"the {at:,} that the inputs name")
    if len(inputs) < len(specs):
        given = ", ".join(inputs) or "no input"
        raise bad_request(given, ", ".join(f"{t.name} ({DATATYPES[t.dtype]})" for t in spec.inputs))
    return inputs


def _from_json(
    spec: TensorSpec, shape: tuple[int, ...], tensor: Mapping[str, Any], parameters: Mapping[str, Any], *, raw: bool
) -> NDArray[Any]:
    data = tensor.get("data")
    if not isinstance(data, list):
        raise bad_request(f"data of the input {spec.name!r} of type {json_type(data)}", "a list of its elements")
    array = as_array(spec, data)
    if array.shape != shape:
        if array.ndim != 1 or array.size != math.prod(shape):
            raise bad_request(
                f"data of the input {spec.name!r} in lists of the shape {list(array.shape)}",
                f"its shape {list(shape)}, or the {math.prod(shape):,} elements in one list",
            )
        array = array.reshape(shape)
    if spec.dtype != "string":
        return array
    if parameters.get("content_type") == "base64":
        decoded = object_array([_from_base64(text, spec.name) for text in array.reshape(-1).tolist()], shape)
        return decoded if raw else texts_of(decoded, spec.name)
    return object_array([text.encode() for text in array.reshape(-1).tolist()], shape) if raw else array


def _from_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"an element of {name!r} that is not base64 ({error})", "base64 text") from error


def _read_outputs(document: Mapping[str, Any], spec: ModelSpec, default: bool) -> tuple[tuple[str, bool], ...]:
    specs = {tensor.name: tensor for tensor in spec.outputs}
    wanted: dict[str, bool] = {}
    for entry in _list(document, "outputs") if document.get("outputs") is not None else ():
        output = _object(entry, "an output", _OUTPUT_KEYS)
        name = _name(output, specs, "output", wanted)
        parameters = _parameters(output, f"the output {name!r}")
        if parameters.get("classification"):
            raise bad_request("the parameter classification", "the scores themselves; sort them where they are used")
        wanted[name] = _truth(parameters, "binary_data", f"the output {name!r}", default=default)
    return tuple(wanted.items()) or tuple((name, default) for name in specs)


def _only_input(body: bytes, spec: ModelSpec, *, raw: bool) -> Inference:
    """A request without JSON. What its shape is, the number of its bytes says."""
    if len(spec.inputs) != 1:
        raise bad_request(
            f"{HEADER_LENGTH} 0 for a model of {len(spec.inputs)} inputs", "JSON, which says which input is which"
        )
    (tensor,) = spec.inputs
    outputs = tuple((output.name, True) for output in spec.outputs)
    if tensor.dtype == "string":
        element = object_array([bytes(body)], [1] * len(tensor.shape))
        return Inference({tensor.name: element if raw else texts_of(element, tensor.name)}, outputs)
    unknown = sum(isinstance(size, str) for size in tensor.shape)
    one = math.prod(size for size in tensor.shape if isinstance(size, int)) * np.dtype(tensor.dtype).itemsize
    if unknown > 1 or not one or len(body) % one:
        raise bad_request(
            f"{len(body):,} bytes without JSON for an input of the shape {list(tensor.shape)}",
            f"a shape with at most one size that is not known, and a multiple of {one:,} bytes",
        )
    shape = tuple(len(body) // one if isinstance(size, str) else size for size in tensor.shape)
    return Inference({tensor.name: tensor_of_bytes(tensor.dtype, shape, memoryview(body), tensor.name)}, outputs)


def _listed(name: str, array: NDArray[Any]) -> Any:
    """The elements in one list, as JSON takes them."""
    if array.size > MOST_NUMBERS:
        raise TooLargeError(
            f"the output {name!r} has {array.size:,} elements; at most {MOST_NUMBERS:,} are given as JSON: ask for "
            "binary data"
        )
    if array.dtype.kind in "OU":
        return [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1).tolist()]
    if array.dtype.kind != "f":
        return np.ascontiguousarray(array).reshape(-1)
    # As float64, so that the text of each number is exact.
    numbers = np.ascontiguousarray(array, np.float64).reshape(-1)
    if not np.isfinite(numbers).all():
        raise InputError(f"the output {name!r} holds NaN or infinities, which JSON does not have: ask for binary data")
    return numbers


def _object(value: Any, what: str, keys: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"{what} of type {json_type(value)}", _EXPECTED)
    if not value.keys() <= keys:
        stranger = next(key for key in value if key not in keys)
        raise bad_request(f"the key {stranger[:40]!r} in {what}", f"any of {', '.join(sorted(keys))}")
    return value


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise bad_request(f"{key} of type {json_type(value)}", _EXPECTED)
    return value


def _name(entry: Mapping[str, Any], known: Mapping[str, Any], what: str, taken: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or name not in known:
        raise bad_request(f"the {what} {_found(name)}", " or ".join(known))
    if name in taken:
        raise bad_request(f"the {what} {name!r} twice", "it once")
    return name


def _parameters(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    value = document.get("parameters")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"parameters of {where} of type {json_type(value)}", "an object")
    if "shared_memory_region" in value:
        raise Problem(400, f"Found a shared memory region for {where}; this service takes tensors in the body only.")
    return value


def _truth(parameters: Mapping[str, Any], key: str, where: str, *, default: bool = False) -> bool:
    value = parameters.get(key)
    if value is not None and type(value) is not bool:
        raise bad_request(f"{key} of {where} of type {json_type(value)}", "true or false")
    return default if value is None else value


def _found(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float) else f"type {json_type(value)}"
