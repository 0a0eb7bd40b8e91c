"""An existing ONNX file -> proven bundle: the graph stays as it is, and ONNX Runtime is held against onnx's evaluator.

The evaluator runs the graph rewritten to float64. Where it cannot, the answers that come with the samples are the
reference. The provenance says which.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import inliner, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.assemble import ExportedModel
from exporters.doubled import doubled
from exporters.errors import GuardError, ParityError
from exporters.execute import LEVELS, open_graph, run_case
from exporters.export import proven
from exporters.gather import add_extremes, extend, first_cases, ranges
from exporters.graphs import all_nodes, operators
from exporters.mutants import Mutant, rounded
from exporters.parity import NOISE_MARGIN, ParityReport, derive_tolerances, hold, hold_extremes
from exporters.reference import Arrays, measure_noise
from exporters.runtimes import check_runtimes
from exporters.source import TorchRefusalError
from exporters.spec import Case, Decision, Dimension, Input, Output, Signature
from exporters.sweep import MIN_GOLDEN, choose_golden, ends_of, usual_sizes
from runtime.compare import distance
from runtime.errors import InputError
from runtime.manifest import DimensionSpec, StateSpec
from runtime.signature import DTYPES

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
OLDEST = 9

RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)

MUTANTS = 64
"""At most so many weights are rounded to measure what a fault does."""

EVALUATOR = "onnx.reference float64"
GIVEN = "given answers"
UNKNOWN_NOISE = 3e-7
"""Of the size of a given answer: what float32 is taken to be off by where nothing computes the answer a second time."""


def read_graph(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Reads a graph with its external data, functions written out, and without what only a Python caller sees.

    Raises:
        InputError: the file is no ONNX file, or its data is missing.
        GuardError: other runtimes cannot be asked to run it; the message says why.
    """
    path = Path(path)
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except Exception as error:
        raise InputError(f"{path} is no ONNX file, or its external data is missing: {_first_line(error)}") from error
    if not model.graph.node:
        raise InputError(f"{path} holds no graph")
    strange = sorted({f"{n.domain}::{n.op_type}" for n in all_nodes(model) if n.domain not in DOMAINS} - _own(model))
    if strange:
        raise GuardError(
            f"{path.name} has operators of another runtime's own: {', '.join(strange[:4])}; only standard operators "
            "run everywhere. Export it again without the optimisations of that runtime"
        )
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=OLDEST)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= opset <= newest:
        raise GuardError(
            f"{path.name} is of opset {opset}, expected {OLDEST} to {newest}; onnx.version_converter writes another one"
        )
    if model.functions:
        model = inliner.inline_local_functions(model)
    drawn = sorted({node.op_type for node in all_nodes(model)} & RANDOM)
    if drawn:
        raise GuardError(f"{path.name} is random: {', '.join(drawn)}; a graph has to give the same answer each time")
    _without_maps(model)
    _named(model)
    return model


def _own(model: onnx.ModelProto) -> set[str]:
    return {f"{function.domain}::{function.name}" for function in model.functions}


def _without_maps(model: onnx.ModelProto) -> None:
    """A list of dicts (ZipMap) exists for Python only; the array of numbers that it is made of is the answer."""
    for node in [node for node in model.graph.node if node.op_type == "ZipMap"]:
        for output in model.graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, [None, None]))
        model.graph.node.remove(node)


def _named(model: onnx.ModelProto) -> None:
    """Gives nodes a name that have none, so that one that differs can be told."""
    seen: Counter[str] = Counter(node.name for node in all_nodes(model))
    for node in all_nodes(model):
        if not node.name or seen[node.name] > 1:
            seen[node.op_type] += 1
            node.name = f"{node.op_type}_{seen[node.op_type]}"


