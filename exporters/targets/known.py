"""From the name of a target to the target."""

from __future__ import annotations

from exporters.targets.arm import ARM, ARM64, ArmTarget
from exporters.targets.base import Target, TargetError
from exporters.targets.browser import NAME as BROWSER
from exporters.targets.browser import BrowserTarget
from exporters.targets.node import NAME as NODE
from exporters.targets.node import NodeTarget
from exporters.targets.releases import PREFIX, ReleaseTarget
from exporters.targets.ssh import PREFIX as SSH
from exporters.targets.ssh import SshTarget
from exporters.targets.x86 import X86, X86Target

FORMS = ("onnxruntime==X", "arm64", *ARM, NODE, BROWSER, "ssh://USER@HOST", *X86)
"""How targets are asked for, for messages and help."""


def find_target(name: str, *, python: str = "python3", ssh_config: str | None = None) -> Target:
    """The target of this name; it is not open.

    Args:
        name: How it is asked for.
        python: The interpreter of a host over ssh.
        ssh_config: A configuration of ssh in the place of the user's.

    Raises:
        TargetError: there is no such target.
        InputError: it is no address of a host.
    """
    if name.startswith(SSH):
        return SshTarget(name, python, ssh_config)
    if name.startswith(PREFIX):
        return ReleaseTarget(name)
    if name == "arm64" or name in ARM:
        return ArmTarget(ARM64 if name == "arm64" else name)
    if name == NODE:
        return NodeTarget()
    if name == BROWSER:
        return BrowserTarget()
    if name in X86:
        return X86Target(name)
    raise TargetError(f"there is no target {name!r}; there is {', '.join(FORMS)}")
