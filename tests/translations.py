"""torch's table of translations to ONNX, made once.

torch makes it anew for every export, and takes half the time of a small one for it.
"""

from __future__ import annotations

import contextlib
import copy
import functools


def make_once() -> None:
    """Gives every export of this process a copy of one table, to which the export may add."""
    with contextlib.suppress(ImportError):  # without onnxscript nothing is exported
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        make = functools.cache(ONNXRegistry.from_torchlib)

        def copied(opset_version: int = ONNXRegistry().opset_version) -> ONNXRegistry:
            registry = copy.copy(make(opset_version))
            registry.functions = {name: list(found) for name, found in registry.functions.items()}
            return registry

        ONNXRegistry.from_torchlib = staticmethod(copied)
