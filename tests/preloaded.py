"""Commands of the documentation without the seconds that each import of torch costs.

One process imports what `edgedl` imports while it works, and makes the tables that torch makes for an export. For each
command it forks a child, which takes over the caller's arguments, folder, environment, standard input and output, and
runs the command line or a piece of Python. Nothing else is shared: no session of ONNX Runtime is open, and no thread
runs, when it forks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.torch_tables import make_once

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("edgedl.cli", "runtime.pipelines", "exporters.export", "edgedl.training.fit", "edgedl.figures.curves")
LIBRARIES = ("lightning", "matplotlib.pyplot", "numpy", "onnxruntime", "onnxscript", "torch.onnx", "cv2")

# What stands in for a command: a few imports and no site-packages, because it starts anew each time.
CLIENT = """#!{python} -SE
import json, os, socket, sys
if {name!r} == "python" and sys.argv[1:2] != ["-c"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    request = {{"arguments": [{name!r}, *sys.argv[1:]], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
    status = connection.recv(1)
sys.exit(status[0] if status else 70)
"""


class Preloaded:
    """The process, and programs that ask it: `edgedl` and `python` in the folder ``bin``.

    Args:
        folder: An empty folder.
        root: The tree whose packages are imported.
        modules: What is imported. Where the packages of the tree still change, it is `LIBRARIES` alone.
    """

    def __init__(self, folder: Path, root: Path, modules: Sequence[str] = MODULES) -> None:
        address, self.bin = str(folder / "socket"), folder / "bin"
        self.bin.mkdir()
        for name in ("edgedl", "python"):
            program = self.bin / name
            program.write_text(CLIENT.format(python=sys.executable, address=address, name=name))
            program.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join((str(self.bin), str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys((str(root), str(ROOT)))),
            "PYTHONWARNINGS": "default",
        }
        command = [sys.executable, "-m", "tests.preloaded", address, *modules]
        self._process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, cwd=root)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the process did not start"

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:  # a child that was given up on
            self._process.kill()
            self._process.communicate()


def serve(address: str, modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    make_once()
    if "exporters.export" in modules:
        _fill_tables()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    os._exit(_answer(connection))
            _wait(os.WNOHANG)
    _wait()


def _fill_tables() -> None:
    """A first conversion, without ONNX Runtime."""
    import numpy as np
    from torch import nn

    from exporters.convert import convert
    from exporters.spec import Input, Output, Signature

    signature = Signature([Input("x", "float32", ("N", 2))], [Output("y", "float32", ("N", 2))])
    convert(nn.Linear(2, 2).eval(), {"x": np.ones((3, 2), np.float32)}, signature, 18)


def _wait(options: int = 0) -> None:
    """Takes leave of children that have ended, so that their processor time counts as that of the tests."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def _answer(connection: socket.socket) -> int:
    received, descriptors, *_ = socket.recv_fds(connection, 2**20, 3)
    request = json.loads(received)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = ""
    status = _run(request["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([status]))
    return 0


def _run(arguments: list[str]) -> int:
    name, *words = arguments
    try:
        if name == "edgedl":
            from edgedl.cli import main

            return main(words)
        _, code, *rest = words  # python -c CODE …
        sys.argv = ["-c", *rest]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
