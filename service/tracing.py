"""The trace that a request belongs to: W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/)."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

# Section 3.2.2. A version above 00 may append further fields, after another dash.
_TRACEPARENT = re.compile(r"(?P<version>[0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?P<more>-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, and the part of it that is one request here.

    Attributes:
        trace_id: Of the whole trace; 32 hexadecimal digits.
        span_id: Of this request; 16 of them.
        sampled: Whether whoever asked records the trace.
    """

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def header(self) -> str:
        """The header ``traceparent`` that continues the trace. Of the flags it has only the one that level 1 knows."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.sampled else 0:02x}"


def continued(header: str) -> Trace | None:
    """The trace of a request, with a fresh span for it.

    Args:
        header: ``traceparent``, as it was sent.

    Returns:
        None where the header is malformed: the standard has it ignored then.
    """
    found = _TRACEPARENT.fullmatch(header)
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"] is not None):
        return None
    _, trace_id, parent, flags, _ = found.groups()
    if not int(trace_id, 16) or not int(parent, 16):
        return None
    return Trace(trace_id, secrets.token_hex(8), bool(int(flags, 16) & _SAMPLED))
