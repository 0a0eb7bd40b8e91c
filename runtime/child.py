"""A fresh Python process that finds this very package, for what must not happen in the caller's own process.

A provider that crashes takes its process with it, a cold start can be measured only once a process, and a foreign
folder named ``runtime`` in the working directory must not come first.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
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


def run_forked(work: Callable[[], None], timeout: float = 120.0) -> tuple[int, str]:
    """Does some work in a copy of this process, for where no other program can be started.

    That is so under qemu's user emulation: the kernel does not know the programs of the emulated processor.

    Returns:
        What the copy ended with, as `subprocess` counts it, and what an exception of `work` said.

    Raises:
        subprocess.TimeoutExpired: it did not end in ``timeout`` seconds; it has been ended then.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        status = 1
        try:
            work()
            status = 0
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked is told
            os.write(writing, str(error).encode()[:4096])
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        ended = bool(select.select([said], [], [], timeout)[0])  # closed by the end of the copy, or written to before
        if not ended:
            os.kill(process, signal.SIGKILL)
        told = said.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if not ended:
        raise subprocess.TimeoutExpired("a copy of this process", timeout)
    return status, told
