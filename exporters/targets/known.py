"""From the name of a target to the target."""

from __future__ import annotations

from exporters.targets.arm import ARM, ARM64, ArmTarget
from exporters.targets.base import Target, TargetError
from exporters.targets.browser import NAME as BROWSER
from exporters.targets.browser import BrowserTarget
from exporters.targets.node import NAME as NODE
from exporters.targets.node import NodeTarget
from exporters.targets.releases import PREFIX, ReleaseTarget
from exporters.targets.x86 import X86, X86Target

FORMS = ("onnxruntime==X", "arm64", *ARM, NODE, BROWSER, *X86)
"""How targets are asked for, for messages and help."""


def find_target(name: str) -> Target:
    """The target of this name; it is not open.

    Raises:
        TargetError: there is no such target.
    """
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
