"""``POST /v1/NAME/drawings`` of a bundle that can draw what it reads: a label and a seed in, a drawing out."""

from __future__ import annotations

from typing import Any

from service.json_body import parse_json, whole
from service.problems import bad_request
from service.routes.inputs import json_type

_EXPECTED = 'an object with a label and, if wanted, a seed, e.g. {"label": 7, "seed": 3}'
_MOST = 2**63 - 1


def wanted_drawing(body: bytes) -> str:
    """What a request wants drawn, as the bundle's pipeline is asked for it: ``digit:7:3``.

    Whether there is such a label, the pipeline says.

    Raises:
        Problem: 400, the body has another form.
    """
    document = parse_json(body, _EXPECTED)
    if not isinstance(document, dict) or "label" not in document or not document.keys() <= {"label", "seed"}:
        found = f"an object with the keys {sorted(document)[:8]}" if isinstance(document, dict) else json_type(document)
        raise bad_request(found, _EXPECTED)
    return f"digit:{_whole('label', document['label'])}:{_whole('seed', document.get('seed', 0))}"


def _whole(name: str, value: Any) -> int:
    value = whole(value)
    if type(value) is not int or not 0 <= value <= _MOST:
        found = repr(value)[:40] if isinstance(value, int | float) else f"type {json_type(value)}"
        raise bad_request(f"a {name} of {found}", f"a whole number from 0 to {_MOST}")
    return value
