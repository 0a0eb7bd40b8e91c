"""The wheels that a device gets: that of edgedl itself, and what fits which device."""

from __future__ import annotations

import ensurepip
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgedl
from edgedl.deploy.own_wheel import PACKAGES, write_own_wheel
from edgedl.deploy.wheelhouse import Platform, environment_key, read_wheels
from runtime.errors import InputError
from tests.edgedl.deploy.stand_ins import ADDRESS, device

ROOT = Path(edgedl.__file__).parents[1]
FACTS = {
    "python": "3.11.2",
    "implementation": "cpython",
    "machine": "aarch64",
    "system": "linux",
    "libc": ["glibc", "2.36"],
}
# Where the pip lies that Python brings along; Debian keeps it elsewhere.
BUNDLED = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]


def tiny_wheel(folder: Path, name: str, tag: str = "py3-none-any", version: str = "1.0") -> Path:
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def pip_wheel() -> Path:
    found = [path for folder in BUNDLED if folder.is_dir() for path in folder.glob("pip-*.whl")]
    if not found:
        pytest.skip("this Python brings no wheel of pip along (ensurepip)")
    return found[0]


def test_the_own_wheel_is_the_installed_edgedl(tmp_path, pip_wheel):
    path = write_own_wheel(tmp_path)
    target = tmp_path / "site"
    command = [sys.executable, f"{pip_wheel}/pip", "install", "--no-index", "--no-deps", "--no-compile", "--quiet"]
    command += ["--disable-pip-version-check", "--target", str(target), str(path)]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    for package in PACKAGES:
        for source in (ROOT / package).rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                assert (target / source.relative_to(ROOT)).read_bytes() == source.read_bytes()


def test_equal_files_give_an_equal_wheel(tmp_path):
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        digests.append(hashlib.sha256(write_own_wheel(tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_a_platform_is_that_of_the_device():
    platform = Platform.of(FACTS, "there")
    assert str(platform) == "aarch64-3.11-2.36"
    assert Platform.parse(str(platform)) == platform
    options = platform.pip_options()
    assert "manylinux_2_36_aarch64" in options
    assert "manylinux_2_28_aarch64" in options
    assert "manylinux_2_37_aarch64" not in options


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"python": "3.9.2"}, "its python3 is cpython 3.9.2, and edgedl needs CPython 3.11"),
        ({"implementation": "pypy"}, "its python3 is pypy"),
        ({"libc": ["", ""]}, "musl or another"),
        ({"system": "darwin"}, "it is darwin"),
    ],
    ids=["old", "pypy", "musl", "darwin"],
)
def test_a_device_that_wheels_do_not_fit_is_told(change, told):
    with pytest.raises(InputError, match=told):
        Platform.of(FACTS | change, "there")


def test_a_folder_without_the_needed_is_no_wheelhouse(tmp_path):
    tiny_wheel(tmp_path, "edgedl")
    with pytest.raises(InputError, match="no wheel of onnxruntime in it; make the folder with: edgedl pack"):
        read_wheels(tmp_path)


@pytest.fixture
def wheelhouse(tmp_path, pip_wheel) -> Path:
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    shutil.copy(pip_wheel, folder)
    for name in ("edgedl", "onnxruntime"):
        tiny_wheel(folder, name)
    return folder


def environment(there, folder: Path) -> str:
    """Sends the wheels of a folder and makes the environment; gives its interpreter."""
    wheels = read_wheels(folder)
    with there.connect(ADDRESS, lambda _told: None) as one:
        facts = one.call("hello", root=str(there.root), name="scale", wait=0)
        for wheel in wheels:
            one.upload(wheel.path, wheel.sha256, wheel.file)
        rows = [{"file": wheel.file, "sha256": wheel.sha256} for wheel in wheels]
        return str(one.call("environment", key=environment_key(wheels, facts["python"]), wheels=rows)["python"])


def test_an_environment_is_made_without_a_network_and_used_again(tmp_path, wheelhouse):
    with device(tmp_path) as there:
        python = environment(there, wheelhouse)
        code = "import onnxruntime; print(onnxruntime.version)"
        assert subprocess.check_output([python, "-I", "-c", code], text=True) == "1.0\n"
        made = Path(python).lstat().st_mtime_ns
        assert environment(there, wheelhouse) == python
        assert Path(python).lstat().st_mtime_ns == made


def test_a_wheel_for_another_processor_is_refused_and_nothing_is_left(tmp_path, wheelhouse):
    (wheelhouse / "onnxruntime-1.0-py3-none-any.whl").unlink()
    tiny_wheel(wheelhouse, "onnxruntime", "cp311-cp311-manylinux2014_riscv64")
    with device(tmp_path) as there:
        with pytest.raises(InputError, match=r"cannot be made there: .*is not a supported wheel on this platform"):
            environment(there, wheelhouse)
        assert list((there.root / "environments").iterdir()) == []
