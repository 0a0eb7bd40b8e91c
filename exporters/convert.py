"""torch module -> ONNX graph: traced once, with every named axis dynamic, then cleaned.

What torch writes beside the graph is dropped (stack traces with the paths of this machine, the whole program in
comments), axes get their declared names, nodes are named after the module they come from, and the same module gives
the same bytes.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from exporters import decoding, image, lowerings, recurrent_operators
from exporters.divisions import multiply_for_divisions
from exporters.errors import GuardError
from exporters.folding import fold_weights
from exporters.graphs import all_nodes, bodies, graphs
from exporters.lowerings.sigmoids import widen_sigmoids
from exporters.lowerings.unsupported import line_of, unsupported
from exporters.places import line_in
from exporters.rounded import write_roundings
from exporters.simplify import simplify
from exporters.size_guards import symbol_names
from exporters.spec import Input, Output, Signature
from exporters.tracing import quiet, trace
from exporters.unseen import unseen


@dataclass(frozen=True, slots=True)
class Converted:
    """A graph and the torch program that it was made from, for comparing their intermediate values."""

    model: onnx.ModelProto
    program: torch.export.ExportedProgram
    values: Mapping[str, str]
    """Name of a node in the torch program -> name of its value in the graph."""
    places: Mapping[str, str]
    """Name of a value in the graph -> the user's line that it comes from."""


def convert(
    module: nn.Module,
    example: Mapping[str, NDArray[Any]],
    signature: Signature,
    opset: int,
) -> Converted:
    """Exports a module, traced on ``example``.

    Raises:
        GuardError: torch cannot export it, or can only with an axis frozen that is declared dynamic.
    """
    inputs = signature.inputs
    with quiet():
        traced = traced_program(module, example, signature)
        try:
            program = torch.onnx.export(
                traced,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=[tensor.name for tensor in inputs],
                output_names=[tensor.name for tensor in signature.outputs],
                custom_translation_table=_translations(),
                optimize=False,
                verbose=False,
            )
            if program is None or program.exported_program is None:
                raise GuardError("torch.onnx gave no program")
            simplify(program.model)
        except GuardError:
            raise
        except Exception as error:
            raise GuardError(_explain_translation(error, traced, inputs)) from error
    model = program.model_proto
    multiply_for_divisions(model)  # before the narrow types are written as float32, whose roundings stay as they are
    write_roundings(model)
    fold_weights(model)
    widen_sigmoids(model)
    values, places = _torch_names(model, program.exported_program), _places(model.graph)
    _clean(model)
    _name_transposed(model, program.exported_program.state_dict)
    return Converted(model, program.exported_program, values, places)


def traced_program(
    module: nn.Module, example: Mapping[str, NDArray[Any]], signature: Signature
) -> torch.export.ExportedProgram:
    """The module traced as it runs while nobody traces it; where torch cannot, as it runs for torch.

    Raises:
        GuardError: torch cannot trace it, or there is no form in ONNX for what it does.
    """
    inputs = signature.inputs
    arguments = tuple(torch.from_numpy(example[tensor.name].copy()) for tensor in inputs)
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(tensor.shape) if isinstance(size, str)}
        for tensor in inputs
    )
    with quiet():
        try:
            with unseen() as asked:
                traced = trace(module, arguments, dynamic, example, inputs)
        except GuardError:
            if not asked:
                raise
            traced = trace(module, arguments, dynamic, example, inputs)
    if reason := unsupported(traced):
        raise GuardError(reason)
    return traced


