"""The wheel: what is in it, and that a device needs nothing else than the extras `cpu` and `media`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import SCALE, write_scale_bundle

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("edgedl", "exporters", "runtime", "service")

# The wheel is built and installed once, so its tests stay with one worker.
pytestmark = pytest.mark.xdist_group("wheel")

WALK = """
import importlib, pkgutil
for package in ("runtime", "edgedl.cli"):
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(module.__path__, package + "."):
        importlib.import_module(found.name)
        print(found.name)
"""


class Device:
    """A machine with the wheel, its two extras, and nothing of this tree."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.home = folder / "home"
        self.home.mkdir()

    def run(self, *command: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        if command[0] == "edgedl":
            environment["PYTHONWARNINGS"] = "error"
        done = subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=self.home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Device:
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=300)
    machine = Device(folder)
    # This environment's pip, which need not be installed there; what is not imported there is not compiled either.
    install = [sys.executable, "-m", "pip", "--python", machine.bin / "python", "install", "--quiet", "--no-compile"]
    subprocess.run([*install, "-c", ROOT / "constraints.txt", f"{wheel}[cpu,media]"], check=True, timeout=300)
    return machine


@pytest.fixture(scope="module")
def entries(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_top_level_holds_the_four_packages_only(entries):
    top = {name.partition("/")[0] for name in entries}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert len(top) == len(PACKAGES) + 1


def test_every_file_of_the_packages_is_in_it_and_no_other(entries):
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout, so what belongs to the packages is not known")
    packed = {name for name in entries if ".dist-info/" not in name}
    assert set(tracked.stdout.split()) <= packed
    assert not [name for name in packed if name.endswith((".pyc", ".onnx", ".edge"))]


def test_licence_version_and_command(wheel, entries):
    (licence,) = [name for name in entries if name.endswith(".dist-info/licenses/LICENSE")]
    with zipfile.ZipFile(wheel) as archive:
        assert "Apache License" in archive.read(licence).decode()
        folder = licence.partition("/")[0]
        metadata = archive.read(f"{folder}/METADATA").decode()
        commands = archive.read(f"{folder}/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "edgedl = edgedl.cli:main" in commands
    version = (ROOT / "edgedl" / "_version.py").read_text()
    assert f'"{folder.removesuffix(".dist-info").removeprefix("edgedl-")}"' in version


def test_the_base_needs_numpy_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [line.partition(">")[0] for line in project["dependencies"]] == ["numpy"]


@pytest.mark.network
def test_no_workshop_on_the_device(device):
    code = """
import importlib.util
for name in ("torch", "onnx", "onnxscript", "lightning", "matplotlib", "flask", "tests", "benchmarks"):
    assert importlib.util.find_spec(name) is None, name
"""
    device.run("python", "-c", code)


@pytest.mark.network
def test_the_device_imports_every_module_of_the_runtime(device):
    names = device.run("python", "-c", WALK).stdout.split()
    assert {"runtime.verify", "runtime.pipelines.age", "edgedl.cli.predict"} <= set(names)


@pytest.mark.network
def test_the_command_line_starts(device):
    assert "predict" in device.run("edgedl", "--help").stdout


@pytest.mark.network
def test_verify_and_predict_work(device, tmp_path):
    bundle = write_scale_bundle(tmp_path / "scale.edge").path
    report = json.loads(device.run("edgedl", "verify", bundle, "--json").stdout)
    assert report["ok"] is True
    assert report["checks"][0]["output"] == "y"
    np.save(tmp_path / "x.npy", np.ones((1, 3), np.float32))
    answer = json.loads(device.run("edgedl", "predict", bundle, tmp_path / "x.npy", "--json").stdout)
    assert answer["results"][0]["outputs"]["y"] == [SCALE.tolist()]


@pytest.mark.network
def test_ages_on_the_device(device, age_bundle, portrait_path):
    assert json.loads(device.run("edgedl", "verify", age_bundle, "--json").stdout)["ok"] is True
    done = device.run("edgedl", "predict", age_bundle, portrait_path, "--json", "--save", "drawn")
    (result,) = json.loads(done.stdout)["results"]
    (face,) = result["faces"]
    assert face["low"] <= face["age"] <= face["high"]
    assert (device.home / result["saved"]).is_file()


@pytest.mark.network
def test_verify_says_no_on_the_device_too(device, tmp_path):
    bundle = write_scale_bundle(tmp_path / "scale.edge", SCALE * np.float32(1.01)).path
    assert json.loads(device.run("edgedl", "verify", bundle, "--json", status=1).stdout)["ok"] is False


@pytest.mark.network
@pytest.mark.parametrize(("verb", "extra"), [(("export", "json:dumps"), "train"), (("serve", "x.edge"), "serve")])
def test_what_needs_another_extra_says_which(device, verb, extra):
    told = device.run("edgedl", *verb, status=2).stderr
    assert f"pip install 'edgedl[{extra}]'" in told
    assert len(told.splitlines()) == 1


@pytest.mark.network
def test_doctor_is_content_with_the_device(device):
    assert json.loads(device.run("edgedl", "doctor", "--json").stdout)["ok"] is True
