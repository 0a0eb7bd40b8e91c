"""A device over ssh: ``ssh://user@host``. OpenSSH's own client carries the conversation, so its configuration counts.

The device needs Python 3.8 or newer with numpy and onnxruntime. Nothing is installed there and nothing is left behind:
the program goes through the connection.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence

from exporters.targets.address import Address
from exporters.targets.base import TargetError
from exporters.targets.child import BOOT
from exporters.targets.process import ProcessTarget

PREFIX = "ssh://"
_CUT = 255
"""How ssh ends where the connection was cut or did not come about."""


class SshTarget(ProcessTarget):
    """A device that OpenSSH's client reaches.

    Args:
        name: Its address.
        python: The interpreter there, a command or a path.
        config: A configuration of ssh in the place of the user's.

    Raises:
        InputError: the name is no address.
    """

    def __init__(self, name: str, python: str = "python3", config: str | None = None) -> None:
        super().__init__(name)
        self._address = Address.parse(name)
        self._python = python
        self._config = config

    def set_up(self) -> None:
        """Needs ssh's client only."""
        if shutil.which("ssh") is None:
            raise TargetError(f"{self.name} is reached by ssh, which is not installed; install OpenSSH's client")

    def command(self) -> Sequence[str]:
        """See `ProcessTarget.command`."""
        return self._address.command(shlex.join([self._python, "-c", BOOT]), self._config)

    def explain_start(self, problem: str) -> str:
        """See `ProcessTarget.explain_start`."""
        missing = next((name for name in ("numpy", "onnxruntime") if f"No module named '{name}'" in problem), None)
        if missing:
            return (
                f"{self.name}: {self._python} there has no {missing}; install numpy and onnxruntime for it, or "
                "name an interpreter that has them with --python; `edgedl deploy` makes an environment there"
            )
        return f"{self.name}: {problem}"

    def lost(self) -> str:
        """See `Target.lost`."""
        child = self._child
        return f"{self.name}: the connection was cut" if child is not None and child.status == _CUT else ""
