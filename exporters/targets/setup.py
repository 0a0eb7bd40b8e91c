"""Where targets are set up: folders in the user's cache, with packages that pip fetches.

Nothing is installed into the environment that edgedl runs in.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from exporters.cache import cache_folder
from exporters.targets.base import TargetError

PIP_S = 600
"""Seconds that pip may take."""


def target_folder(name: str) -> Path:
    """Where the parts of a target lie, e.g. ``~/.cache/edgedl/targets/onnxruntime-1.17.3-cp311``."""
    return cache_folder() / "targets" / name


def install(requirements: Sequence[str], folder: Path, platforms: Sequence[str] = (), python: str = "") -> None:
    """Installs wheels into a folder, without what they depend on.

    Args:
        requirements: As pip takes them.
        folder: What goes onto ``PYTHONPATH``.
        platforms: Tags of another platform's wheels, e.g. ``manylinux_2_28_aarch64``; by default this one's.
        python: The version that they are for, e.g. ``3.13``; by default this one.

    Raises:
        TargetError: pip is not there, or found no such wheels.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    pip += ["--only-binary=:all:", "--no-compile", "--target", str(folder)]
    for platform in platforms:
        pip += ["--platform", platform]
    pip += ["--python-version", python, "--implementation", "cp"] if python else []
    run([*pip, *requirements], f"pip cannot install {' and '.join(requirements)}", PIP_S)


def run(command: Sequence[str], problem: str, seconds: float) -> str:
    """Runs a command of the set-up and gives what it prints.

    Raises:
        TargetError: it failed; the message begins with `problem` and ends with what it said.
    """
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"{problem}: it did not end within {seconds:.0f} s") from error
    except OSError as error:
        raise TargetError(f"{problem}: {command[0]}: {error.strerror or error}") from error
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in said if line.upper().startswith(("ERROR", "E:"))] or said
        raise TargetError(f"{problem}: {told[-1] if told else f'it ended with status {done.returncode}'}")
    return done.stdout
