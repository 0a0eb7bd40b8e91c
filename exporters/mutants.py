"""The weakest fault that a proof must catch: one layer's weight rounded to half precision.

A tolerance is worth something only if a broken network exceeds it. The mutants measured here are the mildest faults
that are still faults; whatever a tenth of the weakest one cannot hide, the gate sees.

In a layer whose output is averaged over many places, as the keys of an attention, half precision is no fault: it moves
the answer no further than float32's own rounding does. Such a layer is rounded more coarsely, to bfloat16 and then to
the 8 bits of a quantised weight, until the answer shows it; a layer that may be quantised unseen is idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from exporters.reference import beyond, float_outputs
from exporters.rerun import Rerun, Schedule
from exporters.spec import Case, Signature


def _in_8_bits(weight: Tensor) -> Tensor:
    """On 255 levels, evenly spread between the largest magnitude and its negative, as quantisation does."""
    step = weight.abs().max() / 127
    return (weight / step).round() * step


FORMATS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "float16": lambda weight: weight.to(torch.float16).to(weight.dtype),
    "bfloat16": lambda weight: weight.to(torch.bfloat16).to(weight.dtype),
    "8 bits": _in_8_bits,
}
"""From fine to coarse."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rounded weight and the largest effect that it has on each output; infinite where a shape changes."""

    layer: str
    format: str
    effects: Mapping[str, float]


def rounded(weight: Tensor, finer: str | None = None) -> tuple[str, Tensor] | None:
    """A weight on the finest grid of `FORMATS` that changes it, or on the finest that is coarser than ``finer``.

    Without ``finer`` 8 bits are not tried: a weight that float16 and bfloat16 hold exactly is a fixed kernel.

    Returns:
        The name of the format and the rounded weight; None if no grid changes it.
    """
    names = list(FORMATS)
    for name in names[:-1] if finer is None else names[names.index(finer) + 1 :]:
        candidate = FORMATS[name](weight)
        if bool(torch.isfinite(candidate).all()) and not torch.equal(candidate, weight):
            return name, candidate
    return None


def each_mutation(
    module: nn.Module, only: Iterable[str] | None = None, finer: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Rounds one weight of ``module`` after the other, in place, and puts it back when the next is asked for.

    ``only`` names the weights to look at; in their order, if it has one. ``finer`` gives for each the format that was
    too fine to be seen.

    Weights are the parameters of at least two axes: convolutions, linear, recurrent and embedding layers of any
    class. Yields the weight's name and the format.
    """
    weights = {name: one for name, one in module.named_parameters() if one.ndim >= 2 and one.is_floating_point()}
    for name in weights if only is None else [name for name in only if name in weights]:
        parameter = weights[name]
        mutation = rounded(parameter.data, None if finer is None else finer[name])
        if mutation is None:
            continue
        original = parameter.data
        parameter.data = mutation[1]
        try:
            yield name, mutation[0]
        finally:
            parameter.data = original


def measure_mutants(
    module: GraphModule,
    signature: Signature,
    cases: Sequence[Case],
    only: Iterable[str] | None = None,
    finer: Mapping[str, str] | None = None,
    rtol: Mapping[str, float] | None = None,
) -> tuple[Mutant, ...]:
    """Effect of each mutant on each float output, both in float32.

    Args:
        module: What torch traced, without its guards on sizes. Each weight is changed and put back.
        signature: As declared; effects are measured on the outputs with a tolerance.
        cases: The cases to look at.
        only: Names of the weights to look at; by default all.
        finer: For each of them the format that was too fine to be seen.
        rtol: Of outputs whose tolerance grows with each number; an effect is what is beyond that.
    """
    names = [output.name for output in signature.outputs]
    measured = [output.name for output in float_outputs(signature.outputs)]
    listed = [name for name, _ in each_mutation(module, only, finer)]
    schedule = Schedule(module, listed)
    effects: dict[tuple[str, str], dict[str, float]] = {}
    for case in cases:
        rerun = Rerun(schedule, [torch.from_numpy(case.inputs[tensor.name].copy()) for tensor in signature.inputs])
        expected = dict(zip(names, rerun.answers, strict=True))
        for mutation in each_mutation(module, schedule.weights, finer):
            found = dict(zip(names, rerun.again(mutation[0]), strict=True))
            worst = effects.setdefault(mutation, dict.fromkeys(measured, 0.0))
            for name in measured:
                worst[name] = max(worst[name], beyond(found[name], expected[name], (rtol or {}).get(name, 0.0)))
    return tuple(Mutant(*each, effects[each]) for each in sorted(effects, key=lambda each: listed.index(each[0])))


def merge(first: Sequence[Mutant], second: Sequence[Mutant]) -> tuple[Mutant, ...]:
    """The larger effect of two measurements over different cases; mutants of ``first`` that ``second`` lacks stay."""
    again = {mutant.layer: mutant for mutant in second}
    return tuple(
        Mutant(m.layer, m.format, {k: max(v, again[m.layer].effects[k]) for k, v in m.effects.items()})
        if m.layer in again
        else m
        for m in first
    )
