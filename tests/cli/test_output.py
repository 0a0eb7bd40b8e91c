"""Text for people and JSON for machines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from edgedl.cli.output import Output, number, render, size, table


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": [], "b": {}},
        {"ok": True, "n": 3, "x": 0.1, "text": 'q"uo\nte', "none": None},
        {"list": [{"a": [1, 2.5]}, {"b": [[1, 2], [3]]}], "mixed": [1, {"c": [{"d": 1}]}]},
        [[[1]]],
        "text",
    ],
    ids=str,
)
def test_render_is_the_same_json_as_the_standard_library_reads(value):
    assert json.loads(render(value)) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (np.float32("-inf"), None),
        (np.array([1.0, np.nan], np.float32), [1.0, None]),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.zeros((2, 0)), [[], []]),
        (Path("a") / "b", "a/b"),
        ((1, 2), [1, 2]),
        ({1: 2}, {"1": 2}),
    ],
    ids=str,
)
def test_render_takes_what_results_are_made_of(value, expected):
    assert json.loads(render(value)) == expected


def test_lists_of_numbers_stay_in_one_line():
    assert render({"box": [1, 2, 3, 4]}) == '{\n  "box": [1, 2, 3, 4]\n}'


def test_a_terminal_that_speaks_ascii_gets_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    out = Output(stream, as_json=False)
    out.text("ão \udcff")
    out.flush()
    assert stream.buffer.getvalue() == b"\\xe3o \\udcff\n"


def test_text_and_document_exclude_each_other():
    for as_json, expected in ((False, "text\n"), (True, '{\n  "schema_version": 1,\n  "ok": false\n}\n')):
        stream = io.StringIO()
        out = Output(stream, as_json=as_json)
        out.text("text")
        out.document({"ok": False})
        assert stream.getvalue() == expected


def test_a_table_aligns_numbers_to_the_right():
    text = table(("name", "value"), [("a", 1), ("long name", 123)])
    assert text == "name       value\na              1\nlong name    123"


def test_an_empty_table_is_its_header():
    assert table(("name", "value"), []) == "name  value"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (10_752_978, "10.8 MB"), (2_500_000_000_000, "2500.0 GB")],
)
def test_sizes(value, expected):
    assert size(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.1e-5, "1.1e-05"),
        (0.0, "0"),
        (4.75, "4.75"),
        (43.21, "43.2"),
        (True, "yes"),
        (None, "-"),
        (12, "12"),
        ("a", "a"),
    ],
)
def test_numbers_in_cells(value, expected):
    assert number(value) == expected
