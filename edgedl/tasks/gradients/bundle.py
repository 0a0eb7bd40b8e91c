"""How memory blocks are deployed: one graph with their state, and their gates to look at, through the gate."""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch

from edgedl.tasks.gradients.config import RecallConfig
from edgedl.tasks.gradients.data import draw_sequences
from edgedl.tasks.gradients.network import INPUTS, GatedAnswers, RecallNetwork
from edgedl.tasks.gradients.training import best_of_blocks, trained_network
from edgedl.training.run import Run
from exporters.export import export
from exporters.spec import Case, Input, Output
from runtime.bundle import Bundle
from runtime.manifest import StateSpec

SIZES = ((1, 1), (1, 33), (1, 200), (2, 1), (2, 7), (7, 64), (32, 20), (3, 128))
"""Rows and steps of the recorded cases."""
COMMANDS = Input("u", "float32", ("B", "T", INPUTS), meaning="value; 1 to store it; 1 to recall what is stored")
GATES = ("input", "forget", "output")


def recall_cases(network: RecallNetwork, steps: int) -> list[Case]:
    """What the graph is held to: batches of 1, 2, 7, 32, one step to many, each from nothing or in mid-run, and edges.

    States are those that the network itself comes to: where it never is, its answers mean nothing.
    """
    cases = []
    for number, (rows, length) in enumerate(SIZES):
        drawn = draw_sequences(rows, steps=steps + length, split="val", part=1 + number).inputs
        zeros = network.initial_state(rows)
        with torch.no_grad():
            running = network(torch.from_numpy(drawn[:, :steps].copy()), *zeros)[1:]
        u = np.ascontiguousarray(drawn[:, steps:] if number % 2 == 0 else drawn[:, :length])
        cases.append(_case(f"{rows} rows, {length} steps", u, zeros if number % 2 else running))
    zeros = network.initial_state(2)
    cases.append(_case("nothing but silence", np.zeros((2, 40, INPUTS), np.float32), zeros))
    cases.append(_case("both commands at once", np.ones((2, 9, INPUTS), np.float32), zeros))
    return cases


def recall_bundle(
    run: Run, path: str | PathLike[str], *, name: str = "gradients", untrained: bool = False, opset: int = 18
) -> Bundle:
    """Takes the best network of memory blocks of a run through the gate and writes it as a bundle.

    An LSTM's gates are outputs beside its answers. With peepholes they depend on the cells of the step before, which
    ONNX's ``LSTM`` does not give, so such a bundle answers without them.

    Args:
        run: of `edgedl train gradients`.
        path: of the bundle.
        name: of the bundle.
        untrained: accept a gate that cannot tell a wrong network from a right one.
        opset: of the graph.

    Raises:
        ExportError: the gate said no; nothing is left behind.
        InputError: the run has no network of memory blocks.
    """
    best = best_of_blocks(run)
    config, network = RecallConfig.of(best), trained_network(best)
    gated = network.kind == "lstm"
    shape = (1, "B", network.hidden)
    return export(
        GatedAnswers(network).eval() if gated else network,
        path,
        name=name,
        task="gradients",
        inputs=[
            COMMANDS,
            Input("h0", "float32", shape, meaning="hidden units"),
            Input("c0", "float32", shape, meaning="memory cells"),
        ],
        outputs=[
            Output("answer", "float32", ("B", "T"), meaning="the value that was stored last, where it is recalled"),
            *(_gate(gate, network.hidden) for gate in GATES if gated),
            Output("hn", "float32", shape, meaning="hidden units"),
            Output("cn", "float32", shape, meaning="memory cells"),
        ],
        state=[StateSpec("h0", "hn", shape, "float32"), StateSpec("c0", "cn", shape, "float32")],
        cases=recall_cases(network, config.steps),
        description=f"Stores a value and recalls it up to {config.steps} steps later; {network.kind}, "
        f"{network.hidden} memory blocks",
        version="1.0.0",
        license=config.license,
        pipeline={"steps": config.steps},
        provenance={"data": config.data, "seed": config.seed, "run": best.created, "weights": []},
        untrained=untrained,
        opset=opset,
    )


def _gate(gate: str, hidden: int) -> Output:
    return Output(f"{gate}_gate", "float32", ("B", "T", hidden), meaning="of each memory block, 0 shut to 1 open")


def _case(name: str, inputs: np.ndarray, state: tuple[torch.Tensor, ...]) -> Case:
    carried = {given: value.numpy().copy() for given, value in zip(("h0", "c0"), state, strict=True)}
    return Case(name, {"u": inputs, **carried})
