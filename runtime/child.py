"""A fresh Python process that finds this very package, for what must not happen in the caller's own process.

A provider that crashes takes its process with it, a cold start can be measured only once a process, and a foreign
folder named ``runtime`` in the working directory must not come first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]


def run_python(
    code: str, *arguments: str, timeout: float = 120.0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` with ``sys.argv[1:] == arguments`` in a fresh interpreter.

    Raises:
        subprocess.TimeoutExpired: it did not end in ``timeout`` seconds; it has been ended then.
    """
    variables = child_environment(environment)
    command = python_command(code, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=variables, check=False)


def python_command(code: str, *arguments: str) -> list[str]:
    """The command line of a fresh interpreter that runs ``code``."""
    # -P: the working directory is not searched for packages.
    return [sys.executable, "-P", "-c", code, *arguments]


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which a fresh interpreter finds this very package."""
    variables = {**os.environ, **(environment or {})}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_HOME), variables.get("PYTHONPATH"))))
    return variables
