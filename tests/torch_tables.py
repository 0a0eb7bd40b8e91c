"""torch's tables for an export, made once.

torch makes them anew for every export, and takes most of the time of a small one for it: which operators are
composites, which are decomposed, and what each translation to ONNX takes and gives. They are the same for every
export of a process. `tests/exporters/test_torch_tables.py` holds that a graph is the same with and without this.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import Any

REPLACED: list[tuple[Any, str, Any]] = []
"""What `make_once` has replaced: where, its name, and what torch has there."""


def make_once() -> None:
    """Lets the exports of this process share the tables; an export gets copies of those to which it adds."""
    with contextlib.suppress(ImportError):  # without onnxscript nothing is exported
        _make_once()


def _make_once() -> None:
    from torch._export import utils
    from torch._ops import OperatorBase
    from torch.export import decomp_utils, exported_program
    from torch.onnx._internal.exporter import _decomp, _schemas
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    _replace(ONNXRegistry, "from_torchlib", _shared_registry)
    # The operators of `exporters` are no composites, and no test defines any.
    composites = functools.cache(utils._collect_all_valid_cia_ops)
    for module in (utils, decomp_utils, exported_program):
        _replace(module, "_collect_all_valid_cia_ops", lambda found: composites)
    _replace(_decomp, "create_onnx_friendly_decomposition_table", _shared_decompositions)
    _replace(_schemas, "op_signature_from_function", functools.cache)
    _replace(OperatorBase, "py_impl", _plain_py_impl)


def _replace(holder: Any, name: str, change: Callable[[Any], Any]) -> None:
    found = getattr(holder, name)
    REPLACED.append((holder, name, holder.__dict__[name]))
    setattr(holder, name, change(found))


def _shared_registry(from_torchlib: Callable[..., Any]) -> Any:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    make = functools.cache(from_torchlib)

    def copied(opset_version: int = ONNXRegistry().opset_version) -> ONNXRegistry:
        registry = copy.copy(make(opset_version))
        registry.functions = {name: list(found) for name, found in registry.functions.items()}
        return registry

    return staticmethod(copied)


def _shared_decompositions(table: Callable[[Any], dict[Any, Any]]) -> Callable[[set[Any]], dict[Any, Any]]:
    make = functools.cache(table)
    return lambda known: dict(make(frozenset(known)))


def _plain_py_impl(py_impl: Callable[..., Any]) -> Callable[..., Any]:
    """The same without annotations, which take longer than what it does; two passes call it 6,000 times an export."""
    from torch._C import DispatchKey

    def plain(self: Any, key: Any) -> Callable[[Any], Any]:
        if type(key) is not DispatchKey or key == DispatchKey.Python or key in self.py_kernels:
            return py_impl(self, key)  # type: ignore[no-any-return]

        def register(function: Any) -> Any:
            self.py_kernels[key] = function
            self._dispatch_cache.clear()
            return function

        return register

    return plain
