"""A child process that speaks `wire` on its pipes: Python under an emulator or over ssh, and Node alike."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from exporters.targets import wire
from exporters.targets.base import Feed, TargetError

BOOT = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""What Python runs on a target: it reads the length of a program and then the program."""

ANSWER_S = 1200.0
"""Seconds until an answer is given up. A photo takes some ten under emulation, and a target may be busy."""

NOISE = ("TCG doesn't support", "Warning: Permanently added")
"""Lines on standard error that are no reason why a process ended."""

_FILES = ("wire", "replay")


def program() -> bytes:
    """The text of `wire` and `replay` as one program, with its length in front as `BOOT` reads it."""
    sources = {name: Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in _FILES}
    text = f"""
import sys, types
for name, source in {sources!r}.items():
    module = types.ModuleType("exporters.targets." + name)
    sys.modules[module.__name__] = module
    exec(compile(source, name + ".py", "exec"), module.__dict__)
module.main()
""".encode()
    return b"%d\n" % len(text) + text


class Child:
    """A process that speaks `wire`, asked from one thread at a time.

    Args:
        command: How it is started.
        environment: Its environment; None gives this process's.
        spoken: What it is sent before the first message.

    Raises:
        TargetError: it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, spoken: bytes = b""
    ) -> None:
        self._lock = threading.Lock()
        self._errors = tempfile.TemporaryFile(prefix="edgedl-")  # noqa: SIM115 - closed with the process
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=None if environment is None else dict(environment),
            )
        except OSError as error:
            self._errors.close()
            raise TargetError(f"{command[0]} cannot be started: {error.strerror or error}") from error
        self._spoken = spoken

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """How the process ended; None while it runs."""
        return self._process.poll()

    def ask(
        self, header: Mapping[str, Any] | None, tensors: Feed | None = None, seconds: float = ANSWER_S
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Sends a message and waits for the one that answers it; None only waits, for what is told unasked.

        Raises:
            TargetError: the answer is an error, none came in time, or the process has ended.
        """
        with self._lock:
            late = threading.Timer(seconds, self._process.kill)
            late.daemon = True
            late.start()
            try:
                self._send(header, tensors)
                answer = wire.read(_pipe(self._process.stdout))
            except (OSError, wire.WireError):
                answer = None
            finally:
                passed = not late.is_alive()
                late.cancel()
        if answer is None:
            raise TargetError(f"no answer came within {seconds:.0f} s" if passed else self._ended())
        if "error" in answer[0]:
            raise TargetError(str(answer[0]["error"]))
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _send(self, header: Mapping[str, Any] | None, tensors: Feed | None) -> None:
        given = _pipe(self._process.stdin)
        given.write(self._spoken)
        self._spoken = b""
        if header is not None:
            given.write(wire.pack(header, tensors))
        given.flush()

    def _ended(self) -> str:
        self._process.kill()
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        told = [line.strip() for line in said if line.strip() and not any(noise in line for noise in NOISE)]
        return f"the process there ended: {told[-1] if told else f'status {status}'}"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - both were asked for
    return pipe