def rename_axes(model: onnx.ModelProto, signature: Signature) -> None:
    """Gives the axes their declared names, in the inputs, the outputs and everywhere between.

    Raises:
        GuardError: an axis is frozen that is declared by name, or has another size than declared, or two named
            dimensions are one and the same in the graph.
    """
    names: dict[str, str] = {}
    for declared, value in zip(signature.inputs, model.graph.input, strict=True):
        for axis, (size, found) in enumerate(_axes(declared, value)):
            if isinstance(size, int) and found != size:
                raise GuardError(f"input {declared.name}, axis {axis}: declared is {size}, the graph has {found}")
            if isinstance(size, str):
                if isinstance(found, int):
                    raise GuardError(
                        f"input {declared.name}: axis {axis} ({size}) is frozen to {found}: forward turns it into a "
                        "Python number or a constant"
                    )
                if names.setdefault(found, size) != size:
                    raise GuardError(
                        f"input {declared.name}: forward forces {size} = {names[found]}; declare one name for both"
                    )
                value.type.tensor_type.shape.dim[axis].dim_param = size
    for graph in graphs(model.graph):
        inner = () if graph is model.graph else (*graph.input, *graph.output)
        for tensor in (*graph.value_info, *inner):
            for dimension in tensor.type.tensor_type.shape.dim:
                if dimension.HasField("dim_param"):
                    text = re.sub(r"\w+", lambda match: names.get(match[0], match[0]), dimension.dim_param)
                    dimension.dim_param = text
    for wanted, value in zip(signature.outputs, model.graph.output, strict=True):
        for axis, (size, found) in enumerate(_axes(wanted, value)):
            dimension = value.type.tensor_type.shape.dim[axis]
            if isinstance(size, str):
                if isinstance(found, int):
                    raise GuardError(f"output {wanted.name}: axis {axis} is declared {size} but frozen to {found}")
                # Whether an expression such as 2*(T//2) really is what it is called, the sweep tells.
                dimension.dim_param = size
            elif isinstance(found, int) and found != size:
                raise GuardError(f"output {wanted.name}, axis {axis}: declared is {size}, the graph gives {found}")
            else:
                dimension.dim_value = size


def _translations() -> dict[Any, Any]:
    return (
        lowerings.onnx_translations()
        | image.onnx_translations()
        | decoding.onnx_translations()
        | recurrent_operators.onnx_translations()
    )


def _axes(declared: Input | Output, value: onnx.ValueInfoProto) -> Iterator[tuple[int | str, int | str]]:
    """Declared size and found size of each axis. An axis without either in the graph has a name of its own."""
    tensor = value.type.tensor_type
    found_dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    kind = "input" if isinstance(declared, Input) else "output"
    if declared.name != value.name:
        raise GuardError(f"{kind} {declared.name} is called {value.name} in the graph")
    if found_dtype != declared.dtype:
        raise GuardError(f"{kind} {declared.name}: declared is {declared.dtype}, the graph has {found_dtype}")
    if len(tensor.shape.dim) != len(declared.shape):
        raise GuardError(
            f"{kind} {declared.name}: declared is {list(declared.shape)}, the graph has {len(tensor.shape.dim)} axes"
        )
    for axis, (size, dimension) in enumerate(zip(declared.shape, tensor.shape.dim, strict=True)):
        found: int | str = dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param
        yield size, found if found != "" else f"{declared.name}.{axis}"


def _clean(model: onnx.ModelProto) -> None:
    """Drops comments, unused opsets and torch's notes; names nodes by module; writes the lowest IR version."""
    seen: Counter[str] = Counter()
    _name_nodes(model.graph, "", seen)
    initializers = {initializer.name for initializer in model.graph.initializer}
    for graph in graphs(model.graph):
        for holder in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            del holder.metadata_props[:]
            holder.doc_string = ""
        kept = [value for value in graph.value_info if value.name not in initializers]
        del graph.value_info[:]
        graph.value_info.extend(kept)
        del graph.metadata_props[:]
        graph.doc_string = ""
    del model.metadata_props[:]
    model.doc_string = ""
    used = {node.domain for node in all_nodes(model)} | {f.domain for f in model.functions}
    opsets = [opset for opset in model.opset_import if opset.domain in used | {""}]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    # An older ONNX Runtime refuses a graph of a newer IR version, whatever is in it.
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))


def _name_nodes(graph: onnx.GraphProto, around: str, seen: Counter[str]) -> None:
    """Names nodes after the module that they come from; in the body of a loop, of which torch keeps no modules, after
    the loop.
    """
    for node in graph.node:
        scope = around or _scope(node)
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        del node.metadata_props[:]
        node.doc_string = ""
        for inner in bodies(node):
            _name_nodes(inner, node.name, seen)


