"""The public names of the runtime: there, lazy, and nothing more."""

from __future__ import annotations

import pytest

import runtime
from runtime.child import run_python


def test_every_public_name_is_there() -> None:
    assert runtime.PART_OF == "edgedl"
    for name in ("Bundle", "Engine", "diagnose", "read_image"):
        assert getattr(runtime, name).__name__ == name
    assert dir(runtime) == sorted(runtime.__all__)
    with pytest.raises(AttributeError, match="module 'runtime' has no attribute 'nonsense'"):
        _ = runtime.nonsense


def test_importing_the_runtime_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import runtime; print(sorted(set(sys.modules) - before))"
    done = run_python(code)
    imported = set(eval(done.stdout))
    assert not imported & {"numpy", "onnxruntime", "cv2"}, done.stderr
    assert {name for name in imported if name.startswith("runtime")} == {"runtime"}


def test_a_child_is_not_misled_by_the_working_directory(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "__init__.py").write_text("raise SystemExit('foreign')")
    monkeypatch.chdir(tmp_path)
    done = run_python("import runtime; print(runtime.PART_OF)")
    assert done.stdout.strip() == "edgedl", done.stderr
