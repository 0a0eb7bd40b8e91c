"""What goes on the device: numpy and onnxruntime, never torch.

The public names load on first use: ``import runtime`` costs nothing and needs nothing but Python.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.bundle import Bundle as Bundle
    from runtime.doctor import diagnose as diagnose
    from runtime.engine import Engine as Engine
    from runtime.media.pictures import read_image as read_image
    from runtime.media.pictures import read_picture as read_picture
    from runtime.pipelines import load as load
    from runtime.probabilities import one_hot as one_hot
    from runtime.probabilities import softmax as softmax

PART_OF = "edgedl"

_PUBLIC = {
    "Bundle": "runtime.bundle",
    "Engine": "runtime.engine",
    "diagnose": "runtime.doctor",
    "load": "runtime.pipelines",
    "one_hot": "runtime.probabilities",
    "read_image": "runtime.media.pictures",
    "read_picture": "runtime.media.pictures",
    "softmax": "runtime.probabilities",
}
# `verify` and `bench` are not in the table: each is also the name of its module, and a name that is the
# function or the module, depending on what was imported before, is a trap. Say `from runtime.verify import verify`.

__all__ = ["Bundle", "Engine", "diagnose", "load", "one_hot", "read_image", "read_picture", "softmax"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'runtime' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
