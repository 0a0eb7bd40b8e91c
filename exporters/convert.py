"""torch module -> ONNX graph: traced once, with every named axis dynamic, then cleaned.

What torch writes beside the graph is dropped (stack traces with the paths of this machine, the whole program in
comments), axes get their declared names, nodes are named after the module they come from, and the same module gives
the same bytes.
"""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from exporters import decoding, image, loops, lowerings, recurrent, recurrent_operators
from exporters.errors import GuardError
from exporters.folding import fold_weights
from exporters.graphs import all_nodes, bodies, graphs
from exporters.lowerings.functions import Functions
from exporters.lowerings.sigmoids import widen_sigmoids
from exporters.lowerings.unsupported import line_of, unsupported
from exporters.places import line_in, line_of_error
from exporters.simplify import simplify
from exporters.size_guards import symbol_names
from exporters.spec import Input, Output, Signature

_FROZEN = re.compile(r"(?:specialized|inferred).*?constant \((\d+)\)", re.DOTALL)
"""What torch says when an axis that is to be dynamic has become a number."""


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
    arguments = tuple(torch.from_numpy(example[tensor.name].copy()) for tensor in inputs)
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(tensor.shape) if isinstance(size, str)}
        for tensor in inputs
    )
    with _quiet():
        traced = _trace(module, arguments, dynamic, example, inputs)
        if reason := unsupported(traced):
            raise GuardError(reason)
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
    fold_weights(model)
    widen_sigmoids(model)
    values, places = _torch_names(model, program.exported_program), _places(model)
    _clean(model)
    _name_transposed(model, program.exported_program.state_dict)
    return Converted(model, program.exported_program, values, places)


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


def stamp(graph: bytes, properties: Mapping[str, str]) -> bytes:
    """Writes ``metadata_props`` into a graph, so that a stray file tells what it belongs to."""
    model = onnx.load_from_string(graph)
    onnx.helper.set_model_props(model, dict(properties))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _trace(
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    dynamic: tuple[dict[int, Any], ...],
    example: Mapping[str, NDArray[Any]],
    inputs: Sequence[Input],
) -> torch.export.ExportedProgram:
    """The module as torch traces it; where a loop of its own freezes an axis, with that loop rolled up."""
    try:
        with recurrent.lowered(), Functions(), loops.told_at_once():
            traced = torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
        if loops.is_written_out(traced):
            with (
                suppress(loops.NotRolledError),
                loops.rolled(module, example, inputs, None),
                recurrent.lowered(),
                Functions(),
            ):
                return torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
        return traced
    except GuardError:
        raise
    # Whatever forward does can go wrong while it is traced, with any exception.
    except Exception as error:
        if "len(" in (line_of_error(error) or ""):
            with suppress(Exception), recurrent.lowered(), Functions(), _symbolic_len(), loops.told_at_once():
                return torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
        explained, reasons = _explain_trace(error, inputs, example), []
        for axis in _frozen(error, inputs, example):
            try:
                with loops.rolled(module, example, inputs, axis), recurrent.lowered(), Functions():
                    return torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
            except loops.NotRolledError as refusal:
                reasons.append(str(refusal))
            except Exception as again:  # noqa: BLE001 - what it says is told
                reasons.append(f"rolled up, it cannot be traced either: {_explain_trace(again, inputs, example)}")
        why = f". A loop of one's own is rolled up where it can be; here: {'; '.join(reasons)}" if reasons else ""
        raise GuardError(explained + why) from error


@contextmanager
def _symbolic_len() -> Iterator[None]:
    """Lets ``len(x)`` of a tensor be the size of its first axis, which Python turns into a number otherwise."""
    right = len

    def length(value: Any) -> Any:
        return value.shape[0] if isinstance(value, torch.Tensor) and value.shape else right(value)

    with mock.patch("builtins.len", length):
        yield


def _frozen(error: Exception, inputs: Sequence[Input], example: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """The names of the axes that torch says were frozen: those whose example has the size that it names."""
    found = _FROZEN.search(str(error))
    if found is None:
        return ()
    return tuple(
        dict.fromkeys(
            name
            for tensor in inputs
            for axis, name in enumerate(tensor.shape)
            if isinstance(name, str) and example[tensor.name].shape[axis] == int(found[1])
        )
    )


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


def _places(model: onnx.ModelProto) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in all_nodes(model):
        stack = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.stack_trace"), "")
        if place := line_in(stack):
            found |= dict.fromkeys(node.output, place)
    return found


def _explain_trace(error: Exception, inputs: Sequence[Input], example: Mapping[str, NDArray[Any]]) -> str:
    text, place = str(error).strip(), line_of_error(error)
    frozen = _FROZEN.search(text)
    if frozen:
        size = int(frozen[1])
        axes = [
            f"{name} of {tensor.name}"
            for tensor in inputs
            for axis, name in enumerate(tensor.shape)
            if isinstance(name, str) and example[tensor.name].shape[axis] == size
        ]
        return (
            f"forward freezes {' and '.join(axes) or 'an axis'} to {size}, the size of the example"
            f"{f' ({place})' if place else ''}: it turns the size into a Python number, a constant or a loop. Use "
            "tensor operations (a loop over time: exporters.recurrent.over_time), or declare the axis with a number"
        )
    if "data-dependent" in text:
        return (
            f"{place or 'forward'}: forward decides by values here (if, while, int(), .item(), a range or a size), and "
            "a graph has one way for all values. Use tensor operations (torch.where, masks) or torch.cond"
        )
    if "unhashable type" in text and "SymInt" in text:
        return (
            f"{place or 'forward'}: forward looks something up by a size (lru_cache, a dict), which has no number "
            "while the network is traced. Compute it from tensors, or keep a table that is long enough and slice it"
        )
    lines = text.splitlines()
    told = f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
    return f"torch cannot export the module: {told}{f' ({place})' if place else ''}"


def _explain_translation(error: Exception, traced: torch.export.ExportedProgram, inputs: Sequence[Input]) -> str:
    """Why torch.onnx stopped: the operator and the user's line, with the names of the dimensions for torch's."""
    reason = str(error.__cause__ or error).strip().splitlines()[0]
    found = re.search(r"target=torch\.ops\.(\w+\.\w+)", reason)
    if found is not None:
        named = (node for node in traced.graph.nodes if found[1] in str(node.target).removeprefix("torch.ops."))
        node = next(named, None)
        place = "" if node is None else line_of(node)
        return f"{place}torch's {found[1].partition('.')[2]} cannot be exported: torch.onnx has no translation for it"
    for symbol, name in symbol_names(traced, inputs)[0].items():
        reason = re.sub(rf"\b{symbol}\b", str(name), reason)
    return f"torch.onnx cannot write the module: {reason}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter, which logs and warns about itself; what matters is asserted on the graph afterwards."""
    names = ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # Where torch gives up it prints the graph that it has so far.
        silent = mock.patch("torch.export._trace.print", create=True)
        # A distribution checks its values with Python conditions.
        unchecked = mock.patch("torch.distributions.Distribution._validate_args", new=False)
        with warnings.catch_warnings(), silent, unchecked:
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
