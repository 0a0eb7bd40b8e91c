"""Tables of text (CSV) inside a source: decoding, and rows that know their line."""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence

from edgedl.data.sources import Source
from runtime.errors import InputError

LONGEST_RECORD = 20
"""Lines of one record, at most. One that takes more has a quote that nothing closes, and would swallow the rest."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(data: bytes, errors: str = "replace") -> str:
    r"""A file's text, composed as in Unicode's NFC, its lines ended by ``\n``.

    Args:
        data: UTF-8, or UTF-16 with a mark at the beginning, as spreadsheets write it; a mark is dropped.
        errors: what becomes of other bytes: "replace" makes U+FFFD of each, "strict" refuses them.

    Raises:
        UnicodeDecodeError: there are others and `errors` is "strict".
    """
    text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig", errors=errors)
    ended = text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")
    return unicodedata.normalize("NFC", ended)


def records(text: str, place: str, delimiter: str = ",", *, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV text, empty ones left out.

    Args:
        text: as `decode` gives it.
        place: the file's name, for messages.
        delimiter: between fields.
        strict: refuse a quote inside a quoted field that is not doubled.

    Yields:
        The number of its first line, from 1, and its fields, blanks around them removed.

    Raises:
        InputError: quotes do not match; the line is named.
    """
    # Not splitlines(), which also splits at separators that people paste into captions.
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=strict, skipinitialspace=True)
    mend = 'a field with a quote is written in quotes, and the quote is doubled: "a ""quoted"" word"'
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{place}, line {line}: this is not CSV: {error}; {mend}") from error
        if reader.line_num - line >= LONGEST_RECORD:
            raise InputError(f"{place}, line {line}: a quote is open for {LONGEST_RECORD} lines; {mend}")
        if any(fields):
            yield line, [field.strip() for field in fields]


def rows(source: Source, member: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table with a header.

    Args:
        source: where it lies.
        member: its name there.
        columns: those that must be there; others may be.

    Returns:
        A mapping per row from column to text, blanks around names and values removed; what a short row lacks is empty.

    Raises:
        InputError: the table is not text, is broken, or lacks a column.
    """
    place = f"{member} in {source.path}"
    try:
        text = decode(source.read(member), "strict")
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is not a table of text (CSV): {error}; copy it here again") from error
    found = records(text, place)
    _, header = next(found, (1, []))
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(f"{place} has the columns {', '.join(header) or '(none)'}; expected also {', '.join(missing)}")
    return [dict(zip(header, fields + [""] * len(header), strict=False)) for _, fields in found]
