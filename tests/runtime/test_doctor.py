"""The doctor: a healthy machine is well, and each thing that can be wrong is found with its remedy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from runtime import devices, doctor
from runtime.child import run_python
from runtime.devices import CPU, ProviderStatus
from runtime.doctor import Check, Report, diagnose
from runtime.errors import MissingExtraError
from runtime.parts import PARTS, shadowed

HEALTHY = ["numpy", "onnxruntime", "opencv-python-headless"]
CUDA = "CUDAExecutionProvider"


def starts(*statuses: ProviderStatus):
    return lambda: [*statuses, ProviderStatus("cpu", CPU, True)]


def checks(**kwargs) -> dict[str, Check]:
    options = {"distributions": lambda: HEALTHY, "start_providers": starts(), **kwargs}
    return {check.name: check for check in diagnose(**options).checks}


def test_this_machine_really() -> None:
    report = diagnose()
    found = {check.name: check for check in report.checks}
    assert found["device cpu"].ok
    assert found["telemetry"].ok
    assert found["packages"].ok, found["packages"]
    assert set(found) >= {"python", "numpy", "onnxruntime", "onnxruntime wheels", "opencv", "threads"}
    assert json.loads(json.dumps(report.to_json()))["ok"] is report.ok
    assert report.ok, str(report)


def test_a_report_is_true_when_every_check_is() -> None:
    good, bad = Check("a", True, "fine"), Check("bb", False, "broken", "mend it")
    assert Report(True, (good,))
    report = Report(False, (good, bad))
    assert not report
    assert str(report).splitlines() == ["ok     a   fine", "WRONG  bb  broken", "           mend it"]


@pytest.mark.parametrize(
    "wheels",
    [["onnxruntime", "onnxruntime-gpu"], ["onnxruntime_gpu", "onnxruntime"], ["onnxruntime", "onnxruntime-openvino"]],
    ids=" ".join,
)
def test_two_onnxruntime_wheels(wheels: list[str]) -> None:
    check = checks(distributions=lambda: wheels)["onnxruntime wheels"]
    assert not check.ok
    assert "are both installed; they share one folder" in check.found
    assert check.advice.startswith("pip uninstall onnxruntime ")
    assert not diagnose(distributions=lambda: wheels, start_providers=starts()).ok


@pytest.mark.parametrize("extra", ["onnxruntime-tools", "onnxruntime-genai", "onnx", "my-onnxruntime"])
def test_neighbours_of_onnxruntime_are_no_conflict(extra: str) -> None:
    assert checks(distributions=lambda: [*HEALTHY, extra])["onnxruntime wheels"].ok


def test_two_opencv_wheels() -> None:
    check = checks(distributions=lambda: [*HEALTHY, "opencv-contrib-python"])["opencv"]
    assert not check.ok
    assert "opencv-contrib-python and opencv-python-headless" in check.found


def test_a_gpu_wheel_whose_gpu_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt = "TensorrtExecutionProvider"
    monkeypatch.setattr(doctor, "known_devices", lambda: {"cpu": CPU, "cuda": CUDA, "gpu": CUDA, "tensorrt": tensorrt})
    found = checks(
        start_providers=starts(
            ProviderStatus("tensorrt", tensorrt, False, "no libnvinfer"),
            ProviderStatus("cuda", CUDA, False, "libcublasLt.so.13: cannot open"),
        )
    )
    assert not found["device cuda"].ok
    assert found["device cuda"].found == "libcublasLt.so.13: cannot open"
    assert "edgedl[gpu]" in found["device cuda"].advice
    assert found["device tensorrt"].ok  # the wheel carries it, few machines have it
    assert "not usable here" in found["device tensorrt"].found


def test_no_onnxruntime_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtraError("onnxruntime", "cpu")

    monkeypatch.setattr(doctor, "onnxruntime", missing)
    found = checks(distributions=lambda: ["numpy"])
    assert not found["onnxruntime"].ok
    assert found["onnxruntime"].advice == "pip install 'edgedl[cpu]'"
    assert "device cpu" not in found


def test_telemetry_that_was_left_on(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.onnxruntime()
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    check = checks()["telemetry"]
    assert not check.ok
    assert check.found == "on (ORT_DISABLE_TELEMETRY=0)"


def test_no_opencv_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    check = checks(distributions=lambda: ["numpy", "onnxruntime"])["opencv"]
    assert check.ok
    assert "edgedl[media]" in check.advice


# --- shadowed packages ---------------------------------------------------------------------------------------------

SHADOWED = """
import sys
sys.path.insert(0, sys.argv[2])
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("parts", sys.argv[1])
parts = module_from_spec(spec)
spec.loader.exec_module(parts)
print("\\n".join(parts.shadowed()))
print([name for name in ("runtime", "service", "exporters") if name in sys.modules], file=sys.stderr)
"""
PARTS_FILE = Path(doctor.__file__).with_name("parts.py")


def look(folder: Path) -> tuple[list[str], str]:
    done = run_python(SHADOWED, str(PARTS_FILE), str(folder))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines(), done.stderr.strip()


def test_nothing_is_shadowed_here() -> None:
    assert shadowed() == []


@pytest.mark.parametrize("part", PARTS)
def test_a_foreign_package_is_found_without_importing_it(tmp_path: Path, part: str) -> None:
    (tmp_path / part).mkdir()
    (tmp_path / part / "__init__.py").write_text("raise SystemExit('foreign code ran')")
    problems, imported = look(tmp_path)
    assert len(problems) == 1
    assert problems[0].startswith(f"{part}: Python finds a foreign package at {tmp_path / part}, edgedl's own is at ")
    assert imported == "[]"


def test_a_foreign_module_and_another_copy(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("raise SystemExit('foreign code ran')")
    (tmp_path / "exporters").mkdir()
    (tmp_path / "exporters" / "__init__.py").write_text('"""x"""\nPART_OF = "edgedl"\n')
    problems, _ = look(tmp_path)
    assert len(problems) == 2
    assert "another copy of edgedl" in problems[0]
    assert f"a foreign package at {tmp_path / 'service.py'}" in problems[1]


def test_a_distribution_installed_into_our_folders(tmp_path: Path) -> None:
    info = tmp_path / "serving_toolkit-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: serving-toolkit\nVersion: 2.0\n")
    (info / "RECORD").write_text("service/__init__.py,,\nservice/app.py,,\nruntime.py,,\n")
    (tmp_path / "service").mkdir()  # from 3.12 on Python leaves out files that are not there
    (tmp_path / "service" / "__init__.py").touch()
    (tmp_path / "service" / "app.py").touch()
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from runtime.parts import _merged
print(_merged(Path(sys.argv[1])), _merged(Path("/nowhere")))
"""
    done = run_python(code, str(tmp_path))
    assert "service: the distribution serving-toolkit 2.0 installed its files into the same folder" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_the_doctor_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "shadowed", lambda: ["service: Python finds a foreign package at /x"])
    check = checks()["packages"]
    assert not check.ok
    assert "/x" in check.found
