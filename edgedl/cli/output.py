"""The result of a command on standard output: text for people, or one JSON document with ``--json``."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

SCHEMA_VERSION = 1


class Output:
    """Writes the result. ``text`` is silent with ``--json``, ``document`` without it, so a verb calls both."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self.stream = stream
        self.as_json = as_json

    def silence(self) -> None:
        """Nothing more is written."""
        self.stream = io.StringIO()

    def text(self, text: str) -> None:
        """Prints text for people."""
        if not self.as_json:
            self._write(text)

    def piece(self, text: str) -> None:
        """Prints a part of a text for people at once, without an end of line."""
        if not self.as_json:
            self._write(text, end="")
            self.flush()

    def document(self, document: Mapping[str, Any]) -> None:
        """Prints the JSON document; ``schema_version`` is put in front, ``ok`` has to be in it."""
        if self.as_json:
            self._write(render({"schema_version": SCHEMA_VERSION, "ok": document["ok"], **document}))

    def line(self, document: Mapping[str, Any]) -> None:
        """One of many small JSON documents, each in a line, of an answer that has no end."""
        if self.as_json:
            self._write(json.dumps(json.loads(render(document))))

    def flush(self) -> None:
        """Hands everything to the reader, who may have gone away (``BrokenPipeError``)."""
        self.stream.flush()

    def _write(self, text: str, end: str = "\n") -> None:
        # A file name need not be valid text, nor the terminal speak UTF-8; neither is a reason to fail.
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + end)


def render(value: Any, indent: str = "") -> str:
    """JSON that people can read too: objects over several lines, lists of numbers in one.

    What is not finite becomes null: NaN and Infinity are not JSON.
    """
    if isinstance(value, Mapping) and value:
        inner = indent + "  "
        pairs = (f"{inner}{json.dumps(str(key))}: {render(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(pairs) + f"\n{indent}}}"
    value = _plain(value)
    if isinstance(value, list):
        if any(isinstance(item, Mapping) for item in value):
            inner = indent + "  "
            return "[\n" + ",\n".join(f"{inner}{render(item, inner)}" for item in value) + f"\n{indent}]"
        return "[" + ", ".join(render(item, indent) for item in value) + "]"
    return json.dumps(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's arrays and numbers, without importing numpy
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return list(value)
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)  # paths, dates


def number(value: Any) -> str:
    """A cell of a table: four significant digits for fractions, everything else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if 10 <= abs(value) < 1e6 else f"{value:.3g}"
    return str(value)


def size(count: int) -> str:
    """Bytes as people say them, e.g. ``10.8 MB``."""
    if count < 1000:
        return f"{count} bytes"
    value, units = count / 1000, iter(("kB", "MB", "GB"))
    unit = next(units)
    while value >= 1000 and unit != "GB":
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], indent: str = "") -> str:
    """A table in plain text; a column of numbers is aligned to the right."""
    cells = [[number(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [
        bool(rows) and all(value is None or (isinstance(value, int | float)) for value in column)
        for column in (zip(*rows, strict=True) if rows else [()] * len(header))
    ]
    lines = []
    for row in [list(header), *cells]:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        lines.append(indent + "  ".join(padded).rstrip())
    return "\n".join(lines)
