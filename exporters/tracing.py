"""A module as torch traces it, with what torch says when it cannot, in the user's terms."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast
from unittest import mock

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.nn.modules import transformer

from exporters import loops, recurrent, symbolic
from exporters.errors import GuardError
from exporters.lowerings.complex_pairs import as_pairs, has_complex
from exporters.lowerings.functions import Functions, attention
from exporters.lowerings.known_values import KnownValues
from exporters.places import line_of_error
from exporters.spec import Input

_FROZEN = re.compile(r"(?:specialized|inferred).*?constant \((\d+)\)", re.DOTALL)
"""What torch says when an axis that is to be dynamic has become a number."""


def trace(
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    dynamic: tuple[dict[int, Any], ...],
    example: Mapping[str, NDArray[Any]],
    inputs: Sequence[Input],
) -> torch.export.ExportedProgram:
    """The module as torch traces it; where a loop of its own freezes an axis, with that loop rolled up."""
    try:
        with loops.told_at_once():
            traced = _exported(module, arguments, dynamic)
        if loops.is_written_out(traced):
            with suppress(loops.NotRolledError), loops.rolled(module, example, inputs, None):
                return _exported(module, arguments, dynamic)
        return traced
    except GuardError:
        raise
    # Whatever forward does can go wrong while it is traced, with any exception.
    except Exception as error:
        if re.search(r"\b(len|int|float)\(", line_of_error(error) or ""):
            try:
                with symbolic.len_of_tensors(), symbolic.int_of_sizes(module), loops.told_at_once():
                    return _exported(module, arguments, dynamic)
            except Exception as further:  # noqa: BLE001 - what stands in the way behind it
                if isinstance(error, loops.RoundedError):
                    error = further
        if isinstance(error, loops.RoundedError):
            with suppress(Exception):  # where the number does not matter, it may stay what it is
                return _exported(module, arguments, dynamic)
            raise GuardError(f"{error}; write it with // and %, or compute it of tensors") from error
        explained, reasons = _explain_trace(error, inputs, example), []
        for axis in _frozen(error, inputs, example):
            try:
                with loops.rolled(module, example, inputs, axis):
                    return _exported(module, arguments, dynamic)
            except loops.NotRolledError as refusal:
                reasons.append(str(refusal))
            except Exception as again:  # noqa: BLE001 - what it says is told
                reasons.append(f"rolled up, it cannot be traced either: {_explain_trace(again, inputs, example)}")
        why = f". A loop of one's own is rolled up where it can be; here: {'; '.join(reasons)}" if reasons else ""
        raise GuardError(explained + why) from error


def _exported(
    module: nn.Module, arguments: tuple[torch.Tensor, ...], dynamic: tuple[dict[int, Any], ...]
) -> torch.export.ExportedProgram:
    program = _as_it_runs(module, arguments, dynamic)
    if has_complex(program):
        with as_pairs(module, program):
            program = _as_it_runs(module, arguments, dynamic)
    return program


def _as_it_runs(
    module: nn.Module, arguments: tuple[torch.Tensor, ...], dynamic: tuple[dict[int, Any], ...]
) -> torch.export.ExportedProgram:
    patched = _attention_as_it_is_written()
    kept = _attributes_as_they_were(module), _buffers_aside(module)
    numbers = KnownValues(module), symbolic.functions_of_sizes()
    with recurrent.lowered(), numbers[0], Functions(), numbers[1], patched, kept[0], kept[1]:
        program = torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
    _limits_of_one_type(program)
    _answers_of_their_own(program)
    return program


@contextmanager
def _attention_as_it_is_written() -> Iterator[None]:
    """Leaves out that torch's transformers look at the numbers of a mask, only to find out that it is causal."""

    def detect(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
        return is_causal is True

    with (
        mock.patch.object(F, "scaled_dot_product_attention", attention),
        mock.patch.object(transformer, "_detect_is_causal_mask", detect),
    ):
        yield


def _answers_of_their_own(program: torch.export.ExportedProgram) -> None:
    """Copies answers that are inputs, or one another: in a graph a value has one name."""
    (output,) = program.graph.find_nodes(op="output")
    seen: set[torch.fx.Node] = set()
    answers = list(cast(Sequence[Any], output.args[0]))
    for place, (answer, spec) in enumerate(zip(answers, program.graph_signature.output_specs, strict=True)):
        if spec.kind == OutputKind.USER_OUTPUT and isinstance(answer, torch.fx.Node):
            if answer.op == "placeholder" or answer in seen:
                with program.graph.inserting_before(output):
                    copied = program.graph.call_function(torch.ops.aten.clone.default, (answer,))
                copied.meta = dict(answer.meta)
                spec.arg = TensorArgument(copied.name)
                answers[place] = copied
            seen.add(answer)
    if any(now is not before for now, before in zip(answers, cast(Sequence[Any], output.args[0]), strict=True)):
        output.args = (tuple(answers),)
        program.graph_module.recompile()


def _limits_of_one_type(program: torch.export.ExportedProgram) -> None:
    """Writes ``clamp(0.1, 3)`` as ``clamp(0.1, 3.0)``: torch.onnx stops at limits of two types."""
    for graph in (part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)):
        for node in graph.find_nodes(op="call_function", target=torch.ops.aten.clamp.default):
            given, *limits = cast(list[Any], node.args)
            if {type(limit) for limit in limits} == {int, float}:
                node.args = (given, *map(float, limits))


@contextmanager
def _attributes_as_they_were(module: nn.Module) -> Iterator[None]:
    """Takes what forward kept in attributes out of them again: it has no numbers once the tracing is over."""
    before = [(vars(part), dict(vars(part))) for part in module.modules()]
    inside = [
        (value, value.copy())
        for _, attributes in before
        for name, value in attributes.items()
        if isinstance(value, dict | list) and not name.startswith("_")
    ]
    try:
        yield
    finally:
        for attributes, earlier in before:
            attributes.clear()
            attributes |= earlier
        for value, copied in inside:
            value.clear()
            value.update(copied) if isinstance(value, dict) else value.extend(copied)


@contextmanager
def _buffers_aside(module: nn.Module) -> Iterator[None]:
    """Keeps the buffers that forward registers or replaces as attributes: torch traces with those that it has seen."""
    parts = {id(part) for part in module.modules()}
    register, assign = nn.Module.register_buffer, nn.Module.__setattr__

    def registering(part: nn.Module, name: str, tensor: Any, persistent: bool = True) -> None:
        if id(part) in parts:
            vars(part)[name] = tensor
        else:
            register(part, name, tensor, persistent)

    def assigning(part: nn.Module, name: str, value: Any) -> None:
        if id(part) in parts and name in part._buffers and value is not part._buffers[name]:
            vars(part)[name] = value
        else:
            assign(part, name, value)

    with (
        mock.patch.object(nn.Module, "register_buffer", registering),
        mock.patch.object(nn.Module, "__setattr__", assigning),
    ):
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


@contextmanager
def quiet() -> Iterator[None]:
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
