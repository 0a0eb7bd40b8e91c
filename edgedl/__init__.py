"""edgedl takes a PyTorch network to an edge device and proves that it still gives the same answer there.

The public names load on first use, so that ``import edgedl`` costs nothing and needs nothing but Python.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgedl._version import __version__

if TYPE_CHECKING:
    from exporters.export import export as export
    from runtime.bundle import Bundle as Bundle
    from runtime.engine import Engine as Engine
    from runtime.pipelines import load as load
    from runtime.verify import verify as verify

PART_OF = "edgedl"

_PUBLIC = {
    "Bundle": "runtime.bundle",
    "Engine": "runtime.engine",
    "export": "exporters.export",
    "load": "runtime.pipelines",
    "verify": "runtime.verify",
}

__all__ = ["Bundle", "Engine", "__version__", "export", "load", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgedl' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
