"""The Makefile: it installs once, and the demo does its job on a machine that has Python, pip and make only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "PYTHON"))}
    command = ["make", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that says it is installed, an hour after its two files were written."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    stamp = tmp_path / ".venv" / ".installed"
    stamp.touch()
    later = stamp.stat().st_mtime + 3600
    os.utime(stamp, (later, later))
    return tmp_path


def test_a_second_call_does_not_install_again(installed):
    assert make(installed, "--question", "setup").returncode == 0


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_what_is_needed_installs_again(installed, name):
    later = (installed / ".venv" / ".installed").stat().st_mtime + 60
    os.utime(installed / name, (later, later))
    assert make(installed, "--question", "setup").returncode == 1


@pytest.mark.parametrize(
    "target", ["demo", "test", "test-slow", "test-lowest", "test-targets", "check", "format", "bench", "docs"]
)
def test_every_target_sets_itself_up(installed, target):
    (installed / ".venv" / ".installed").unlink()
    assert "-m pip install" in make(installed, "--dry-run", target).stdout


@pytest.mark.slow
def test_tests_of_a_group_stay_with_one_worker(tmp_path):
    """A pytest that pytest-xdist does not know yet would make each costly fixture twice, and say nothing."""
    (tmp_path / "test_group.py").write_text(
        "import pytest\n"
        "@pytest.mark.xdist_group('one')\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        "def test_group(number, worker_id):\n"
        "    open(f'{worker_id}-{number}', 'w').close()\n"
    )
    options = re.findall(r"-m pytest (.*) \$\(PYTEST_ARGS\)", (ROOT / "Makefile").read_text())[0]
    command = [sys.executable, "-m", "pytest", *options.replace("$(WORKERS)", "2").split(), "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    workers = [path.name.partition("-")[0] for path in tmp_path.glob("gw*-*")]
    assert (len(workers), len(set(workers))) == (8, 1)


def test_an_old_python_is_refused(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", "setup"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "edgedl needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_check_and_test_without_standard_input():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make check test")
    subprocess.run(["bash", "-n", script], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.network
def test_the_demo_of_a_fresh_clone(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True, timeout=120)
    done = make(clone, "demo", "SERVE=0", timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "edgedl pull age",
        "the same answers on cpu",
        "portrait.jpg",
        "edgedl train age",
        "painted.edge",
        "digit ",
    ):
        assert expected in done.stdout
    assert (clone / "demo" / "portrait-age.jpg").is_file()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True, timeout=60
    )
    assert status.stdout == ""
