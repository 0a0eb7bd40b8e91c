"""Another release of ONNX Runtime on this machine: ``onnxruntime==1.17.3``.

A device seldom has the newest release. The wheels lie in a folder of their own, and the process sees nothing of the
environment that edgedl runs in.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporters.cache import made_once
from exporters.targets.base import TargetError
from exporters.targets.child import BOOT
from exporters.targets.process import ProcessTarget
from exporters.targets.setup import install, target_folder

PREFIX = "onnxruntime=="
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_NUMPY_2 = (1, 19)
"""The first release that works with numpy 2."""


class ReleaseTarget(ProcessTarget):
    """A release of ONNX Runtime from the package index, with this very Python.

    Args:
        name: ``onnxruntime==X``.

    Raises:
        TargetError: X is no version.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        version = name.removeprefix(PREFIX)
        if not _VERSION.fullmatch(version):
            raise TargetError(f"{version!r} is no version of ONNX Runtime, e.g. {PREFIX}1.17.3")
        self._version = version

    def set_up(self) -> None:
        """Fetches the wheels."""
        made_once(self._folder, self._make)

    def command(self) -> Sequence[str]:
        """See `ProcessTarget.command`."""
        return [sys.executable, "-S", "-P", "-c", BOOT]  # -S: without the packages of this environment

    def environment(self) -> Mapping[str, str]:
        """See `ProcessTarget.environment`."""
        return {**os.environ, "PYTHONPATH": str(self._folder)}

    @property
    def _folder(self) -> Path:
        return target_folder(f"onnxruntime-{self._version}-cp{sys.version_info.major}{sys.version_info.minor}")

    def _make(self, folder: Path) -> None:
        numbers = tuple(int(part) for part in self._version.split("."))
        try:
            install([f"onnxruntime=={self._version}", "numpy<2" if numbers < _NUMPY_2 else "numpy"], folder)
        except TargetError as error:
            python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
            raise TargetError(
                f"{self.name}: {error}; a release has wheels for the versions of Python of its time, this is {python}"
            ) from error
