"""Why a graph that ran does not answer as torch does, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporters.convert import Converted
from exporters.explain import first_torch_difference
from exporters.size_guards import SizeGuard
from exporters.spec import Case, Input, bind_sizes
from runtime.compare import OutputCheck


def other_way(guards: Sequence[SizeGuard], inputs: Sequence[Input], cases: Sequence[Case]) -> str | None:
    """The first case at whose sizes something is not true that torch assumed, in one sentence."""
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    for case in cases:
        sizes = bind_sizes(shapes, case.inputs)
        broken = next((guard for guard in guards if set(guard.names) <= set(sizes) and not guard.holds(sizes)), None)
        if broken is not None:
            return (
                f"forward takes another way at the sizes of case {case.name!r}: what was traced holds while {broken}. "
                "A graph has one way; use tensor operations (torch.where, torch.cond), or declare the sizes of one way"
            )
    return None


def cause(
    converted: Converted,
    graph: bytes,
    inputs: Sequence[Input],
    guards: Sequence[SizeGuard],
    sweep: Sequence[Case],
    off: Sequence[Case],
    checks: Sequence[OutputCheck],
    reproduce: Path | None,
) -> str:
    """Where the graph leaves torch, for the case that is furthest off.

    Args:
        converted: The graph with the torch program that it was made from.
        graph: The graph as it was tried.
        inputs: As declared.
        guards: What torch assumed about sizes.
        sweep: All cases.
        off: Those that are wrong.
        checks: A verdict for each output.
        reproduce: A folder to write the first node that differs to.
    """
    worst = max(checks, key=lambda check: (not check.ok, check.share))
    case = next((case for case in off if case.name == worst.worst_case), off[0])
    told = other_way(guards, inputs, [case])
    try:
        difference = first_torch_difference(converted, graph, case, reproduce)
    except Exception as error:  # noqa: BLE001 - the verdict stands; only its explanation is missing
        return told or f"the nodes cannot be compared: {type(error).__name__}: {str(error).splitlines()[0]}"
    if difference is not None:
        return f"{difference} (case {case.name!r})"
    if told is not None:
        return told  # the graph does what was traced, which is not what forward does here
    parted = _parting(inputs, sweep, off)
    if parted:
        return (
            f"the answers part at {parted}: forward takes another way there than at the example's sizes. A graph has "
            "one way; use tensor operations (torch.where, torch.cond), or declare the sizes of one way"
        )
    return (
        f"on case {case.name!r} every node agrees with the program that torch traced: the fault arose while forward "
        "was traced (a number computed from the example, a Python branch, behaviour that differs during export)"
    )


def _parting(inputs: Sequence[Input], sweep: Sequence[Case], off: Sequence[Case]) -> str | None:
    """The sizes of one dimension that all wrong cases have and no right one."""
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    wrong = {case.name for case in off}
    bound = [(bind_sizes(shapes, case.inputs), case.name in wrong) for case in sweep]
    for name in bound[0][0]:
        bad = {sizes[name] for sizes, is_off in bound if is_off}
        if bad and bad.isdisjoint(sizes[name] for sizes, is_off in bound if not is_off):
            good = len(bound) > sum(is_off for _, is_off in bound)
            return f"{name}={', '.join(map(str, sorted(bad)))}" if good else None
    return None
