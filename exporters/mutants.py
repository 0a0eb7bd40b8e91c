"""The weakest fault that a proof must catch: one layer's weight rounded to half precision.

A tolerance is worth something only if a broken network exceeds it. The mutants measured here are the mildest faults
that are still faults; whatever a tenth of the weakest one cannot hide, the gate sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporters.errors import GuardError
from exporters.reference import Arrays, evaluate, float_outputs, max_difference
from exporters.spec import Case, Input, Output


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rounded weight and the largest effect that it has on each output; infinite where a shape changes."""

    layer: str
    format: str
    effects: Mapping[str, float]


def rounded(weight: Tensor) -> tuple[str, Tensor] | None:
    """A weight on the coarsest grid that counts as mild: float16, or bfloat16 where float16 changes nothing.

    Returns:
        The name of the format and the rounded weight; None if the weight lies on both grids (a fixed kernel).
    """
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        candidate = weight.to(dtype).to(weight.dtype)
        if bool(torch.isfinite(candidate).all()) and not torch.equal(candidate, weight):
            return name, candidate
    return None


def each_mutation(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Rounds one weight of ``module`` after the other, in place, and puts it back when the next is asked for.

    Weights are the parameters of at least two axes: convolutions, linear, recurrent and embedding layers of any
    class. Yields the weight's name and the format.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2 or not parameter.is_floating_point():
            continue
        mutation = rounded(parameter.data)
        if mutation is None:
            continue
        original = parameter.data
        parameter.data = mutation[1]
        try:
            yield name, mutation[0]
        finally:
            parameter.data = original


def measure_mutants(
    module: nn.Module,
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    cases: Sequence[Case],
    answers: Sequence[Arrays],
) -> tuple[Mutant, ...]:
    """Effect of each mutant on each float output, both in float32.

    Args:
        module: In float32; its weights are changed and put back.
        inputs: As declared.
        outputs: As declared; effects are measured on those with a tolerance.
        cases: The cases to look at.
        answers: What the unchanged module answered to them in float32.
    """
    return tuple(
        Mutant(name, form, _effects(module, inputs, outputs, cases, answers)) for name, form in each_mutation(module)
    )


def merge(first: Sequence[Mutant], second: Sequence[Mutant]) -> tuple[Mutant, ...]:
    """The larger effect of two measurements over different cases; mutants of ``first`` that ``second`` lacks stay."""
    again = {mutant.layer: mutant for mutant in second}
    return tuple(
        Mutant(m.layer, m.format, {k: max(v, again[m.layer].effects[k]) for k, v in m.effects.items()})
        if m.layer in again
        else m
        for m in first
    )


def _effects(
    module: nn.Module,
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    cases: Sequence[Case],
    answers: Sequence[Arrays],
) -> dict[str, float]:
    effects = {output.name: 0.0 for output in float_outputs(outputs)}
    for case, expected in zip(cases, answers, strict=True):
        try:
            found = evaluate(module, inputs, outputs, case, torch.float32)
        except GuardError:  # NaN or another shape than declared, where the unchanged module had neither
            return dict.fromkeys(effects, float("inf"))
        for name in effects:
            effects[name] = max(effects[name], max_difference(found[name], expected[name]))
    return effects
