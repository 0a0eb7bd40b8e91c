"""The conversation with a device: OpenSSH's client carries it, and one program there answers.

The program is sent over the connection itself, so nothing has to be installed there but Python. No word of a request
passes through a shell.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from exporters.targets.address import Address
from runtime.errors import EdgedlError, InputError

MODULES = ("channel", "store", "environments", "systemd", "health", "activation", "main")
"""Those of `edgedl.deploy.device`, each after those that it needs."""

PIECE = 1 << 18
_PATH = re.compile(r"[A-Za-z0-9_./+-]+")

_BOOTSTRAP = """
import json, sys, types
source = sys.stdin.buffer.raw
def read(count):
    data = b""
    while len(data) < count:
        piece = source.read(count - len(data))
        if not piece:
            sys.exit(1)
        data += piece
    return data
for name, text in json.loads(read(int(read(12))).decode()):
    module = types.ModuleType(name)
    sys.modules[name] = module
    above, _, last = name.rpartition(".")
    if above:
        setattr(sys.modules[above], last, module)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""
PROGRAM = f"exec(bytes.fromhex({_BOOTSTRAP.encode().hex()!r}))".replace("'", '"')
"""Runs the modules that come first on standard input: their length in twelve digits, and pairs of name and text."""


class ConnectionLost(EdgedlError):  # noqa: N818 - that is what happened
    """The connection to a device was cut, or did not come about."""


class DeviceConnection:
    """One conversation with one device.

    Args:
        device: How messages call it.
        command: Runs the program there, with its standard streams here.
        told: Called with what the device tells while it works.
    """

    def __init__(self, device: str, command: Sequence[str], told: Callable[[Mapping[str, Any]], None]) -> None:
        self._device, self._told = device, told
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
            )
        except FileNotFoundError as error:
            self._errors.close()
            raise InputError("there is no ssh on this machine; install OpenSSH's client") from error
        parents = [("edgedl", ""), ("edgedl.deploy", ""), (f"{__package__}.device", "")]
        program = json.dumps([*parents, *((f"{__package__}.device.{name}", _text(name)) for name in MODULES)]).encode()
        try:
            self._write(b"%012d" % len(program) + program)
        except EdgedlError:
            self.close()
            raise

    @classmethod
    def over_ssh(
        cls,
        address: Address,
        told: Callable[[Mapping[str, Any]], None] = lambda _told: None,
        python: str = "python3",
        config: str | None = None,
    ) -> DeviceConnection:
        """Connects over ssh.

        Args:
            address: Of the device.
            told: Called with what the device tells while it works.
            python: The interpreter there that runs the program.
            config: A configuration of ssh in the place of the user's.

        Raises:
            InputError: There is no ssh here, or the interpreter's name is none.
        """
        if not _PATH.fullmatch(python):
            raise InputError(f"{python!r} cannot be the interpreter of a device; letters, digits and ._/+- can")
        return cls(str(address), address.command(f"exec '{python}' -I -c '{PROGRAM}'", config), told)

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Asks the device to do something, and waits.

        Raises:
            InputError: It says that this cannot be done.
            ConnectionLost: It is not there any more.
        """
        self.send(do, **arguments)
        return self.answer()

    def send(self, do: str, **arguments: Any) -> None:
        """Asks the device to do something."""
        self._write(json.dumps({"do": do, **arguments}).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        """What the device answers. What it tells before is passed on.

        Raises:
            InputError: It says that this cannot be done.
            ConnectionLost: It is not there any more.
        """
        return self._until(lambda told: "done" in told)

    def until(self, step: str) -> dict[str, Any]:
        """Waits for what the device tells of a step; it is passed on as well.

        Raises:
            InputError: It says that this cannot be done.
            ConnectionLost: It is not there any more.
        """
        return self._until(lambda told: told.get("step") == step)

    def _until(self, awaited: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        assert self._child.stdout is not None  # noqa: S101 - it was asked for
        while True:
            line = b""
            while not line.endswith(b"\n"):
                piece = self._child.stdout.readline()
                if not piece:
                    raise self._lost()
                line += piece
            try:
                told: dict[str, Any] = json.loads(line)
            except ValueError:
                raise InputError(
                    f"{self._device}: its login shell prints {line[:80].decode(errors='replace')!r} before anything is "
                    "asked; let it be silent where no terminal is there"
                ) from None
            if "error" in told:
                raise InputError(f"{self._device}: {told['error']}")
            if "step" in told:
                self._told(told)
            if awaited(told):
                return told

    def upload(self, path: Path, sha256: str, file: str, progress: Callable[[int], None] = lambda _bytes: None) -> None:
        """Sends what the device lacks of a file.

        Args:
            path: Of the file here.
            sha256: Of its bytes.
            file: Its name there.
            progress: Called with the number of bytes of each piece.
        """
        size = path.stat().st_size
        (offset,) = self.call("sent", files=[{"file": file, "sha256": sha256}])["bytes"]
        if offset == size:
            return
        self.send("put", sha256=sha256, file=file, offset=offset, bytes=size - offset)
        with path.open("rb") as stream:
            stream.seek(offset)
            while piece := stream.read(PIECE):
                self._write(piece)
                progress(len(piece))
        self.answer()

    def close(self) -> None:
        """Ends the conversation."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._errors.close()

    def _write(self, data: bytes) -> None:
        assert self._child.stdin is not None  # noqa: S101 - it was asked for
        view = memoryview(data)
        try:
            while view:
                view = view[self._child.stdin.write(view) or 0 :]
        except BrokenPipeError as error:
            raise self._refused() or self._lost() from error

    def _refused(self) -> InputError | None:
        """What the device said before it stopped reading."""
        assert self._child.stdout is not None  # noqa: S101 - it was asked for
        try:
            told = json.loads(self._child.stdout.readline() or b"null")
        except ValueError:
            return None
        return InputError(f"{self._device}: {told['error']}") if told and "error" in told else None

    def _lost(self) -> EdgedlError:
        try:
            status = self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            status = -1
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        said = lines[-1].strip() if lines else f"exit status {status}"
        if status == 127:
            said = f"no python3 there ({said}); edgedl needs Python 3.11 or newer on a device"
        return ConnectionLost(f"{self._device}: the connection ended: {said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _text(module: str) -> str:
    return resources.files(f"{__package__}.device").joinpath(f"{module}.py").read_text()
