"""Whether a graph names weights in another file, told without the package onnx.

ONNX Runtime before 1.21.1 reads a file that a graph in memory names by an absolute path, whatever folder it is told to
look in. Debian's package for 32-bit ARM is such a release. A bundle comes from outside, so its graphs must not read
files of the machine. Only the fields of ONNX that can hold a tensor are walked, and no weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from runtime.errors import BundleError

SAFE_RELEASE = (1, 21, 1)
"""The first release that keeps a graph in memory from reading files."""

# By message: the fields that lead to a tensor, and the message that each holds (onnx.proto, IR version 10).
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_files(graph: bytes, release: str) -> None:
    """Refuses a graph in memory that names a file, where this release of ONNX Runtime would read it.

    Args:
        graph: An ONNX file.
        release: The version of ONNX Runtime.

    Raises:
        BundleError: it names one, or is no ONNX file that can be walked.
    """
    numbers = tuple(int(part) for part in release.split("+")[0].split(".")[:3] if part.isdecimal())
    if numbers >= SAFE_RELEASE or b"location" not in graph:
        return
    try:
        named = names_files(graph)
    except (IndexError, ValueError, RecursionError) as error:
        raise BundleError("the graph is damaged: it is no ONNX file") from error
    if named:
        raise BundleError(
            f"the graph keeps weights in another file, and ONNX Runtime {release} would read whatever file it names; a "
            "bundle holds all its weights in the graph"
        )


def names_files(graph: bytes) -> bool:
    """Whether a tensor of an ONNX file lies in another file.

    Raises:
        ValueError: it cannot be walked, as for the next.
        IndexError: it ends early.
    """
    return _walk(memoryview(graph), "model")


def _walk(message: memoryview, kind: str) -> bool:
    fields = _FIELDS[kind]
    for field, value in _entries(message):
        if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == 1)):
            return True
        if field in fields and isinstance(value, memoryview) and _walk(value, fields[field]):
            return True
    return False


def _entries(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message with their numbers, in the order in which they were written."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _number(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _number(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + size > len(message):
            raise IndexError("a field is longer than the message")
        yield key >> 3, message[place : place + size]
        place += size


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """A varint, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of more than ten bytes")
