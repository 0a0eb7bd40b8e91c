"""The weakest fault of each layer, measured on as few of the recorded cases as show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from exporters.mutants import FORMATS, Mutant, measure_mutants, merge
from exporters.parity import MUTANT_MARGIN, NOISE_MARGIN, Tolerance
from exporters.reference import Arrays
from exporters.spec import Case, Signature

MUTANT_STEPS = (0, 4, 8)
"""The mutants are first measured on the four most telling of the recorded cases, those that are not caught with the
full margin on four more. Those that are not caught at all are then looked for in the dearest cases, one by one: a clip
of thirty frames takes as long as all that come before it."""


def notes_on(mutants: Sequence[Mutant], tolerances: Mapping[str, Tolerance]) -> list[str]:
    """What a reader of the report should know of the mutants, a sentence each."""
    notes = []
    dead = [mutant.layer for mutant in mutants if not any(mutant.effects.values())]
    if dead:
        notes.append(f"rounding changes no answer in any case, dead or unused: {', '.join(dead[:4])}")
    coarse = [mutant.layer for mutant in mutants if mutant.format == list(FORMATS)[-1]]
    if coarse:
        more = f" and {len(coarse) - 4} more" if len(coarse) > 4 else ""
        notes.append(f"held to no finer a fault than 8 bits of a weight: {', '.join(coarse[:4])}{more}")
    for name, tolerance in tolerances.items():
        if tolerance.margin is not None and not tolerance.vacuous and tolerance.margin < 0.99 * MUTANT_MARGIN:
            notes.append(
                f"{name}: the weakest mutant is {tolerance.margin:.1f} times what is allowed, 10 is wished for"
            )
    if not mutants:
        notes.append("no weights to round: the tolerances have a lower side only")
    return notes


def find_mutants(
    program: torch.export.ExportedProgram,
    signature: Signature,
    sweep: Sequence[Case],
    answers: Sequence[Arrays],
    recorded: Sequence[int],
    noise: Mapping[str, float],
    rtol: Mapping[str, float] | None = None,
) -> tuple[Mutant, ...]:
    """Effects over recorded cases only: what `verify` replays on a device must show them as well.

    Lively cases come first, cheap ones before dear ones. A mutant that is caught with the margin that is asked for
    needs no further case; more cases could only make its effect larger, and with it the tolerance.
    """

    def cost(index: int) -> tuple[bool, int]:
        asked, answered = sweep[index].inputs.values(), answers[index].values()
        # A single number (how long the one item of a batch is) and what can only be counted tell neither way.
        looked_at = [array for array in asked if array.size > 1] + [a for a in answered if a.dtype.kind == "f"]
        dull = any(array.size == 0 or array.min() == array.max() for array in looked_at)
        return dull, sum(array.nbytes for array in (*asked, *answered))

    # A photo without a face costs as much as one with, and shows nothing of what a layer does to boxes.
    answered = [i for i in recorded if any(array.size for array in answers[i].values())]
    order = sorted(answered or recorded, key=cost)
    # torch's guards hold sizes to what it assumed while tracing; whether the graph can do more, the sweep finds out.
    module = program.module(check_guards=False)
    mutants: tuple[Mutant, ...] = ()
    steps = (*MUTANT_STEPS, *range(MUTANT_STEPS[-1] + 1, len(order)))
    for start, stop in zip(steps, (*steps[1:], len(order)), strict=True):
        part = order[start:stop]
        if not part:
            break
        margin = MUTANT_MARGIN if start < MUTANT_STEPS[-1] else 1.0
        open_layers = None if start == 0 else _open_layers(mutants, noise, margin)
        found = measure_mutants(module, signature, [sweep[i] for i in part], open_layers, rtol=rtol)
        mutants = found if start == 0 else merge(mutants, found)
    for _ in range(len(FORMATS) - 1):
        unseen = {mutant.layer: mutant.format for mutant in mutants if _is_unseen(mutant, noise)}
        if not unseen:
            break
        lively = [sweep[i] for i in order[: MUTANT_STEPS[-1]]]
        coarser = measure_mutants(module, signature, lively, unseen.keys(), unseen, rtol)
        again = {mutant.layer: mutant for mutant in coarser}
        mutants = tuple(again.get(mutant.layer, mutant) for mutant in mutants)
    return mutants


def _is_unseen(mutant: Mutant, noise: Mapping[str, float]) -> bool:
    """Whether it moves answers, but none beyond what the noise allows."""
    effects = mutant.effects
    return any(effects.values()) and not any(effects[name] > NOISE_MARGIN * noise[name] for name in noise)


def _open_layers(mutants: Sequence[Mutant], noise: Mapping[str, float], margin: float) -> set[str]:
    """The layers whose mutants some output that sees them does not yet catch with a margin."""
    return {
        mutant.layer
        for mutant in mutants
        if not all(effect > NOISE_MARGIN * margin * noise[name] for name, effect in mutant.effects.items() if effect)
        or not any(mutant.effects.values())
    }
