"""The target ``node``: ONNX Runtime's own package for Node, on this machine."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from exporters.targets.base import TargetError
from exporters.targets.npm import COMMON, NODE, RELEASE, node, unpacked
from exporters.targets.process import ProcessTarget

NAME = "node"
PROGRAM = Path(__file__).parent / "javascript" / "node.js"

_SYSTEMS = {"linux": "linux", "darwin": "darwin", "win32": "win32"}
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class NodeTarget(ProcessTarget):
    """Runs graphs in a process of Node."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self._folder = Path()

    def set_up(self) -> None:
        """See `ProcessTarget.set_up`."""
        node()  # before a hundred megabytes are fetched
        system, machine = _SYSTEMS.get(sys.platform), _MACHINES.get(platform.machine().lower())
        if system is None or machine is None:
            raise TargetError(f"{NODE.requirement} has no library for {platform.machine()} under {sys.platform}")
        library = f"bin/napi-v6/{system}/{machine}"
        self._folder = unpacked(
            f"node-{RELEASE}", (NODE, ("package.json", "dist", library)), (COMMON, ("package.json", "dist"))
        )

    def command(self) -> Sequence[str]:
        """See `ProcessTarget.command`."""
        return [node(), str(PROGRAM), str(self._folder)]

    def spoken(self) -> bytes:
        """Nothing: the program is a file."""
        return b""
