"""The JSON of a request's body. Lists take some twenty times the memory of their text, so its length is bounded."""

from __future__ import annotations

from typing import Any

import orjson

from service.problems import Problem, bad_request

MOST_BYTES = 4 * 2**20
"""Of a body that holds lists or text; encoded pictures are not read here."""


def parse_json(body: bytes, expected: str, *, advice: str = "") -> Any:
    """What a JSON parser makes of a body.

    Args:
        body: Of the request.
        expected: What the body should be, for messages.
        advice: What whoever sends too much can do.

    Raises:
        Problem: 400, it is not JSON; 413, it is too long.
    """
    check_length(body, "JSON", advice)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"a body that is not JSON ({error})", expected) from error


def whole(value: Any) -> Any:
    """A whole number that is written as one with a fraction of zero, such as 7.0, is 7 (JSON Schema, section 6.1.1)."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= 2.0**53 else value


def check_length(body: bytes, kind: str, advice: str = "") -> None:
    """Refuses a body that is too long to be made into lists.

    Raises:
        Problem: 413.
    """
    if len(body) > MOST_BYTES:
        raise Problem(
            413,
            f"Found {len(body):,} bytes of {kind}; expected at most {MOST_BYTES:,}.{advice}",
            found=f"{len(body):,} bytes of {kind}",
            expected=f"at most {MOST_BYTES:,} bytes",
        )
