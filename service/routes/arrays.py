"""Arrays as JSON, for bundles whose task is only a graph: ``{"inputs": {NAME: nested lists}}``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from runtime.manifest import TensorSpec
from runtime.values import as_array
from service.json_body import parse_json
from service.problems import bad_request
from service.routes.inputs import json_type

ADVICE = " Send the array as .npy, which is smaller and faster."


def json_arrays(body: bytes, specs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """The arrays of a request, in the types that the graph declares. Whether their shapes fit, the graph's engine says.

    Args:
        body: Of the request.
        specs: The graph's inputs.

    Raises:
        Problem: 400, it is not of this form; 413, it is too long.
        InputError: a value is none of its input's type, or lists have unequal lengths.
    """
    names = ", ".join(f'"{spec.name}": …' for spec in specs)
    expected = f'an object {{"inputs": {{{names}}}}} with nested lists of numbers'
    document = parse_json(body, expected, advice=ADVICE)
    if not isinstance(document, dict) or document.keys() != {"inputs"}:
        found = f"an object with the keys {sorted(document)[:8]}" if isinstance(document, dict) else json_type(document)
        raise bad_request(found, expected)
    inputs = document["inputs"]
    if not isinstance(inputs, dict):
        raise bad_request(f"inputs of type {json_type(inputs)}", expected)
    by_name = {spec.name: spec for spec in specs}
    strangers = sorted(inputs.keys() - by_name.keys())
    if strangers:
        raise bad_request(f"the input {strangers[0][:40]!r}", expected)
    return {name: as_array(by_name[name], value) for name, value in inputs.items()}
