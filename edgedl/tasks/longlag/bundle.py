"""How a network for long time lags is deployed: raw sequences of any length in, the answer out, through the gate."""

from __future__ import annotations

import logging
from os import PathLike

import numpy as np

from edgedl.tasks.longlag.config import LagConfig
from edgedl.tasks.longlag.data import PROBLEMS, LagSequences, Problem, draw_sequences
from edgedl.tasks.longlag.training import best_run, trained_network
from edgedl.training.run import Run
from exporters.copies import without_parametrizations
from exporters.export import export
from exporters.spec import Case, Input, Output
from runtime.bundle import Bundle
from runtime.manifest import DimensionSpec

log = logging.getLogger(__name__)

SIZES = ((2, 33), (7, 64), (1, 200), (32, 20), (1, 1), (2, 1), (7, 9))
"""Rows and steps of recorded cases, beside those of whole sequences."""
WHOLE = (1, 2, 7)
"""Rows of whole sequences."""
MOST_STEPS = 1 << 16
"""Of a row. Its state is inside the graph, so that a row cannot be answered in pieces, and a step takes a kilobyte."""
UNFORGOTTEN_STEPS = 256
"""Of a row of an orthogonal network, unless its sequences are longer: it forgets no rounding error either."""

INPUTS = {
    "adding": Input(
        "pairs", "float32", ("B", "T", 2),
        meaning="a value from -1 to 1, and a marker: 1 of the two that count, -1 of the first and last, else 0",
    ),
    "copy": Input("symbols", "int64", ("B", "T"), meaning="0..7, then 8 blank, 9 to answer", limits=(0, 9)),
    "order": Input("symbols", "int64", ("B", "T"), meaning="0..7: a b c d E B X Y", limits=(0, 7)),
    "digits": Input("levels", "uint8", ("B", "T"), meaning="pixels of 8×8, row by row, bright on black"),
}  # fmt: skip
LENGTHS = Input("lengths", "int64", ("B",), meaning="steps of each row, 1..T")
OUTPUTS = {
    "adding": (Output("sum", "float32", ("B",), meaning="of the two marked values"),),
    "copy": (
        Output("copied", "int64", ("B", "T"), meaning="the likeliest symbol at each step, 8 blank"),
        Output("probabilities", "float32", ("B", "T", 9), meaning="of 0..7 and blank", decision="argmax"),
    ),
    "order": (
        Output("order", "int64", ("B",), meaning="0..3: XX XY YX YY"),
        Output("probabilities", "float32", ("B", 4), meaning="of XX XY YX YY", decision="argmax"),
    ),
    "digits": (
        Output("digit", "int64", ("B",), meaning="0..9"),
        Output("probabilities", "float32", ("B", 10), meaning="of 0..9", decision="argmax"),
    ),
}

_TOLD = {
    "adding": "The sum of two marked values",
    "copy": "The first ten symbols, repeated",
    "order": "In which order two X or Y came",
    "digits": "Which digit the pixels show",
}


def graph_inputs(problem: str) -> tuple[Input, ...]:
    """What a graph takes: the raw sequences, and how long each is unless every step is answered."""
    return (INPUTS[problem],) if PROBLEMS[problem].every_step else (INPUTS[problem], LENGTHS)


def as_inputs(problem: str, drawn: LagSequences) -> dict[str, np.ndarray]:
    """Sequences as the arrays that a graph takes, by name."""
    return dict(zip((part.name for part in graph_inputs(problem)), (drawn.inputs, drawn.lengths), strict=False))


def longlag_cases(problem: str, length: int) -> list[Case]:
    """What the graph is held to: whole sequences, parts of them from one step to many, rows of unequal length, edges.

    Where a trained network is sure of its answer, no rounded weight shows; parts of sequences leave it unsure.
    """
    cases = []
    for rows in WHOLE:
        drawn = draw_sequences(problem, rows, length=length, split="val", seed=1, part=rows)
        cases.append(Case(f"{rows} whole", as_inputs(problem, drawn)))
    for number, (rows, steps) in enumerate(SIZES):
        cases.append(
            Case(f"{rows} rows, {steps} steps", as_inputs(problem, _part(problem, length, rows, steps, number)))
        )
    first = INPUTS[problem]
    features = [int(size) for size in first.shape[2:]]
    highest = {"uint8": 255, "float32": 1}.get(first.dtype, (first.limits or (0, 0))[1])
    for name, value in (("low", 0), ("high", highest)):
        array, lengths = np.full((2, 40, *features), value, first.dtype), np.full(2, 40)
        cases.append(Case(name, as_inputs(problem, LagSequences(array, lengths, lengths))))
    return cases


def longlag_bundle(
    run: Run, path: str | PathLike[str], *, name: str = "longlag", untrained: bool = False, opset: int = 18
) -> Bundle:
    """Takes a network through the gate and writes it as a bundle.

    Args:
        run: of `edgedl train longlag`, which gives the network that validates best, or of a single network in it.
        path: of the bundle.
        name: of the bundle.
        untrained: accept a gate that cannot tell a wrong network from a right one.
        opset: of the graph.

    Raises:
        ExportError: the gate said no; nothing is left behind.
        InputError: the run has no network yet.
    """
    chosen = best_run(run)
    config = LagConfig.of(chosen)
    problem, length, kind = config.problem, config.length, config.network
    if chosen.path != run.path:
        log.info("%s validates best and is exported; another network: export %s", kind, chosen.path.with_name("NAME"))
    network = trained_network(chosen)
    without_parametrizations(network)  # the reference in float64 would compute another orthogonal matrix
    most = UNFORGOTTEN_STEPS if kind == "orthogonal" else MOST_STEPS
    return export(
        network,
        path,
        name=name,
        task="longlag",
        inputs=graph_inputs(problem),
        outputs=OUTPUTS[problem],
        cases=longlag_cases(problem, length),
        dimensions={"T": DimensionSpec(max=max(most, network.problem.steps(length)))},
        description=f"{_TOLD[problem]}, over {length} steps; {kind}, {network.hidden} units",
        version="1.0.0",
        license=config.license,
        pipeline={"problem": problem, "length": length},
        provenance={"data": config.data, "seed": config.seed, "run": chosen.created, "weights": []},
        untrained=untrained,
        opset=opset,
    )


def _part(problem: str, length: int, rows: int, steps: int, number: int) -> LagSequences:
    """Rows of so many steps, of which each ends somewhere else: sequences cut short, or one after the other."""
    about: Problem = PROBLEMS[problem]
    repeated = -(-steps // about.steps(length))
    drawn = draw_sequences(problem, rows * repeated, length=length, split="val", seed=2, part=number)
    row = drawn.inputs.reshape(rows, repeated * drawn.inputs.shape[1], *drawn.inputs.shape[2:])
    lengths = np.random.default_rng(number).integers(1, steps + 1, rows)
    lengths[0] = steps
    return LagSequences(np.ascontiguousarray(row[:, :steps]), lengths, lengths)
