"""How a timer is deployed: one graph, with the state that is carried from step to step, through the gate."""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch

from edgedl.tasks.timer.config import TimerConfig
from edgedl.tasks.timer.data import draw_sequences
from edgedl.tasks.timer.network import STATES, TimerNetwork
from edgedl.tasks.timer.training import trained_network
from edgedl.training.run import Run
from exporters.export import export
from exporters.spec import Case, Input, Output
from runtime.bundle import Bundle
from runtime.manifest import StateSpec

SIZES = ((1, 1), (1, 33), (1, 200), (2, 1), (2, 7), (7, 64), (32, 20), (3, 128))
"""Rows and steps of the recorded cases."""
INPUTS = Input("u", "float32", ("B", "T", 2), meaning="u1, 1 at a start, and u2, the duration over the scale")


def timer_cases(network: TimerNetwork, scale: int) -> list[Case]:
    """What the graph is held to: batches of 1, 2, 7, 32, one step to many, each from nothing or in mid-run, and edges.

    States are those that the network itself comes to: where it never is, its answers mean nothing.
    """
    cases = []
    for number, (rows, steps) in enumerate(SIZES):
        drawn = draw_sequences(rows, scale=scale, steps=2 * scale + steps, split="val", part=1 + number).inputs
        began = torch.from_numpy(drawn[:, : 2 * scale].copy())
        states = network.initial_state(rows)
        with torch.no_grad():
            running = network(began, *states)[1:]
        u = np.ascontiguousarray(drawn[:, 2 * scale :])
        cases.append(_case(f"{rows} rows, {steps} steps", network, u, states if number % 2 else running))
        if steps == 1:
            cases.append(_case(f"{rows} rows, a start", network, np.full_like(u, 1), running))
    zeros = network.initial_state(2)
    cases.append(_case("never a start", network, np.zeros((2, 40, 2), np.float32), zeros))
    cases.append(_case("always a start", network, np.ones((2, 9, 2), np.float32), zeros))
    return cases


def timer_bundle(
    run: Run, path: str | PathLike[str], *, name: str = "timer", untrained: bool = False, opset: int = 18
) -> Bundle:
    """Takes the best network of a run through the gate and writes it as a bundle.

    Args:
        run: of `edgedl train timer`.
        path: of the bundle.
        name: of the bundle.
        untrained: accept a gate that cannot tell a wrong network from a right one.
        opset: of the graph.

    Raises:
        ExportError: the gate said no; nothing is left behind.
        InputError: the run has no network yet.
    """
    config = TimerConfig.of(run)
    network = trained_network(run)
    carried, scale = STATES[config.network], config.scale
    shape = (1, "B", network.hidden)
    return export(
        network,
        path,
        name=name,
        task="timer",
        inputs=[INPUTS, *(Input(part.given, "float32", shape, meaning=part.meaning) for part in carried)],
        outputs=[
            Output("answer", "float32", ("B", "T"), meaning=f"0.5 for {scale}·u2 steps after a start, else 0"),
            *(Output(part.left, "float32", shape, meaning=part.meaning) for part in carried),
        ],
        state=[StateSpec(part.given, part.left, shape, "float32") for part in carried],
        cases=timer_cases(network, scale),
        description=f"A timer of {scale}·u2 steps; {config.network}, {network.hidden} units",
        version="1.0.0",
        license=config.license,
        pipeline={"scale": scale},
        provenance={"data": config.data, "seed": config.seed, "run": run.created, "weights": []},
        untrained=untrained,
        opset=opset,
    )


def _case(name: str, network: TimerNetwork, inputs: np.ndarray, state: tuple[torch.Tensor, ...]) -> Case:
    parts = {part.given: value.numpy().copy() for part, value in zip(STATES[network.network], state, strict=True)}
    return Case(name, {"u": inputs, **parts})
