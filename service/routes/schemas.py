"""Arrays, steps and the list of bundles as JSON Schema, for ``GET /openapi.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.checks import size_range
from runtime.manifest import ModelSpec, TensorSpec

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}

BUNDLES: Schema = {
    "title": "Bundles",
    "type": "object",
    "required": ["bundles", "limits", "recording"],
    "properties": {
        "bundles": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "version", "task", "url", "ready", "options", "accepts", "pipeline", "models"],
                "properties": {
                    **dict.fromkeys(("name", "version", "task", "license", "description", "url"), _TEXT),
                    **dict.fromkeys(("data", "streams", "drawings", "example"), _OPTIONAL_TEXT),
                    "versions": {"type": "array", "items": {"type": "object", "additionalProperties": _TEXT}},
                    "ready": {"type": "boolean"},
                    "options": {"type": "object", "additionalProperties": _TEXT},
                    "accepts": {"type": "array", "items": _TEXT},
                    "metrics": {"type": "array", "items": {"type": "object"}},
                    "pipeline": {"type": "object"},
                    "models": {"type": "object", "additionalProperties": {"type": "object"}},
                },
            },
        },
        "limits": {"type": "object", "additionalProperties": {"type": "number"}},
        "recording": {
            "type": ["object", "null"],
            "description": "what of the inputs is kept: at most so many of each bundle, and bytes; null: nothing",
            "properties": {"inputs": {"type": "integer"}, "bytes": {"type": "integer"}},
        },
    },
}
"""The answer of ``GET /v1``."""


def closed(properties: Schema, required: Sequence[str] = ()) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


def array_schema(tensor: TensorSpec, model: ModelSpec) -> Schema:
    """An input as nested lists, with the sizes that it may have. That a name is one size everywhere cannot be said."""
    schema = _value(tensor)
    for axis, size in reversed(list(enumerate(tensor.shape))):
        last = axis == len(tensor.shape) - 1
        if isinstance(size, int):
            bounds = {"minItems": size, "maxItems": size}
        else:
            sizes = size_range(model, size)
            # An empty list tells nothing of the sizes inside of it, so that only the innermost one may be empty.
            bounds = {"minItems": sizes.min if last else max(1, sizes.min)}
            bounds |= {} if sizes.max is None else {"maxItems": sizes.max}
        schema = {"type": "array", "items": schema, **bounds}
    return {"description": f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}], as nested lists"} | schema


def step_schema(tensors: Sequence[TensorSpec]) -> Schema:
    """A step of a stream: the values of the only input, or an object with those of each."""
    values = {tensor.name: _step_values(tensor) for tensor in tensors}
    by_name = closed(values, tuple(values))
    return {"anyOf": [*values.values(), by_name]} if len(values) == 1 else by_name


def _step_values(tensor: TensorSpec) -> Schema:
    count = math.prod(size for size in tensor.shape if isinstance(size, int))
    values: Schema = {"type": "array", "items": _value(tensor), "minItems": count, "maxItems": count}
    return {"anyOf": [values, _value(tensor)]} if count == 1 else values


def _value(tensor: TensorSpec) -> Schema:
    if tensor.dtype in ("bool", "string"):
        return {"type": {"bool": "boolean", "string": "string"}[tensor.dtype]}
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        # Up to half a step above the largest number, what is sent is rounded to it, and from there on to infinity.
        info = np.finfo(dtype)
        end = float(info.max) + 2.0 ** (info.maxexp - info.nmant - 2)
        return {"type": "number"} | ({"exclusiveMinimum": -end, "exclusiveMaximum": end} if math.isfinite(end) else {})
    return {"type": "integer", "minimum": int(np.iinfo(dtype).min), "maximum": int(np.iinfo(dtype).max)}
