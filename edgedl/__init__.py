"""edgedl takes a PyTorch network to an edge device and proves that it still gives the same answer there.

The public names load on first use, so that ``import edgedl`` costs nothing and needs nothing but Python.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgedl._version import __version__

if TYPE_CHECKING:
    from exporters.calling import Call as Call
    from exporters.export import export as export
    from exporters.spec import Case as Case
    from exporters.spec import Input as Input
    from exporters.spec import Output as Output
    from runtime.bundle import Bundle as Bundle
    from runtime.engine import Engine as Engine
    from runtime.errors import BundleError as BundleError
    from runtime.errors import CheckFailedError as CheckFailedError
    from runtime.errors import DeviceError as DeviceError
    from runtime.errors import EdgedlError as EdgedlError
    from runtime.errors import InputError as InputError
    from runtime.errors import MediaError as MediaError
    from runtime.errors import MissingExtraError as MissingExtraError
    from runtime.errors import TooLargeError as TooLargeError
    from runtime.pipelines import load as load
    from runtime.pipelines.age import AgePipeline as AgePipeline
    from runtime.pipelines.caption import CaptionPipeline as CaptionPipeline
    from runtime.pipelines.chars import CharsPipeline as CharsPipeline
    from runtime.pipelines.digits import DigitsPipeline as DigitsPipeline
    from runtime.pipelines.tensors import TensorPipeline as TensorPipeline
    from runtime.signature import DimensionSpec as Range
    from runtime.signature import StateSpec as State
    from runtime.verify import verify as verify

PART_OF = "edgedl"

_ERRORS = (
    "BundleError", "CheckFailedError", "DeviceError", "EdgedlError", "InputError", "MediaError", "MissingExtraError",
    "TooLargeError",
)  # fmt: skip
_PUBLIC = {
    "AgePipeline": "runtime.pipelines.age:AgePipeline",
    "Bundle": "runtime.bundle:Bundle",
    "Call": "exporters.calling:Call",
    "CaptionPipeline": "runtime.pipelines.caption:CaptionPipeline",
    "Case": "exporters.spec:Case",
    "CharsPipeline": "runtime.pipelines.chars:CharsPipeline",
    "DigitsPipeline": "runtime.pipelines.digits:DigitsPipeline",
    "Engine": "runtime.engine:Engine",
    "Input": "exporters.spec:Input",
    "Output": "exporters.spec:Output",
    "Range": "runtime.signature:DimensionSpec",
    "State": "runtime.signature:StateSpec",
    "TensorPipeline": "runtime.pipelines.tensors:TensorPipeline",
    "export": "exporters.export:export",
    "load": "runtime.pipelines:load",
    "verify": "runtime.verify:verify",
} | {name: f"runtime.errors:{name}" for name in _ERRORS}

__all__ = [
    "AgePipeline", "Bundle", "BundleError", "Call", "CaptionPipeline", "Case", "CharsPipeline", "CheckFailedError",
    "DeviceError", "DigitsPipeline", "EdgedlError", "Engine", "Input", "InputError", "MediaError", "MissingExtraError",
    "Output", "Range", "State", "TensorPipeline", "TooLargeError", "__version__", "export", "load", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgedl' has no attribute {name!r}")
    module, _, theirs = _PUBLIC[name].partition(":")
    try:
        value = getattr(import_module(module), theirs)
    except (ImportError, AttributeError):
        from edgedl._parts import shadowed

        if foreign := shadowed():
            raise ImportError("; ".join(foreign), name=module.partition(".")[0]) from None
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
