"""torch module -> proven bundle.

``export_model`` proves one module, ``assemble`` writes proven models as a bundle, ``export`` does both. Whatever a
guard or the parity gate refuses raises an ``ExportError`` that names the cause, and leaves nothing behind.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.utils import _pytree

from exporters.assemble import FIRST, ExportedVariant
from exporters.assemble import ExportedModel as ExportedModel
from exporters.assemble import assemble as assemble
from exporters.calling import Call
from exporters.cause import cause, other_way
from exporters.convert import Converted, convert, rename_axes, traced_program
from exporters.denormals import flush_denormals
from exporters.empty import dimension_ranges
from exporters.errors import GuardError, ParityError, VacuousGateError
from exporters.explain import record_trace
from exporters.gather import Gathered, add_extremes, extend, first_cases, ranges, rounding_decides
from exporters.graphs import operators
from exporters.guards import check_declaration, check_graph, check_module
from exporters.mutant_search import find_mutants, notes_on
from exporters.mutants import Mutant
from exporters.optimize import FLUSH_BELOW, flush_graph
from exporters.parity import NOISE_MARGIN, ParityReport, Tolerance, derive_tolerances, hold, hold_extremes
from exporters.precision import computing_in
from exporters.reference import ULP, Arrays, collected_seldom, measure_noise, one_thread
from exporters.runtimes import check_runtimes, parse_runtime
from exporters.size_guards import SizeGuard, size_guards, sizes_to_try
from exporters.source import ModuleSource, Source
from exporters.spec import Case, Input, Output, Signature
from exporters.sweep import MIN_GOLDEN, choose_example, choose_golden, ends_of, usual_sizes
from runtime.bundle import Bundle
from runtime.golden import GoldenCase
from runtime.manifest import DimensionSpec, StateSpec

log = logging.getLogger(__name__)


@one_thread()
@collected_seldom()
@flush_denormals(False)
def export_model(
    module: nn.Module,
    *,
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    cases: Sequence[Case] | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    golden: int | None = None,
    state: Sequence[StateSpec] = (),
    dimensions: Mapping[str, DimensionSpec] | None = None,
    arguments: Call | None = None,
    opset: int = 18,
    untrained: bool = False,
    seed: int = 0,
    reproduce: str | os.PathLike[str] | None = None,
    runtimes: Sequence[str] = (),
) -> ExportedModel:
    """Exports a module and proves that the graph answers as torch in float64 does.

    Args:
        module: In evaluation mode, on the CPU. It is not changed.
        inputs: Named as ``forward``'s parameters in any order, or in their order under other names.
        outputs: Named as the keys of the dict that ``forward`` returns, or in the order of what it returns.
        cases: Real inputs to hold the graph against. Without them, cases are generated.
        sizes: Sizes to sweep each named dimension over; given together with ``cases``, both are used.
        golden: How many cases to record, at least 8; by default 12 or all.
        state: Carried states, naming inputs and outputs.
        dimensions: The sizes that named dimensions may have. Without an entry, every size from 1 on, and 0 where the
            model has an answer to it, see `exporters.empty`.
        arguments: How ``forward`` takes the inputs, where that cannot be found out.
        opset: Of the graph.
        untrained: Accept a gate that cannot tell a broken network from a sound one.
        seed: Of the generated cases.
        reproduce: A folder to write the first node that differs to, as a graph of its own with its inputs and what
            it should give, where the gate fails.
        runtimes: Releases that must load the graph, e.g. ``onnxruntime==1.17``.

    Raises:
        GuardError: A condition does not hold, see `exporters.guards`.
        ParityError: The graph answers otherwise than torch; the message names the first node that differs.
        VacuousGateError: The gate proves nothing.
    """
    signature = Signature(tuple(inputs), tuple(outputs), tuple(state))
    check_declaration(signature)
    for release in runtimes:
        parse_runtime(release)
    source = ModuleSource(module, signature, arguments)
    check_module(source.module)
    declared = dict(dimensions or {})
    found = first_cases(source, cases, sizes, declared, seed)
    source.check_function(_two_cases(found))
    found.notes += source.narrow.told()
    asked = len(found.cases)

    converted, guards = _converted(source, found, opset)
    base = usual_sizes(signature, found.cases)
    bounds = {name: (limits.min, limits.max) for name, limits in declared.items()}
    tried = sizes_to_try(guards, base, bounds)
    further = {name: {1, *more} | ends_of(declared.get(name)) for name, more in tried.items()}
    extend(source, found, further, base, seed)
    if not found.real:
        add_extremes(source, found, base, seed)
        found.notes.append("no real input was held: all cases are generated; give cases= (--sample) for that")
    source.check_fast_path(found.cases, found.single)
    declared = ranges(found, declared, guards, base)

    # Whoever gives cases puts the telling ones there; generated ones fill up what is missing.
    choice = asked if found.real and asked >= MIN_GOLDEN else len(found.cases)
    recorded = choose_golden(signature.inputs, found.cases[:choice], found.truth[:choice], golden)
    rename_axes(converted.model, signature)
    check_runtimes(converted.model, runtimes)
    try:
        noise, mutants, tolerances = _tolerances(converted, signature, found, recorded, untrained)
    except GuardError as error:
        raise GuardError(other_way(guards, signature.inputs, found.cases) or str(error)) from error
    graph, flushed = _flushed(converted.model, found, signature.outputs, tolerances)
    check_graph(onnx.load_from_string(graph), signature, opset)
    usual = hold(graph, signature.outputs, found.cases, found.truth, tolerances)
    extreme = hold_extremes(graph, signature.outputs, found.extremes, noise)
    report = ParityReport(
        checks=usual.checks,
        tolerances=tolerances,
        cases=len(found.held) + len(found.extremes),
        failures=(*usual.failures, *extreme.failures),
        operators=operators(converted.model),
        opset=opset,
        ir_version=converted.model.ir_version,
        flushed=flushed,
        mutants=mutants,
        notes=(*found.notes, *notes_on(mutants, tolerances)),
        untrained=untrained,
    )
    if not (usual and extreme):
        off = [*usual.off, *extreme.off]
        folder = None if reproduce is None else Path(reproduce)
        told = cause(converted, graph, signature.inputs, guards, found.cases, off, usual.checks, folder)
        raise ParityError(f"{report}\n  {told}")
    return proven(graph, source, found, declared, recorded, asked, report, converted.places)


def proven(
    graph: bytes,
    source: Source,
    found: Gathered,
    dimensions: Mapping[str, DimensionSpec],
    recorded: Sequence[int],
    asked: int,
    report: ParityReport,
    places: Mapping[str, str],
) -> ExportedModel:
    """A graph that passed its gate, with all that a bundle records of it.

    Args:
        graph: ONNX.
        source: Where the answers come from.
        found: The cases.
        dimensions: The ranges of its dimensions, as far as they are known.
        recorded: Which cases are recorded.
        asked: How many of the cases came first, before those of further sizes.
        report: What the gate found.
        places: For values of the graph the user's line.

    Raises:
        VacuousGateError: The gate proves nothing, and the network is not declared to be untrained.
    """
    if report.vacuous and not report.untrained:
        if told := rounding_decides(found):
            raise VacuousGateError(f"{told}\n{report}")
        raise VacuousGateError(
            f"the gate is vacuous, it could not tell this network from a broken one: {report.vacuous[0]}. "
            f"{'' if found.real else 'Give real inputs (cases=, --sample) if the network is trained; else '}"
            f"{'Train' if found.real else 'train'} it, or export it as untrained\n{report}"
        )
    log.info("%s", report)
    spec = source.signature.spec(dimensions, found.cases)
    allowed = {name: tolerance.rule.atol for name, tolerance in report.tolerances.items()}
    smallest = min(found.cases, key=lambda case: sum(array.size for array in case.inputs.values()))
    return ExportedModel(
        variants={FIRST: ExportedVariant(graph)},
        inputs=spec.inputs,
        outputs=spec.outputs,
        state=spec.state,
        dimensions=dimension_ranges(
            graph, spec, smallest, partial(source.answers, dtype=torch.float64), allowed, report.operators
        ),
        golden=tuple(GoldenCase(found.cases[i].name, dict(found.cases[i].inputs), found.truth[i]) for i in recorded),
        parity=report.parity(),
        examples="real" if found.real else "generated",
        trace=record_trace(graph, _trace_case(found.cases, [i for i in recorded if i < asked] or recorded), places),
        report=report,
    )


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    name: str,
    task: str,
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    cases: Sequence[Case] | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    golden: int | None = None,
    state: Sequence[StateSpec] = (),
    dimensions: Mapping[str, DimensionSpec] | None = None,
    arguments: Call | None = None,
    opset: int = 18,
    untrained: bool = False,
    seed: int = 0,
    reproduce: str | os.PathLike[str] | None = None,
    runtimes: Sequence[str] = (),
    **about: Any,
) -> Bundle:
    """Exports a module as a bundle of one model, which is called as the bundle is.

    Args:
        module: See `export_model`, as for all that is not named here.
        path: The folder ``NAME.edge`` to write.
        name: Name of the bundle and of its model.
        task: What the bundle is for, e.g. ``age``.
        inputs: See `export_model`.
        outputs: See `export_model`.
        cases: See `export_model`.
        sizes: See `export_model`.
        golden: See `export_model`.
        state: See `export_model`.
        dimensions: See `export_model`.
        arguments: See `export_model`.
        opset: See `export_model`.
        untrained: See `export_model`.
        seed: See `export_model`.
        reproduce: See `export_model`.
        runtimes: See `export_model`.
        **about: What else `assemble` takes: ``version``, ``license``, ``description``, ``pipeline``, ….

    Raises:
        ExportError: The module was not exported; nothing was written.
        BundleError: Something that is no bundle is at the path.
    """
    model = export_model(
        module,
        inputs=inputs,
        outputs=outputs,
        cases=cases,
        sizes=sizes,
        golden=golden,
        state=state,
        dimensions=dimensions,
        arguments=arguments,
        opset=opset,
        untrained=untrained,
        seed=seed,
        reproduce=reproduce,
        runtimes=runtimes,
    )
    return assemble(path, name=name, task=task, models={name: model}, **about)


def _two_cases(found: Gathered) -> tuple[Case, Case]:
    """Two cases of different values, the second one larger: a state or a cache grows from one to the other."""
    cases = sorted(found.cases, key=lambda case: sum(array.nbytes for array in case.inputs.values()))
    lively = [case for case in cases if any(np.ptp(a.astype(np.float64)) > 0 for a in case.inputs.values() if a.size)]
    cases = lively if len(lively) > 1 else cases
    return cases[(len(cases) - 1) // 2], cases[-1]


def _converted(source: ModuleSource, found: Gathered, opset: int) -> tuple[Converted, list[SizeGuard]]:
    """The graph, traced on a fresh copy that computes in float32, and what torch assumed about sizes.

    Where that is not true of a case, it may be due to a small example: a picture of one patch has one row of patches,
    and torch freezes that row. A large example shows it.
    """
    inputs = source.signature.inputs

    def ready() -> tuple[nn.Module, AbstractContextManager[None]]:
        module = source.traceable(found.held[0].case)
        return module, computing_in(torch.float32, source.own, operators=False)

    def at(example: Arrays) -> tuple[Converted, list[SizeGuard]]:
        module, computing = ready()
        with computing:
            converted = convert(module, example, source.signature, opset)
        return converted, size_guards(converted.program, inputs)

    small, large = (choose_example(inputs, found.cases, largest=largest) for largest in (False, True))

    first = at(small)
    if other_way(first[1], inputs, found.cases) is None:
        return first
    module, computing = ready()
    try:
        with computing:
            other = traced_program(module, large, source.signature)  # writing it takes several times as long
        if _agreeing(other, inputs, found) > _agreeing(first[0].program, inputs, found):
            return at(large)
    except GuardError:
        pass
    return first


def _agreeing(program: torch.export.ExportedProgram, inputs: Sequence[Input], found: Gathered) -> int:
    """In how many cases a traced program answers in the shapes of the module, and about so."""
    # The module itself would hold its inputs to what torch assumed.
    interpreter, count = torch.fx.Interpreter(program.module(check_guards=False)), 0
    for one in found.held:
        returned = None
        with torch.no_grad(), suppress(Exception):  # it may stop at another size
            returned = interpreter.run(*(torch.from_numpy(one.case.inputs[tensor.name].copy()) for tensor in inputs))
        answers = [leaf.numpy(force=True) for leaf in _pytree.tree_leaves(returned) if leaf is not None]
        count += len(answers) == len(one.single) and all(
            answer.shape == expected.shape and np.allclose(answer, expected, rtol=1e-2, atol=1e-2, equal_nan=True)
            for answer, expected in zip(answers, one.single.values(), strict=True)
        )
    return count


def _tolerances(
    converted: Converted, signature: Signature, found: Gathered, recorded: Sequence[int], untrained: bool
) -> tuple[dict[str, float], tuple[Mutant, ...], dict[str, Tolerance]]:
    """The noise and the tolerance of each output, with the mutants.

    An output may hold numbers of several sizes, such as logits beside the -10000 of a mask. What the large ones lose to
    rounding would hide every fault of the small ones, so that there the tolerance grows with the number.
    """

    def measured(rtol: Mapping[str, float]) -> tuple[dict[str, float], tuple[Mutant, ...], dict[str, Tolerance]]:
        noise = measure_noise(signature.outputs, found.cases, found.truth, found.single, rtol)
        mutants = find_mutants(converted.program, signature, found.cases, found.single, recorded, noise, rtol)
        return noise, mutants, derive_tolerances(signature.outputs, noise, mutants, rtol)

    first = measured({})
    vacuous = {name: NOISE_MARGIN * ULP for name, tolerance in first[2].items() if tolerance.vacuous}
    if untrained or not vacuous or not first[1]:
        return first
    second = measured(vacuous)
    live, shown = ({m.layer for m in mutants if any(m.effects.values())} for _, mutants, _ in (first, second))
    # A fault that is always within what grows with the number would look like that of a dead layer.
    return first if live - shown or any(tolerance.vacuous for tolerance in second[2].values()) else second


def _flushed(
    model: onnx.ModelProto, found: Gathered, outputs: Sequence[Output], tolerances: Mapping[str, Tolerance]
) -> tuple[bytes, int]:
    """The graph without denormal weights, where no answer leaves its tolerance for that; and how many there were.

    The truth is that of the user's own weights. A floor of 1e-30 below a logarithm stays, because without it the
    answer is infinite.
    """
    written: bytes = model.SerializeToString(deterministic=True)
    lighter = onnx.ModelProto.FromString(written)
    count = flush_graph(lighter)
    if not count:
        return written, 0
    graph: bytes = lighter.SerializeToString(deterministic=True)
    if hold(graph, outputs, found.cases, found.truth, tolerances):
        return graph, count
    found.notes.append(f"{count} weights below {FLUSH_BELOW:g} are kept: without them an answer leaves its tolerance")
    return written, 0


def _trace_case(sweep: Sequence[Case], recorded: Sequence[int]) -> Case:
    """The recorded case with the most to see at a modest size: not constant, and the median of the rest in bytes."""
    lively = [
        sweep[i]
        for i in recorded
        if any(array.size and np.ptp(array.astype(np.float64)) > 0 for array in sweep[i].inputs.values())
    ] or [sweep[i] for i in recorded]
    lively.sort(key=lambda case: sum(array.nbytes for array in case.inputs.values()))
    return lively[(len(lively) - 1) // 2]
