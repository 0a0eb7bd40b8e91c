"""ONNX Runtime's telemetry stays off: in a home of its own, outside CI, an engine leaves no file behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.child import run_python
from runtime.devices import PROBE_GRAPH

RUN = """
import sys, time
import numpy as np
from runtime.engine import Engine
engine = Engine(open(sys.argv[1], "rb").read(), threads=1)
for _ in range(3):
    engine.run(np.zeros((1, 1, 4, 4), np.float32))
time.sleep(0.5)  # a writer of its own thread gets its chance
engine.close()
import os
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
# The same without the runtime, to show that the test can fail.
BARE = """
import sys, time
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(open(sys.argv[1], "rb").read(), providers=["CPUExecutionProvider"])
session.run(None, {"x": np.zeros((1, 1, 4, 4), np.float32)})
time.sleep(0.5)
print(onnxruntime.__version__)
"""


def files_after(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], str]:
    home = tmp_path / "home"
    home.mkdir()
    graph = tmp_path / "probe.onnx"
    graph.write_bytes(PROBE_GRAPH)
    for variable in list(os.environ):
        # CI hides it; XDG folders would lead it away from HOME.
        if variable.startswith(("XDG_", "ORT_", "GITHUB_")) or variable in ("CI", "TF_BUILD"):
            monkeypatch.delenv(variable)
    # Python's own cache of compiled files is not the question.
    done = run_python(code, str(graph), environment={"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    return sorted(str(path.relative_to(home)) for path in home.rglob("*")), done.stdout.strip()


def test_an_engine_leaves_nothing_in_a_new_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, value = files_after(RUN, tmp_path, monkeypatch)
    assert files == []
    assert value == "1"


def test_a_bare_session_does_so_the_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, version = files_after(BARE, tmp_path, monkeypatch)
    if not files:
        pytest.skip(f"onnxruntime {version} writes nothing by itself here")
    assert any("onnxruntime" in name for name in files)


def test_a_users_own_setting_is_kept() -> None:
    code = (
        "import os; from runtime.devices import onnxruntime; onnxruntime(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    assert run_python(code, environment={"ORT_DISABLE_TELEMETRY": "true"}).stdout.strip() == "true"


def test_no_module_imports_onnxruntime_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported before `runtime.devices.onnxruntime` has been called would find the telemetry on."""
    pytest.importorskip("torch", reason="the exporters need it")
    code = """
import importlib, pkgutil, sys
import exporters
for found in pkgutil.walk_packages(exporters.__path__, "exporters."):
    importlib.import_module(found.name)
print("onnxruntime" in sys.modules)
"""
    done = run_python(code)
    assert done.stdout.strip() == "False", done.stderr