def _scope(node: onnx.NodeProto) -> str:
    """The path of the torch module that a node comes from, e.g. ``backbone.blocks.0.conv1``; empty at the top."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            path = ast.literal_eval(entry.value)  # "['', 'backbone', 'backbone.norm', 'relu']": the last is the call
            return str(path[-2]) if len(path) > 1 and not path[-2].startswith("_") else ""
    return ""


def _name_transposed(model: onnx.ModelProto, parameters: Mapping[str, Any]) -> None:
    """Gives a transposed weight, which the exporter wrote as a new constant, the name of the weight with ``.T``."""
    known = {initializer.name for initializer in model.graph.initializer}
    tensors = {name: tensor for name, tensor in parameters.items() if isinstance(tensor, torch.Tensor)}
    matrices = {name: tensor.T for name, tensor in tensors.items() if tensor.ndim == 2}
    renamed: dict[str, str] = {}
    for initializer in model.graph.initializer:
        floating = initializer.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        if len(initializer.dims) != 2 or initializer.name in parameters or not floating:
            continue
        array = torch.from_numpy(onnx.numpy_helper.to_array(initializer).copy())
        for name, matrix in matrices.items():
            if f"{name}.T" not in known and matrix.dtype == array.dtype and torch.equal(matrix, array):
                renamed[initializer.name] = initializer.name = f"{name}.T"
                known.add(initializer.name)
                break
    for node in all_nodes(model):
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _torch_names(model: onnx.ModelProto, program: torch.export.ExportedProgram) -> dict[str, str]:
    """Values carry the names of torch's nodes, all but the graph's outputs, which were renamed in order."""
    known = {name for node in model.graph.node for name in node.output}
    values = {node.name: node.name for node in program.graph.nodes if node.name in known}
    results = [spec.arg.name for spec in program.graph_signature.output_specs if hasattr(spec.arg, "name")]
    if len(results) == len(model.graph.output):
        values |= {name: value.name for name, value in zip(results, model.graph.output, strict=True)}
    return values


def _places(graph: onnx.GraphProto, around: str | None = None) -> dict[str, str]:
    """The user's line behind each value; in the body of a loop, of which torch notes none, that of the loop."""
    found: dict[str, str] = {}
    for node in graph.node:
        stack = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.stack_trace"), "")
        place = line_in(stack) or around
        if place:
            found |= dict.fromkeys(node.output, place)
        for inner in bodies(node):
            found |= _places(inner, place)
    return found


def _explain_translation(error: Exception, traced: torch.export.ExportedProgram, inputs: Sequence[Input]) -> str:
    """Why torch.onnx stopped: the operator and the user's line, with the names of the dimensions for torch's."""
    reason = str(error.__cause__ or error).strip().splitlines()[0]
    found = re.search(r"target=torch\.ops\.(\w+\.\w+)", reason)
    if found is not None:
        nodes = (
            n for part in traced.graph_module.modules() for n in getattr(getattr(part, "graph", None), "nodes", ())
        )
        node = next((n for n in nodes if found[1] in str(n.target).removeprefix("torch.ops.")), None)
        place = "" if node is None else line_of(node)
        chain = [str(error), str(error.__cause__), str(getattr(error.__cause__, "__cause__", ""))]
        if any("complex" in text for text in chain):
            why = "torch.onnx does not write it for complex numbers; compute with their real and imaginary parts"
        elif "No decompositions registered" in chain[0] + chain[2]:
            why = "torch.onnx has no translation for it; write it with other operators"
        else:
            why = f"its translation does not take these arguments ({_innermost(error)}); write it with other operators"
        return f"{place}torch's {found[1].partition('.')[2]} cannot be exported: {why}"
    for symbol, name in symbol_names(traced, inputs)[0].items():
        reason = re.sub(rf"\b{symbol}\b", str(name), reason)
    return f"torch.onnx cannot write the module: {reason}"


def _innermost(error: BaseException) -> str:
    """The error that began a chain, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
