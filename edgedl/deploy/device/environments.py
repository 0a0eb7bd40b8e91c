"""A virtual environment on the device, made of wheels that were sent; nothing is fetched from anywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgedl.deploy.device.channel import Refused
from edgedl.deploy.device.store import WORD, Store, first_words, write_json

BUILD_SECONDS = 1800


def make(store: Store, key: str, wheels: list[dict[str, Any]]) -> str:
    """Makes an environment, or finds it; gives its interpreter. Half of one is never used: what is whole says so.

    Args:
        store: Where the wheels and the environments lie.
        key: Its name, which depends on every wheel.
        wheels: ``file`` and ``sha256`` of each; pip's is among them.

    Raises:
        Refused: A wheel does not fit this machine, or there is no room.
    """
    if not WORD.fullmatch(key):
        raise Refused(f"{key!r} is no environment")
    folder = store.environments / key
    python = str(folder / "bin" / "python")
    if is_complete(store, key):
        return python
    shutil.rmtree(str(folder), ignore_errors=True)
    files = [str(store.stored(wheel["sha256"], wheel["file"])) for wheel in wheels]
    pip = next(file for file in files if Path(file).name.startswith("pip-"))
    try:
        # Without pip: the package that Debian keeps apart, ensurepip, is not needed then.
        _run([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)], "the virtual environment")
        command = [python, "-I", f"{pip}/pip", "install", "--no-index", "--no-deps", "--no-cache-dir"]
        _run([*command, "--disable-pip-version-check", "--no-warn-script-location", *files], "the environment")
        write_json(folder / "complete.json", {"wheels": [wheel["sha256"] for wheel in wheels]})
    except BaseException:
        shutil.rmtree(str(folder), ignore_errors=True)
        raise
    return python


def is_complete(store: Store, key: str) -> bool:
    """Whether an environment is there and whole."""
    return (store.environments / key / "complete.json").is_file()


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BUILD_SECONDS
    )
    if done.returncode:
        lines = done.stdout.decode(errors="replace").splitlines()
        errors = [line for line in lines if "error" in line.lower()]
        raise Refused(f"{what} cannot be made there: {first_words(errors or lines)}")


def interpreter(path: str) -> str:
    """An interpreter that has edgedl, by its absolute path.

    Raises:
        Refused: There is none, or it has no edgedl.
    """
    found = str(Path(path).expanduser())
    if not Path(found).is_absolute() or not Path(found).is_file():
        raise Refused(f"{path}: there is no such interpreter; give an absolute path")
    done = subprocess.run(
        [found, "-c", "import edgedl, runtime, service"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BUILD_SECONDS,
    )
    if done.returncode:
        raise Refused(
            "{} has no edgedl: {}".format(path, first_words(done.stdout.decode(errors="replace").splitlines()))
        )
    return found
