"""Python loops over time, rolled up: ``for t in range(x.shape[1]): h = self.cell(x[:, t], h)`` exports as it is.

torch writes such a loop out to the length of the example; the loop is in no program that it traces. So a module is
traced at three lengths, and where in the code each operator arises is recorded (`exporters.loops.record`): that tells
the iterations apart. What is the same in all of them is rolled up (`exporters.loops.rolling`). The three programs must
then be one and the same, but for numbers that depend on the step and on the length by a formula
(`exporters.loops.formulas`). What is left is run in torch beside the module at lengths that were not traced, and then
exported in its place, with time dynamic. Whatever does not come out so is refused, and says why.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.export.graph_signature import InputKind

from exporters import recurrent
from exporters.calling import with_forward
from exporters.loops import replay
from exporters.loops.frozen import RoundedError as RoundedError
from exporters.loops.frozen import told_at_once as told_at_once
from exporters.loops.normal_form import in_one_form
from exporters.loops.program import NotRolledError as NotRolledError
from exporters.loops.program import Program, needed, without_repetition
from exporters.loops.record import Run, recording
from exporters.loops.rolling import rolled_up
from exporters.loops.series import with_series
from exporters.loops.unify import unified
from exporters.places import line_of_error
from exporters.spec import Input
from exporters.sweep import dimension_names

LENGTHS = ((5, 8), (13, 20))
"""Between which lengths a module is traced at three; the second ones where the first do not tell enough."""

LONG = 16
"""A loop of a fixed number of steps is rolled up as well if there are more than so many."""


@contextmanager
def rolled(
    module: nn.Module, example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], axis: str | None
) -> Iterator[None]:
    """While it lasts, a module runs with its loops over an axis rolled up, so that it can be traced with that dynamic.

    Args:
        module: In evaluation mode; it is left as it was.
        example: An array for each input.
        inputs: As they are declared.
        axis: The name of the axis that torch freezes; None if it freezes none, but a loop is long (`is_written_out`).

    Raises:
        NotRolledError: There is no such loop, or one that cannot be rolled up without doubt.
    """
    program = _program(module, example, inputs, axis)
    forward = functools.partial(replay.run, program, module, tuple(tensor.shape for tensor in inputs))
    with with_forward(module, forward):
        yield


def is_written_out(program: torch.export.ExportedProgram) -> bool:
    """Whether a traced program has one weight in so many products that a loop of fixed length must be behind it."""
    weights = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind == InputKind.PARAMETER}
    return any(
        node.op == "placeholder" and node.name in weights and node.meta["val"].dim() > 1 and len(node.users) > LONG
        for node in program.graph.nodes
    )


def _program(
    module: nn.Module, example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], axis: str | None
) -> Program:
    """The one program that a module is at all lengths."""
    reasons: list[str] = []
    for traces, lengths in _tracings(module, example, inputs, axis, reasons):
        for edges in (1, 0):
            try:
                program = _joined(traces, lengths, edges, inputs)
                _compare(module, program, traces[-1], example, inputs, axis)
            except NotRolledError as error:
                reasons.append(str(error))
            else:
                return program
    raise NotRolledError(reasons[0])


def _tracings(
    module: nn.Module,
    example: Mapping[str, NDArray[Any]],
    inputs: Sequence[Input],
    axis: str | None,
    reasons: list[str],
) -> Iterator[tuple[list[Program], list[tuple[int, ...]]]]:
    """Traces with their lengths: at short ones, at longer ones, and at both from the longest short one on.

    Fewer formulas fit the last ones. In the shortest of all, steps that take turns may not yet show it.
    """
    names = dimension_names(inputs)
    all_traces, all_lengths = [], []
    for wished in LENGTHS if axis else LENGTHS[:1]:
        traced = _sizes(module, example, inputs, {axis: wished} if axis else {})
        try:
            traces = [_traced(module, example, inputs, sizes) for sizes in traced]
        except NotRolledError as error:
            reasons.append(str(error))
            continue
        lengths = [tuple(sizes[name] for name in names) for sizes in traced]
        yield traces, lengths
        all_traces += traces
        all_lengths += lengths
    if len(all_traces) > 3:
        yield all_traces[2:], all_lengths[2:]


def _compare(
    module: nn.Module,
    program: Program,
    trace: Program,
    example: Mapping[str, NDArray[Any]],
    inputs: Sequence[Input],
    axis: str | None,
) -> None:
    try:
        replay.compare(module, program, example, inputs, axis)
    except NotRolledError as error:
        places = ", ".join(dict.fromkeys(run.where for run in _runs(trace) if run.count > 1))
        at = f"the loop at {places}" if places else f"no formula for what becomes of {axis}"
        raise NotRolledError(f"{at}: {error}") from error


def _sizes(
    module: nn.Module, example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], wished: Mapping[str, Sequence[int]]
) -> list[dict[str, int]]:
    """The sizes of the named axes in each trace: no two the same, so that none is taken for another."""
    taken = {size for t in inputs for size in t.shape if isinstance(size, int)}
    taken |= {size for t in (*module.parameters(), *module.buffers()) for size in t.shape}
    found: dict[str, Sequence[int]] = {}
    for wish, sizes in wished.items():
        found[wish] = _apart(sizes[0], sizes[-1], taken, found)
    for tensor in inputs:
        for name, size in zip(tensor.shape, example[tensor.name].shape, strict=True):
            if isinstance(name, str) and name not in found:
                found[name] = _apart(size, size + 2, taken, found)
    return [dict(zip(found, sizes, strict=True)) for sizes in zip(*found.values(), strict=True)]


def _apart(first: int, last: int, taken: set[int], others: Mapping[str, Sequence[int]]) -> Sequence[int]:
    """Sizes of one axis that are no other size, and no multiple of those of another axis plus something."""
    free = [size for size in range(first, last + 20) if size not in taken]
    free = free[: max(5, 1 + sum(size <= last for size in free))]
    free = [free[0], free[len(free) // 2], *free[:0:-1]]  # far from each other, they tell more formulas apart
    a, b, c = next(
        (a, b, c)
        for a, b, c in itertools.permutations(dict.fromkeys(free), 3)
        if all((b - a) * (other[2] - other[0]) != (c - a) * (other[1] - other[0]) for other in others.values())
    )
    taken |= {a, b, c}
    return a, b, c


def _traced(
    module: nn.Module, example: Mapping[str, NDArray[Any]], inputs: Sequence[Input], lengths: Mapping[str, int]
) -> Program:
    arguments = replay.at_lengths(example, inputs, lengths)
    try:
        with _unchanged(module), recurrent.lowered(), recording() as origins:
            return in_one_form(torch.export.export(module, arguments, strict=False), origins)
    except NotRolledError:
        raise
    # Whatever forward does can go wrong while it is traced, with any exception.
    except Exception as error:
        lines = str(error).strip().splitlines()
        sizes = ", ".join(f"{name} = {length}" for name, length in lengths.items())
        said = lines[0] if lines else type(error).__name__
        raise NotRolledError(
            f"{line_of_error(error) or 'forward'}: torch cannot trace it with {sizes} either: {said}"
        ) from error


def _joined(
    traces: Sequence[Program], lengths: Sequence[Sequence[int]], edges: int, inputs: Sequence[Input]
) -> Program:
    """The programs of several lengths as one, with their loops rolled up."""
    programs, left = list(traces), set[Any]()
    while True:
        runs = [_runs(program) for program in programs]
        growing = _growing(runs)
        sites = (growing | {run.site for run in runs[0] if run.count > LONG}) - left
        todo = [[run for run in found if run.site in sites] for found in runs]
        if not any(todo):
            break
        chosen = [_next(program, found) if found else None for program, found in zip(programs, todo, strict=True)]
        try:
            programs = [
                program if run is None else with_series(rolled_up(program, run, edges))
                for program, run in zip(programs, chosen, strict=True)
            ]
        except NotRolledError:
            fixed = {run.site for run in chosen if run is not None} - growing
            if not fixed:
                raise
            left |= fixed  # a loop of a fixed number of steps may stay written out
    return unified([without_repetition(program) for program in programs], lengths, dimension_names(inputs))


def _runs(program: Program) -> list[Run]:
    """The loops in a program, each before those within it."""
    return list(dict.fromkeys(run for value in needed(program) for run, _ in value.path))


def _next(program: Program, runs: Sequence[Run]) -> Run:
    """The first of these loops that has none of the others in it."""
    outer = {
        around
        for value in needed(program)
        for at, (run, _) in enumerate(value.path)
        if run in runs
        for around, _ in value.path[:at]
    }
    return next(run for run in runs if run not in outer)


def _growing(runs: Sequence[Sequence[Run]]) -> set[Any]:
    """The places of loops that have more iterations where an axis is longer."""
    counts: list[dict[Any, list[int]]] = []
    for found in runs:
        counts.append({})
        for run in found:
            counts[-1].setdefault(run.site, []).append(run.count)
    sites = {site for found in counts for site in found}
    return {
        site
        for site in sites
        if any(len(set(across)) > 1 for across in zip(*(found.get(site, []) for found in counts), strict=False))
        or not all(site in found for found in counts)
    }


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Takes back what forward keeps in attributes: while it is traced, that is no tensor of numbers."""
    before = [(part, dict(vars(part))) for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes in before:
            vars(part).clear()
            vars(part).update(attributes)