def declared_by(model: onnx.ModelProto) -> tuple[tuple[Input, ...], tuple[Output, ...]]:
    """The inputs and outputs of a graph, every axis without a size with a name.

    Raises:
        GuardError: one of them is no array of numbers.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model)
    inputs = tuple(Input(value.name, *_typed(value)) for value in inferred.graph.input if value.name not in weights)
    outputs = []
    for value in inferred.graph.output:
        dtype, shape = _typed(value)
        decision: Decision | None = None if np.dtype(dtype).kind == "f" else "exact"
        outputs.append(Output(value.name, dtype, shape, decision=decision))
    if not inputs:
        raise GuardError("the graph has no inputs")
    return inputs, tuple(outputs)


def _typed(value: onnx.ValueInfoProto) -> tuple[str, tuple[Dimension, ...]]:
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not tensor.elem_type:
        kind = value.type.WhichOneof("value") or "no type"
        raise GuardError(f"{value.name} is of {kind}; a bundle takes and gives arrays")
    name = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    if name not in DTYPES - {"string"}:
        raise GuardError(f"{value.name} is of type {name}; a bundle takes and gives arrays of numbers and truth values")
    if not tensor.HasField("shape"):
        raise GuardError(f"{value.name} has no shape in the graph, not even the number of its axes; write it there")
    shape: list[Dimension] = []
    for axis, size in enumerate(tensor.shape.dim):
        if size.HasField("dim_value"):
            shape.append(size.dim_value)
        else:
            name_of = re.sub(r"\W+", "_", size.dim_param).strip("_")
            shape.append(
                name_of if name_of and not name_of[0].isdigit() else "N" if axis == 0 else f"{value.name}_{axis}"
            )
    return name, tuple(shape)


class GraphSource:
    """A graph and onnx's evaluator, or answers that were given.

    Args:
        model: The graph.
        signature: As declared.
        given: Answers by the name of their case.
    """

    def __init__(self, model: onnx.ModelProto, signature: Signature, given: Mapping[str, Arrays]) -> None:
        self.signature, self.given = signature, given
        self.name = "onnx's evaluator"
        self.tied: str | None = None
        self._graphs = {torch.float32: model, torch.float64: doubled(model)}
        self._evaluators: dict[torch.dtype, ReferenceEvaluator] = {}
        self.asked = False

    def unrounded(self, case: Case) -> Arrays | None:
        """None: no narrower cast is known of."""
        return None

    def answers(self, case: Case, dtype: torch.dtype) -> Arrays:
        """What the evaluator answers in a float type, or what was given.

        Raises:
            TorchRefusalError: it stops.
            GuardError: an answer has another type or number of axes than the graph says.
        """
        given = self.given.get(case.name)
        if given is not None:
            # Half a unit to each side, so that the noise is known where nothing else computes the answer.
            off = 1 + UNKNOWN_NOISE if dtype == torch.float32 else 1
            return {name: a.astype(np.float64) * off if a.dtype.kind == "f" else a for name, a in given.items()}
        self.asked = True
        feed = {}
        for tensor in self.signature.inputs:
            array = case.inputs[tensor.name]
            feed[tensor.name] = array.astype(np.float64) if _is_widened(array, dtype) else array
        try:
            if dtype not in self._evaluators:
                self._evaluators[dtype] = ReferenceEvaluator(self._graphs[dtype])
            with np.errstate(all="ignore"):
                found = self._evaluators[dtype].run([output.name for output in self.signature.outputs], feed)
        except Exception as error:
            raise TorchRefusalError(
                f"case {case.name!r}: {self.name} stops: {type(error).__name__}: {_first_line(error)}. Give answers "
                "beside the inputs in each --sample where it cannot run the graph"
            ) from error
        arrays = {output.name: np.asarray(array) for output, array in zip(self.signature.outputs, found, strict=True)}
        for output in self.signature.outputs:
            if arrays[output.name].ndim != len(output.shape):
                raise GuardError(
                    f"case {case.name!r}: {output.name} has {arrays[output.name].ndim} axes, the graph says "
                    f"{list(output.shape)}"
                )
        return arrays


def _is_widened(array: NDArray[Any], dtype: torch.dtype) -> bool:
    return dtype == torch.float64 and array.dtype in (np.float32, np.float16)


def export_graph(
    path: str | os.PathLike[str],
    *,
    cases: Sequence[Case] | None = None,
    answers: Mapping[str, Arrays] | None = None,
    inputs: Sequence[Input] = (),
    sizes: Mapping[str, Sequence[int]] | None = None,
    golden: int | None = None,
    state: Sequence[StateSpec] = (),
    dimensions: Mapping[str, DimensionSpec] | None = None,
    untrained: bool = False,
    seed: int = 0,
    runtimes: Sequence[str] = (),
) -> tuple[ExportedModel, str]:
    """Proves that ONNX Runtime answers as a graph says.

    Args:
        path: The ONNX file.
        cases: Real inputs. Without them, cases are generated.
        answers: For cases by name, what the graph should answer; they go before the evaluator's.
        inputs: Names for the axes and limits for the values of some inputs.
        sizes: See `exporters.export.export_model`, as for all below.
        golden: See there.
        state: See there.
        dimensions: See there.
        untrained: See there.
        seed: See there.
        runtimes: See there.

    Returns:
        The model and what it was held against.

    Raises:
        InputError: the file cannot be read.
        ExportError: the graph is not proven; the message says why.
    """
    model = read_graph(path)
    check_runtimes(model, runtimes)
    known, outputs = declared_by(model)
    better = {tensor.name: tensor for tensor in inputs}
    if strangers := sorted(set(better) - {tensor.name for tensor in known}):
        raise InputError(f"the graph has no input {', '.join(strangers)}; it has {', '.join(t.name for t in known)}")
    taken = tuple(better.get(tensor.name, tensor) for tensor in known)
    signature = Signature(taken, outputs, tuple(state))
    source = GraphSource(model, signature, answers or {})
    declared = dict(dimensions or {})
    found = first_cases(source, cases, sizes, declared, seed)
    asked = len(found.cases)
    base = usual_sizes(signature, found.cases)
    if not answers:
        extend(source, found, {name: {1} | ends_of(declared.get(name)) for name in base}, base, seed)
    if not found.real:
        add_extremes(source, found, base, seed)
        found.notes.append("no real input was held: all cases are generated; give --sample for that")
    declared = ranges(found, declared, (), base)
    noise = measure_noise(outputs, found.cases, found.truth, found.single)
    choice = asked if found.real and asked >= MIN_GOLDEN else len(found.cases)
    recorded = choose_golden(taken, found.cases[:choice], found.truth[:choice], golden)
    mutants = tuple(_mutants(model, noise, [found.cases[at] for at in recorded[:4]]))
    tolerances = derive_tolerances(outputs, noise, mutants)
    graph = model.SerializeToString(deterministic=True)
    usual = hold(graph, outputs, found.cases, found.truth, tolerances)
    extreme = hold_extremes(graph, outputs, found.extremes, noise)
    reference = EVALUATOR if source.asked else GIVEN
    if answers and source.asked:
        reference = f"{GIVEN} and {EVALUATOR}"
    report = ParityReport(
        checks=usual.checks,
        tolerances=tolerances,
        cases=len(found.held) + len(found.extremes),
        failures=(*usual.failures, *extreme.failures),
        operators=operators(model),
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        mutants=mutants,
        notes=tuple(found.notes),
        untrained=untrained,
        reference=reference,
    )
    if not (usual and extreme):
        raise ParityError(str(report))
    return proven(graph, source, found, declared, recorded, asked, report, {}), reference


def _mutants(model: onnx.ModelProto, noise: Mapping[str, float], cases: Sequence[Case]) -> Iterator[Mutant]:
    """What ONNX Runtime answers otherwise where one weight is rounded, as finely as the answers show it."""
    names = list(noise)
    if not names:
        return
    session = open_graph(model.SerializeToString(), LEVELS[0])
    right = [run_case(session, case, names) for case in cases]
    weights = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT and _is_matrix(w)]
    for weight in weights[:MUTANTS]:
        before = onnx.TensorProto()
        before.CopyFrom(weight)
        original = torch.from_numpy(numpy_helper.to_array(weight).copy())
        found: Mutant | None = None
        while mutation := rounded(original, found.format if found else None):
            weight.CopyFrom(numpy_helper.from_array(mutation[1].numpy(), weight.name))
            session = open_graph(model.SerializeToString(), LEVELS[0])
            effects = dict.fromkeys(names, 0.0)
            for case, expected in zip(cases, right, strict=True):
                answers = run_case(session, case, names)
                effects = {name: max(effects[name], distance(answers[name], expected[name])) for name in names}
            found = Mutant(weight.name, mutation[0], effects)
            if any(effects[name] > NOISE_MARGIN * noise[name] for name in names):
                break
        weight.CopyFrom(before)
        if found is not None:
            yield found


def _is_matrix(weight: onnx.TensorProto) -> bool:
    return bool(sum(size > 1 for size in weight.dims) > 1)  # (1, H) is a bias


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
