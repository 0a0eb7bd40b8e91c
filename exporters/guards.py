"""What has to hold before a module is exported and of the graph that comes out; each guard stands for a real fault.

Before: evaluation mode; finite weights; cases that fit the declaration, share no memory and vary every named size.
After: the inputs and opset that were asked for, every input used for its values, no functions or custom operators, a
graph that the ONNX checker accepts. The axes are held in `exporters.convert.rename_axes`: a loop over a named axis that
was written out to the example's length has that axis frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import onnx
import torch
from torch import nn

from exporters.errors import GuardError, TooFewSizesError
from exporters.graphs import all_nodes, bodies, graphs
from exporters.spec import Case, Input, Signature, bind_sizes
from exporters.sweep import dimension_names

_BY_VALUES = frozenset(("Compress", "NonMaxSuppression", "NonZero", "Unique"))
"""Operators whose answer has another size for other values."""


def check_declaration(signature: Signature) -> None:
    """Names are unique, dtypes are numpy's, and each state is an input and an output of one shape.

    Raises:
        GuardError: they are not.
    """
    if not signature.inputs or not signature.outputs:
        raise GuardError("declare at least one input and one output")
    names = [tensor.name for tensor in signature.tensors]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GuardError(f"declared twice: {', '.join(twice)}; inputs and outputs share one name space in a graph")
    for tensor in signature.tensors:
        try:
            np.dtype(tensor.dtype)
        except TypeError as error:
            raise GuardError(f"{tensor.name}: {tensor.dtype!r} is not a numpy dtype") from error
    given = {tensor.name: tensor.shape for tensor in signature.inputs}
    returned = {tensor.name: tensor.shape for tensor in signature.outputs}
    for carried in signature.state:
        if {given.get(carried.input), returned.get(carried.output)} != {tuple(carried.shape)}:
            raise GuardError(
                f"state {carried.input} -> {carried.output} of shape {list(carried.shape)}: there must be an input "
                "and an output of these names and of this shape"
            )


def check_module(module: nn.Module) -> None:
    """Evaluation mode, finite weights, on the CPU.

    Raises:
        GuardError: dropout or batch normalisation would still be learning, or a weight is not finite.
    """
    training = [name or type(module).__name__ for name, part in module.named_modules() if part.training]
    if training:
        raise GuardError(
            f"in training mode: {_some(training)}; dropout and batch normalisation would answer differently: "
            "call module.eval() first"
        )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type != "cpu":
            raise GuardError(f"{name} is on {tensor.device}, expected the CPU: call module.cpu() first")
    for name, parameter in module.named_parameters():
        # Of parameters alone: an infinite buffer is a mask.
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise GuardError(f"{name} holds a number that is not finite: the training has diverged")


def check_cases(inputs: Sequence[Input], cases: Sequence[Case]) -> None:
    """Every case fits the declaration, no two arrays of one case share memory, every named size varies.

    Raises:
        GuardError: see above; the message names the case.
    """
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    seen: dict[str, set[int]] = {name: set() for name in dimension_names(inputs)}
    names: set[str] = set()
    for case in cases:
        if case.name in names or "/" in case.name or not case.name:
            raise GuardError(f"case {case.name!r}: a name must be there, unique and without a slash")
        names.add(case.name)
        if set(case.inputs) != set(shapes):
            raise GuardError(f"case {case.name!r} has the inputs {sorted(case.inputs)}, declared are {sorted(shapes)}")
        for tensor in inputs:
            if not isinstance(case.inputs[tensor.name], np.ndarray):
                kind = type(case.inputs[tensor.name]).__name__
                raise GuardError(f"case {case.name!r}: {tensor.name} is of type {kind}, expected a numpy array")
            found = case.inputs[tensor.name].dtype
            if found != np.dtype(tensor.dtype):
                raise GuardError(f"case {case.name!r}: {tensor.name} is {found}, declared is {tensor.dtype}")
        try:
            sizes = bind_sizes(shapes, case.inputs)
        except ValueError as error:
            raise GuardError(f"case {case.name!r}: {error}") from error
        for name, size in sizes.items():
            seen[name].add(size)
        for one, other in combinations(shapes, 2):
            if np.shares_memory(case.inputs[one], case.inputs[other]):
                raise GuardError(
                    f"case {case.name!r}: {one} and {other} share memory; torch would take them for one input and "
                    "wire the graph wrongly: give each its own array, with values of its own"
                )
    for name, sizes_seen in seen.items():
        if len(sizes_seen) < 2:
            text = ", ".join(map(str, sizes_seen)) or "no size"
            raise TooFewSizesError(
                f"dimension {name} is swept over {text} only, so a frozen axis would pass: give "
                f"sizes={{'{name}': […]}} or cases of other sizes, or declare it as a number"
            )


def check_graph(model: onnx.ModelProto, signature: Signature, opset: int) -> None:
    """Holds a finished graph to what was asked for.

    Raises:
        GuardError: see the module's docstring.
    """
    for kind, declared, found in (
        ("inputs", [tensor.name for tensor in signature.inputs], [value.name for value in model.graph.input]),
        ("outputs", [tensor.name for tensor in signature.outputs], [value.name for value in model.graph.output]),
    ):
        if declared != found:
            raise GuardError(f"the graph's {kind} are {found}, declared are {declared}")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions != {"": opset}:
        raise GuardError(
            f"asked for opset {opset}, the graph has {versions}; some operator of it has no form in opset {opset}: "
            f"ask for {max(versions.values(), default=opset)}"
        )
    strange = sorted(
        {f"{node.domain}::{node.op_type}" for node in all_nodes(model) if node.domain not in ("", "ai.onnx")}
    )
    if strange or model.functions:
        functions = [function.name for function in model.functions]
        raise GuardError(f"only standard operators run everywhere; the graph has {_some(strange + functions)}")
    used = _consumed(model.graph) | {value.name for value in model.graph.output}
    unused = [tensor.name for tensor in signature.inputs if tensor.name not in used]
    if unused:
        raise GuardError(f"no node reads {', '.join(unused)}: forward ignores it; drop the input or use it")
    telling = _telling(model.graph)
    shapes = [tensor.name for tensor in signature.inputs if tensor.name not in telling]
    if shapes:
        raise GuardError(
            f"only the shape of {', '.join(shapes)} is read: its values change no answer; drop the input or use it"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GuardError(f"the ONNX checker refuses the graph: {error}") from error


def _consumed(graph: onnx.GraphProto) -> set[str]:
    """Every name that a node reads, in the graph and in the graphs inside its nodes."""
    return {name for part in graphs(graph) for node in part.node for name in node.input} | {
        value.name for node in graph.node for body in bodies(node) for part in graphs(body) for value in part.output
    }


def _telling(graph: onnx.GraphProto) -> set[str]:
    """Every name whose values some output depends on; of what only ``Shape`` or ``Size`` reads, values tell nothing."""
    by_values: set[str] = set()  # what has as many elements as values say
    for node in graph.node:
        if node.op_type in _BY_VALUES or not by_values.isdisjoint(node.input):
            by_values.update(node.output)
    telling = {value.name for value in graph.output}
    for node in reversed(graph.node):  # in the order of computation
        sizes_only = node.op_type in ("Shape", "Size") and by_values.isdisjoint(node.input)
        if not sizes_only and not telling.isdisjoint(node.output):
            telling.update(node.input, *(_consumed(body) for body in bodies(node)))
            telling.update(value.name for body in bodies(node) for value in body.output)
    return telling


def _some(names: Sequence[str], count: int = 4) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
