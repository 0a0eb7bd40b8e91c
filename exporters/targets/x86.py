"""An older x86 processor under emulation: ``x86_64/haswell``, with the Python and the packages of this environment.

Arithmetic is emulated exactly, and ONNX Runtime chooses its kernels by what the emulated processor says that it has.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence

from exporters.targets.base import TargetError
from exporters.targets.child import BOOT
from exporters.targets.process import ProcessTarget
from runtime.child import child_environment

X86 = {"x86_64/haswell": "Haswell"}
"""Targets by name, and what qemu calls their processors."""

_QEMU = "qemu-x86_64"


class X86Target(ProcessTarget):
    """An emulated x86 processor."""

    emulated = True

    def set_up(self) -> None:
        """Needs the emulator only."""
        if shutil.which(_QEMU) is None:
            raise TargetError(
                f"{self.name} runs under {_QEMU}, which is not installed; on Debian and Ubuntu: apt-get install "
                "qemu-user"
            )

    def command(self) -> Sequence[str]:
        """See `ProcessTarget.command`."""
        return [_QEMU, "-cpu", X86[self.name], sys.executable, "-P", "-c", BOOT]

    def environment(self) -> Mapping[str, str]:
        """See `ProcessTarget.environment`."""
        return child_environment()
