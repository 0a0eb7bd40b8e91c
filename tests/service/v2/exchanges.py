"""Requests that clients sent, and a reading of bodies of the protocol that shares nothing with the service's own."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from numpy.typing import NDArray
from werkzeug.test import TestResponse

RECORDED = Path(__file__).with_name("recorded")
"""tritonclient 2.73.0 and kserve 0.21.0, byte for byte."""

NUMBERS = {"BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2"}
NUMBERS |= {"INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


def recorded(name: str) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, headers and body of a request."""
    head, _, body = (RECORDED / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.title(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert int(headers.get("Content-Length", "0")) == len(body)
    return method, path, headers, body


def replay(client: FlaskClient, name: str) -> TestResponse:
    """Sends a recorded request."""
    method, path, headers, body = recorded(name)
    for unsent in ("Host", "Connection", "Content-Length"):
        headers.pop(unsent, None)
    return client.open(path, method=method, headers=headers, data=body)


def sent_tensors(name: str) -> dict[str, NDArray[Any]]:
    """The inputs of a recorded request."""
    _, _, headers, body = recorded(name)
    match headers.get("Content-Encoding"):
        case "gzip":
            body = gzip.decompress(body)
        case "deflate":
            body = zlib.decompress(body)
    return tensors(body, headers.get("Inference-Header-Content-Length"), "inputs")


def answered_tensors(response: TestResponse) -> dict[str, NDArray[Any]]:
    """The outputs of an answer."""
    assert response.status_code == 200, response.text
    return tensors(response.data, response.headers.get("Inference-Header-Content-Length"), "outputs")


def tensors(body: bytes, length: str | None, key: str) -> dict[str, NDArray[Any]]:
    """Arrays by name; elements of BYTES are texts."""
    end = len(body) if length is None else int(length)
    document, data = json.loads(body[:end]), body[end:]
    found: dict[str, NDArray[Any]] = {}
    for tensor in document[key]:
        size = tensor.get("parameters", {}).get("binary_data_size")
        kind, shape = tensor["datatype"], tensor["shape"]
        if size is None:
            flat = np.array(tensor["data"], NUMBERS.get(kind, object))
        elif kind == "BYTES":
            flat = np.array(list(elements(data[:size])), object)
        else:
            flat = np.frombuffer(data[:size], NUMBERS[kind])
        found[tensor["name"]] = flat.reshape(shape)
        data = data[size or 0 :]
    assert data == b""
    return found


def elements(data: bytes) -> Any:
    """The texts in the bytes of a tensor of BYTES."""
    while data:
        (size,) = struct.unpack_from("<I", data)
        yield data[4 : 4 + size].decode()
        data = data[4 + size :]


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are equal bit for bit."""
    if b.dtype.kind == "O":
        return a.shape == b.shape and a.tolist() == b.tolist()
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def binary_request(inputs: dict[str, NDArray[Any]], **more: Any) -> dict[str, Any]:
    """What a test client sends for some arrays of numbers as binary data."""
    names = {np.dtype(code): name for name, code in NUMBERS.items()}
    entries = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": names[array.dtype],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    head = json.dumps({"inputs": entries, **more}).encode()
    data = head + b"".join(array.tobytes() for array in inputs.values())
    return {"data": data, "headers": {"Inference-Header-Content-Length": str(len(head))}}


def bytes_request(*elements: bytes, **parameters: Any) -> dict[str, Any]:
    """What a test client sends to ask a pipeline."""
    data = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    tensor = {"name": "input", "shape": [len(elements)], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    return {"data": head + data, "headers": {"Inference-Header-Content-Length": str(len(head))}}
