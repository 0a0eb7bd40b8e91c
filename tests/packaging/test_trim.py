"""What the image leaves out: the stub in the place of OpenCV's linear algebra, and what is removed."""

from __future__ import annotations

import ast
import ctypes
import importlib
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINES = {"x86_64": 62, "aarch64": 183}

# Functions of OpenCV that reach no linear algebra: reading, writing, scaling, turning, drawing, cameras.
SAFE = {
    "VideoCapture", "cvtColor", "error", "flip", "getTextSize", "imdecode", "imdecodemulti", "imencode", "norm",
    "putText", "rectangle", "resize", "rotate", "transpose", "warpAffine",
}  # fmt: skip


@pytest.fixture
def elf(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "image")
    return importlib.import_module("elf")


@pytest.fixture
def trim(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "image")
    return importlib.import_module("trim")


def opencv_names() -> set[str]:
    """Every attribute of cv2 that the runtime and the service name, less constants."""
    names = set()
    for path in sorted([*(ROOT / "runtime").rglob("*.py"), *(ROOT / "service").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cv2":
                names.add(node.attr)
    return {name for name in names if not name.isupper() and not name.startswith(("_", "CAP_", "COLOR_", "IMREAD_"))}


def test_nothing_that_the_service_calls_needs_the_linear_algebra():
    used = opencv_names()
    assert "imdecode" in used
    assert used <= SAFE


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="the image is for x86-64 and AArch64")
def test_a_stub_is_loaded_and_ends_the_process_that_calls_it(elf, tmp_path):
    library = tmp_path / "libstub.so"
    functions = frozenset(("dgesv_", "cblas_sgemm", "sgels_"))
    library.write_bytes(elf.stub(MACHINES[platform.machine()], library.name, functions))
    loaded = ctypes.CDLL(str(library))
    assert all(hasattr(loaded, name) for name in functions)
    assert not hasattr(loaded, "dgetrf_")
    code = f"import ctypes; ctypes.CDLL({str(library)!r}).cblas_sgemm()"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -signal.SIGILL


def test_what_opencv_expects_of_its_linear_algebra_is_in_the_stub(elf, trim, tmp_path):
    opencv = Path(cv2.__file__).parent
    found = list(opencv.parent.glob("opencv_python_headless.libs/libopenblas*"))
    if not found:
        pytest.skip("this build of OpenCV brings no OpenBLAS")
    library = tmp_path / found[0].name
    shutil.copy(found[0], library)
    trim._replace(library, opencv)
    assert library.stat().st_size < 4096
    loaded = ctypes.CDLL(str(library))
    expected = elf.symbols_of((opencv / "cv2.abi3.so").read_bytes())[1] & elf.symbols_of(found[0].read_bytes())[0]
    assert {"dgesv_", "cblas_dgemm"} <= expected
    assert all(hasattr(loaded, name) for name in expected)


def test_symbols_are_read(elf):
    core = Path(np.__file__).parent / "_core"
    (library,) = core.glob("_multiarray_umath.*.so")
    data = library.read_bytes()
    defined, expected = elf.symbols_of(data)
    assert "PyInit__multiarray_umath" in defined
    assert "PyLong_FromLong" in expected
    assert elf.machine_of(data) == MACHINES.get(platform.machine(), elf.machine_of(data))


def test_tools_tests_and_libraries_that_nobody_names_are_removed(trim, tmp_path):
    kept = ("onnxruntime/capi/state.so", "onnxruntime/capi/libonnxruntime_providers_shared.so", "numpy/core.py",
            "bin/edgedl", "edgedl/cli/main.py", "numpy-2.0.dist-info/LICENSE")  # fmt: skip
    dropped = ("onnxruntime/transformers/models/x.py", "numpy/tests/test_x.py", "numpy/core.pyi", "bin/flask",
               "onnxruntime/capi/libonnxruntime.so.1.32.0", "google/protobuf/x.py")  # fmt: skip
    for name in (*kept, *dropped):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"libonnxruntime_providers_shared.so" if name.endswith("state.so") else b"x")
    saved = trim.trim(tmp_path)
    assert saved == len(dropped)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_a_library_that_another_names_stays(trim, tmp_path):
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi / "state.so").write_bytes(b"\0libonnxruntime.so.1.32.0\0")
    (capi / "libonnxruntime.so.1.32.0").write_bytes(b"x")
    trim.trim(tmp_path)
    assert (capi / "libonnxruntime.so.1.32.0").is_file()
