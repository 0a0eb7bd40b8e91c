"""What the headers of a request say of its body: how long the JSON is, and how it is compressed."""

from __future__ import annotations

import zlib

from service.problems import Problem, bad_request
from service.routes.v2.tensors import HEADER_LENGTH

ENCODINGS = ("gzip", "deflate")
_EITHER = 32 + zlib.MAX_WBITS
"""Tells zlib to see for itself whether a stream is gzip or zlib."""


def read_header_length(text: str | None) -> int | None:
    """The value of ``Inference-Header-Content-Length``; None where there is none.

    Raises:
        Problem: 400, it is no length.
    """
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise bad_request(f"{HEADER_LENGTH} {text[:40]!r}", "the length of the JSON in bytes")
    return int(text)


def decompress(body: bytes, encoding: str | None, most: int) -> bytes:
    """The body before it was compressed, never more than so many bytes.

    Args:
        body: As it was sent.
        encoding: The header ``Content-Encoding``.
        most: Bytes.

    Raises:
        Problem: 400, it cannot be decompressed; 413, there are more bytes; 415, it is compressed in another way.
    """
    kind = (encoding or "").strip().lower()
    if kind in ("", "identity"):
        return body
    if kind not in ENCODINGS:
        raise Problem(
            415,
            f"Found Content-Encoding {kind[:40]}; expected one of {', '.join(ENCODINGS)}.",
            found=f"Content-Encoding {kind[:40]}",
            expected=", ".join(ENCODINGS),
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
    inflater = zlib.decompressobj(_EITHER)
    try:
        inflated = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise bad_request(f"a body that is not {kind} ({error})", f"a body compressed with {kind}") from error
    if len(inflated) > most:
        expected = f"at most {most:,} bytes"
        raise Problem(413, f"Found a body of more than {most:,} bytes once it is decompressed; expected {expected}.")
    if not inflater.eof or inflater.unused_data:
        raise bad_request(f"a {kind} body that does not end where the stream does", "one whole stream")
    return inflated
