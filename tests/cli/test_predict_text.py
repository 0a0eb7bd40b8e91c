"""``edgedl predict`` with a bundle that goes on with text: on standard output nothing but what follows, as it comes."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgedl.cli.output import Output
from runtime.pipelines import load
from tests.chars import write_chars_bundle

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chars_bundle(tmp_path_factory.mktemp("bundles") / "chars.edge").path


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.txt"
    path.write_text("ab é", encoding="utf-8")
    return path


def text_of(bundle: Path, prompt: str, **options: Any) -> str:
    with load(bundle) as pipeline:
        return "".join(pipeline.generate(prompt, **options))


def test_the_text_follows(edgedl: Call, bundle: Path, prompt: Path) -> None:
    result = edgedl("predict", bundle, prompt)
    assert (result.status, result.err) == (0, "")
    assert result.out == text_of(bundle, "ab é") + "\n"
    options = ("--length", 40, "--temperature", 1.5, "--top-k", 3, "--seed", 7)
    again = edgedl("predict", bundle, prompt, *options)
    assert again.out == text_of(bundle, "ab é", length=40, temperature=1.5, top_k=3, seed=7) + "\n"


def test_as_a_document(edgedl: Call, bundle: Path, prompt: Path) -> None:
    result = edgedl("predict", bundle, prompt, "--length", "9", "--json")
    assert result.document == {
        "schema_version": 1,
        "ok": True,
        "results": [
            {
                "input": str(prompt),
                "text": text_of(bundle, "ab é", length=9),
                "unknown": [],
                "length": 9,
                "temperature": 0.8,
                "top_k": 0,
                "seed": 0,
            }
        ],
    }


def test_several_inputs_are_named_and_what_cannot_be_read_is_reported(
    edgedl: Call, bundle: Path, prompt: Path, tmp_path: Path
) -> None:
    other, latin = tmp_path / "other.txt", tmp_path / "latin.txt"
    other.write_text("?b")
    latin.write_bytes(b"\xe9")
    result = edgedl("predict", bundle, prompt, latin, other, tmp_path, "--length", "5")
    first, second = (text_of(bundle, text, length=5) for text in ("ab é", "?b"))
    assert result.out == f"==> {prompt} <==\n{first}\n==> {other} <==\n{second}\n"
    assert result.status == 2
    assert "latin.txt is no UTF-8 text" in result.err
    assert "the model has never seen '?'" in result.err
    assert f"{tmp_path} cannot be read" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--length", "0"), "the length is 0"),
        (("--temperature", "-1"), "the temperature is -1.0"),
        (("--temperature", "nan"), "the temperature is nan"),
        (("--top-k", "-2"), "top-k is -2"),
        (("--seed", "-2"), "the seed is -2"),
        (("--length", "many"), "invalid int value"),
        (("--save", "drawn"), "goes on with text"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_refused_once(
    edgedl: Call, bundle: Path, prompt: Path, arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    result = edgedl("predict", bundle, prompt, prompt, *arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.count(words) == 1
    assert "Traceback" not in result.err


def test_other_bundles_write_no_text(edgedl: Call, scale_bundle: Path, prompt: Path) -> None:
    result = edgedl("predict", scale_bundle, prompt, "--top-k", "3", "--seed", "1")
    assert result.status == 2
    assert "--top-k, --seed: a bundle of the task 'scaling' writes no text" in result.err


def test_a_stream_of_numbers_is_another_thing(edgedl: Call, bundle: Path) -> None:
    assert "has no steps to stream" in edgedl("predict", bundle, "--stream").err
    assert "no option of text" in edgedl("predict", bundle, "--stream", "--seed", "1").err


def test_each_character_is_handed_on_at_once() -> None:
    class Terminal(io.StringIO):
        handed = 0

        def flush(self) -> None:
            self.handed = len(self.getvalue())

    terminal = Terminal()
    out = Output(terminal, as_json=False)
    for count, character in enumerate("née", 1):
        out.piece(character)
        assert terminal.handed == count
    assert terminal.getvalue() == "née"
    silent = Terminal()
    Output(silent, as_json=True).piece("a")
    assert silent.getvalue() == ""


def test_a_reader_may_stop_reading(bundle: Path) -> None:
    """A pipe from one process to another: the text begins to come long before it is complete."""
    command = [sys.executable, "-m", "edgedl", "predict", str(bundle), "-", "--length", "1000000"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("ab")
        process.stdin.close()
        assert process.stdout.read(50) == text_of(bundle, "ab", length=50)
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr
        assert process.stderr.read() == ""


def test_the_help_says_what_there_is(edgedl: Call) -> None:
    shown = " ".join(edgedl("predict", "--help").out.split())
    assert all(option in shown for option in ("--length", "--temperature", "--top-k", "--seed"))
    assert "(default: 0.8)" in shown
