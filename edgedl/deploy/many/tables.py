"""Parquet: the tables that are read, and the parts that results are written in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime.errors import InputError, MissingExtraError


@dataclass(frozen=True, slots=True)
class Row:
    """The answer to one input.

    Attributes:
        name: Of the input.
        sha256: Of its bytes; empty where they cannot be read.
        bundle: The digest of the bundle that answered.
        answer: JSON as `predict --json` gives it; empty where there is an error.
        error: Why there is no answer; empty where there is one.
    """

    name: str
    sha256: str
    bundle: str
    answer: str
    error: str


def parquet() -> ModuleType:
    """Imports pyarrow's Parquet.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from pyarrow import parquet as module
    except ImportError as error:
        raise MissingExtraError("pyarrow", "many") from error
    return module  # type: ignore[no-any-return]  # pyarrow has no types


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes a part of the results, atomically: it is there as a whole, or not at all."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in Row.__slots__])
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
        parquet().write_table(table, temporary, compression="zstd")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def count_rows(path: Path) -> tuple[int, int]:
    """Rows of a part, and how many of them hold an error.

    Raises:
        InputError: it is damaged.
    """
    try:
        errors = parquet().read_table(path, columns=["error"]).column("error").to_pylist()
    except (OSError, ValueError) as error:  # the errors of pyarrow are of these kinds
        raise InputError(f"{path} is no part of results: {error}; remove it and run again") from error
    return len(errors), sum(map(bool, errors))


def table_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Number, name and path of each row of a table; the path is empty where the table holds the bytes.

    Raises:
        InputError: it is no table, or has neither a column ``path`` nor ``bytes``.
    """
    columns = _table(str(path)).column_names
    if "path" in columns:
        for number, value in enumerate(_column(path, "path")):
            yield number, value, value
    elif "bytes" in columns:
        names = _column(path, "name") if "name" in columns else None
        for number in range(_table(str(path)).num_rows):
            yield number, names[number] if names else f"{path}#{number}", ""
    else:
        raise InputError(f"{path} has the columns {', '.join(columns)}; expected path, or bytes and name")


def read_bytes_of(path: str, row: int) -> bytes:
    """The bytes in a row of a table.

    Raises:
        InputError: there are none.
    """
    value = _table(path).column("bytes")[row].as_py()
    if not isinstance(value, bytes):
        raise InputError(f"{path}: row {row} holds {type(value).__name__} in the column bytes")
    return value


def _column(path: Path, name: str) -> list[str]:
    values = _table(str(path)).column(name).to_pylist()
    wrong = next((number for number, value in enumerate(values) if not isinstance(value, str) or not value), None)
    if wrong is not None:
        raise InputError(f"{path}: row {wrong} has no text in the column {name}")
    return values  # type: ignore[no-any-return]  # checked above


@lru_cache(maxsize=2)
def _table(path: str) -> Any:
    try:
        return parquet().read_table(path, memory_map=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no Parquet table: {error}") from error
