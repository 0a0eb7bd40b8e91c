"""What a person is told when a command fails: one sentence, the exit status, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from edgedl.cli import failures, inspect
from runtime import errors


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(_args):
        print("a library printed this")
        raise error

    monkeypatch.setattr(inspect, "run", run)


CASES = [
    (errors.BundleError("x.edge: damaged; copy it again"), 2, "edgedl: x.edge: damaged; copy it again\n"),
    (errors.CheckFailedError("the answers differ"), 1, "edgedl: the answers differ\n"),
    (errors.MissingExtraError("torch", "train"), 2, "pip install 'edgedl[train]'"),
    (ModuleNotFoundError("No module named 'cv2'", name="cv2"), 2, "pip install 'edgedl[media]'"),
    (ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), 2, "pip install 'edgedl[train]'"),
    (FileNotFoundError(2, "No such file or directory", "a.jpg"), 2, "edgedl: a.jpg: No such file or directory\n"),
    (OSError(28, "No space left on device"), 2, "edgedl: No space left on device\n"),
    (KeyboardInterrupt(), 130, "edgedl: interrupted\n"),
    (RuntimeError("first\nsecond"), 70, "edgedl: RuntimeError: first. This is a bug in edgedl"),
    (ModuleNotFoundError("No module named 'strange'", name="strange"), 70, "No module named 'strange'. This is a bug"),
    (KeyError(), 70, "edgedl: KeyError. This is a bug"),
]


@pytest.mark.parametrize(("error", "status", "sentence"), CASES, ids=lambda value: type(value).__name__)
def test_one_sentence_and_the_status(edgedl, monkeypatch, error, status, sentence):
    fail_with(monkeypatch, error)
    result = edgedl("inspect", "x")
    assert result.status == status
    assert result.out == ""
    assert sentence in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(("error", "status", "sentence"), CASES, ids=lambda value: type(value).__name__)
def test_with_json_the_failure_is_a_document(edgedl, monkeypatch, error, status, sentence):
    fail_with(monkeypatch, error)
    result = edgedl("inspect", "x", "--json")
    assert result.status == status
    document = result.document
    assert document["ok"] is False
    assert document["error"]["exit_status"] == status
    assert document["error"]["type"] == type(error).__name__
    assert document["error"]["message"] in result.err


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_traceback_is_shown_when_asked_for(edgedl, monkeypatch, how):
    fail_with(monkeypatch, errors.BundleError("damaged"))
    monkeypatch.setenv("EDGEDL_TRACEBACK", "1" if how == "variable" else "0")
    result = edgedl("inspect", "x", *(["--traceback"] if how == "option" else []))
    assert result.status == 2
    assert "Traceback (most recent call last)" in result.err
    assert result.err.endswith("edgedl: damaged\n")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "required: VERB"),
        (["frobnicate"], "unknown verb 'frobnicate' (edgedl --help"),
        (["predct", "x"], "unknown verb 'predct'; did you mean predict? (edgedl --help"),
        (["predict", "x", "--treads", "2"], "unknown --treads; did you mean --threads? (edgedl predict --help"),
        (["predict", "x", "--treads=2"], "unknown --treads=2; did you mean --threads?"),
        (["inspect"], "required: B"),
        (["inspect", "x", "--device"], "--device"),
        (["verify", "x", "--threads", "0"], "'0' is not a whole number of at least 1"),
        (["serve", "x", "--port", "70000"], "'70000' is not a port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors(edgedl, arguments, found):
    result = edgedl(*arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("usage: edgedl")
    assert found in result.err.splitlines()[-1]


def test_a_usage_error_with_json_is_a_document(edgedl):
    result = edgedl("verify", "--json")
    assert result.status == 2
    assert result.document["error"]["type"] == "UsageError"


def test_what_libraries_print_does_not_mix_with_the_result(edgedl, monkeypatch):
    def run(args):
        print("noise")
        args.out.text("result")
        return 0

    monkeypatch.setattr(inspect, "run", run)
    result = edgedl("inspect", "x")
    assert (result.status, result.out, result.err) == (0, "result\n", "noise\n")


def test_warnings_take_one_line_on_standard_error(edgedl, monkeypatch):
    def run(_args):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("unknown key", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(inspect, "run", run)
    show = warnings.showwarning
    result = edgedl("inspect", "x")
    assert result.err == "edgedl: warning: unknown key\n"
    assert warnings.showwarning is show


def test_every_optional_package_is_found_in_an_extra():
    import tomllib

    root = Path(__file__).resolve().parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, extra in failures.EXTRAS.values():
        assert any(line.startswith(package) for line in extras[extra]), package


def test_a_reader_that_goes_away_is_no_drama(scale_bundle):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "edgedl", "inspect", str(scale_bundle)],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_ends_with_130():
    code = """
import os, signal, sys
from edgedl.cli import inspect, main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started with the signal ignored
inspect.run = lambda args: os.kill(os.getpid(), signal.SIGINT)
sys.exit(main(["inspect", "x"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "edgedl: interrupted\n")


def test_a_foreign_package_in_the_way_is_named(tmp_path):
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "edgedl", "inspect", "x"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert str(tmp_path / "runtime") in done.stderr
    assert "Traceback" not in done.stderr
