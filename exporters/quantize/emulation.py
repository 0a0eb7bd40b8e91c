"""A graph that answers as on another class of processor, in a child process under qemu's user emulation.

Arithmetic is emulated exactly, and ONNX Runtime chooses its kernels by what the emulated processor says that it has. So
decisions on x86 without VNNI are counted on a machine that has it. Speed under emulation means nothing.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from exporters.quantize.inputs import Feed
from runtime.child import child_environment, python_command
from runtime.errors import DeviceError

EMULATORS = {"avx2": ("qemu-x86_64", "-cpu", "Haswell")}
"""Classes of `runtime.processor` that can be had by emulation, and the command in front of Python's."""

_LENGTH = struct.Struct("<q")

_CODE = """
import io, os, struct, sys
import numpy as np
from runtime.devices import open_session
from runtime.processor import processor_class

out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what a library prints must not stand between two answers

def send(data):
    out.write(struct.pack("<q", len(data)) + data)
    out.flush()

session = open_session(open(sys.argv[1], "rb").read(), "cpu", 1).session
send(processor_class().encode())
while True:
    head = sys.stdin.buffer.read(8)
    if len(head) < 8:
        break
    with np.load(io.BytesIO(sys.stdin.buffer.read(*struct.unpack("<q", head)))) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    names = [value.name for value in session.get_outputs()]
    file = io.BytesIO()
    np.savez(file, **dict(zip(names, session.run(names, feed))))
    send(file.getvalue())
"""


class EmulatedSession:
    """Runs a graph under emulation; takes the place of an engine's session, see `runtime.engine.Engine.through`.

    Args:
        graph: The ONNX file.
        kind: The class of processor, a key of `EMULATORS`.

    Raises:
        DeviceError: there is no such emulator here, or it does not give that class.
    """

    def __init__(self, graph: bytes, kind: str) -> None:
        command = EMULATORS.get(kind)
        if command is None:
            raise DeviceError(
                f"no emulator is known for processors of the class {kind!r}; there is {', '.join(EMULATORS)}"
            )
        if shutil.which(command[0]) is None:
            raise DeviceError(
                f"decisions on {kind} are counted under {command[0]}, which is not installed; "
                "on Debian and Ubuntu: apt-get install qemu-user"
            )
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="edgedl-")
        file = Path(self._folder.name, "graph.onnx")
        file.write_bytes(graph)
        self._errors = Path(self._folder.name, "errors")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*command, *python_command(_CODE, str(file))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=child_environment(),
            )
        try:
            found = self._receive().decode()
            if found != kind:
                raise DeviceError(f"{' '.join(command)} emulates a processor of the class {found}, expected {kind}")
        except BaseException:
            self.close()
            raise

    def run(self, names: Sequence[str], feed: Feed) -> list[Any]:
        """Runs the graph once, as a session does."""
        stream = io.BytesIO()
        np.savez(stream, **feed)  # type: ignore[arg-type]
        data = stream.getvalue()
        with self._lock:
            given = self._pipe(self._process.stdin)
            given.write(_LENGTH.pack(len(data)) + data)
            given.flush()
            answer = self._receive()
        with np.load(io.BytesIO(answer)) as arrays:
            return [arrays[name] for name in names]

    def close(self) -> None:
        """Ends the child process."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> bytes:
        answered = self._pipe(self._process.stdout)
        head = answered.read(_LENGTH.size)
        if len(head) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            data = answered.read(length)
            if len(data) == length:
                return data
        self._process.wait()
        said = self._errors.read_text(errors="replace").strip().splitlines()
        told = [line for line in said if "TCG doesn't support" not in line]
        raise DeviceError(f"the emulated process ended: {told[-1] if told else f'status {self._process.returncode}'}")

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None  # noqa: S101 - both were asked for
        return pipe
