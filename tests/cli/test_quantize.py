"""`edgedl quantize` at the command line: a table and a status, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgedl.cli.quantize import CLASSES
from exporters.quantize.emulation import EMULATORS
from exporters.quantize.quantize import UNDECIDED
from runtime.bundle import Bundle, pack
from tests.cli.conftest import Result
from tests.digits import write_digits_bundle
from tests.timers import write_timer_bundle


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_digits_bundle(tmp_path / "digits.edge", draws=False).path


def test_a_refusal_shows_the_table_and_ends_with_1(edgedl: Callable[..., Result], digits: Path) -> None:
    before = Bundle.open(digits).digest
    result = edgedl("quantize", digits, "--max-drop", "0.01")
    assert result.status == 1
    assert "sklearn-digits: " in result.out
    assert f"refused, nothing is written: digits: {UNDECIDED}" in result.out
    assert Bundle.open(digits).digest == before
    assert [file.name for file in digits.parent.iterdir()] == ["digits.edge"]


def test_a_refusal_is_a_document(edgedl: Callable[..., Result], digits: Path) -> None:
    result = edgedl("quantize", digits, "--max-drop", "0.01", "--json")
    document = result.document
    assert (result.status, document["ok"], document["written"]) == (1, False, None)
    assert (document["metric"], document["unit"], document["allowed"]) == ("accuracy", "fraction", 0.01)
    assert set(document["parts"]) == {"calibrate", "choose", "judge"}
    assert {attempt["verdict"] for attempt in document["attempts"]} == {UNDECIDED}


def test_the_classes_offered_are_those_that_can_be_emulated() -> None:
    assert set(CLASSES) == set(EMULATORS)


def test_data_that_are_drawn_need_no_path(edgedl: Callable[..., Result], tmp_path: Path) -> None:
    result = edgedl("quantize", write_timer_bundle(tmp_path / "timer.edge").path, "--max-drop", "0.01")
    assert result.status == 1
    assert result.out.startswith("timer: 100 calibrate, 200 choose, 500 judge; exact in fraction, 0.01 allowed\n")
    assert "exact of timer on the part that chooses: 1 in float32" in result.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--max-drop", "-1"], "'-1' is not a number of at least 0"),
        (["--max-drop", "nan"], "'nan' is not a number of at least 0"),
        ([], "the following arguments are required: --max-drop"),
        (["--max-drop", "0.1", "--also", "sparc"], "invalid choice: 'sparc'"),
        (["--max-drop", "0.1", "--format", "x"], "--format says how --data is to be read; there is no --data"),
        (["--max-drop", "0.1", "--data", "x.zip"], "digits are judged on the embedded ones; --data is not read"),
        (["--max-drop", "0.1", "--model", "faces"], "no model 'faces'; the bundle holds digits"),
    ],
)
def test_a_mistake_is_one_sentence(
    edgedl: Callable[..., Result], digits: Path, arguments: list[str], sentence: str
) -> None:
    result = edgedl("quantize", digits, *arguments)
    assert result.status == 2
    assert sentence in result.err
    assert "Traceback" not in result.err


def test_a_bundle_without_a_metric_is_refused(edgedl: Callable[..., Result], scale_bundle: Path) -> None:
    result = edgedl("quantize", scale_bundle, "--max-drop", "0.1")
    assert result.status == 2
    assert "the task 'scaling' has no metric that edgedl knows, so nothing can say what int8 costs" in result.err


def test_a_packed_bundle_that_is_refused_stays_as_it_is(
    edgedl: Callable[..., Result], digits: Path, tmp_path: Path
) -> None:
    packed = pack(Bundle.open(digits), tmp_path / "packed.edge").path
    before = packed.read_bytes()
    assert edgedl("quantize", packed, "--max-drop", "0.1").status == 1
    assert packed.read_bytes() == before
