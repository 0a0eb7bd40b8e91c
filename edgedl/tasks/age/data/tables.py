"""Label tables (CSV) inside a source: what APPA-REAL and FairFace have in common."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from edgedl.data.sources import Source
from runtime.errors import InputError


def rows(source: Source, member: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table with a header.

    Args:
        source: where it lies.
        member: its name there.
        columns: those that must be there; others may be.

    Returns:
        A mapping per row from column to text, blanks around names and values removed.

    Raises:
        InputError: the table is not text, is broken, or lacks a column.
    """
    try:
        text = source.read(member).decode("utf-8-sig")  # a spreadsheet leaves its mark in front
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        missing = [column for column in columns if column not in header]
        if missing:
            raise InputError(
                f"{member} in {source.path} has the columns {', '.join(header) or '(none)'};"
                f" expected also {', '.join(missing)}"
            )
        reader.fieldnames = header
        return [{key: (value or "").strip() for key, value in row.items() if isinstance(key, str)} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{member} in {source.path} is not a table of text (CSV): {error}; copy it here again"
        ) from error
