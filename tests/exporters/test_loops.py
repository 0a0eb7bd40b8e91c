"""Python loops over time through the exporter: rolled up and equal to torch in float64, or refused; never wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from exporters.convert import convert, rename_axes
from exporters.errors import GuardError
from exporters.execute import LEVELS, open_graph
from exporters.graphs import operators
from exporters.guards import check_graph
from exporters.parity import NOISE_MARGIN
from exporters.spec import Input, Output

INPUTS, HIDDEN = 3, 4
SIZES = ((1, 1), (7, 2), (2, 33), (1, 200))
SEQUENCE = Input("x", "float32", ("B", "T", INPUTS))


class Loop(nn.Module):
    """What the loops of these tests are written with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.other = nn.GRUCell(INPUTS, HIDDEN), nn.GRUCell(INPUTS, HIDDEN)

    def begin(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)


def graph_of(network: nn.Module, outputs: list[Output]) -> onnx.ModelProto:
    example = np.random.default_rng(0).standard_normal((2, 5, INPUTS)).astype(np.float32)
    converted = convert(network.eval().requires_grad_(False), {"x": example}, [SEQUENCE], outputs, 18)
    rename_axes(converted.model, [SEQUENCE], outputs)
    check_graph(converted.model, [SEQUENCE], outputs, 18)
    return converted.model


def hold_against_torch(network: nn.Module, model: onnx.ModelProto) -> None:
    """At sizes that were not exported, both as the graph is written and optimised."""
    chance = np.random.default_rng(1)
    for batch, steps in SIZES:
        x = chance.standard_normal((batch, steps, INPUTS)).astype(np.float32)
        single = network(torch.from_numpy(x))
        double = network.double()(torch.from_numpy(x).double())
        network.float()
        for level in LEVELS:
            found = open_graph(model.SerializeToString(), level).run(None, {"x": x})
            for answer, one, truth in zip(found, single, double, strict=True):
                assert answer.shape == truth.shape
                noise = max(float((one - truth).abs().max()), float(np.spacing(np.float32(truth.abs().max()))))
                assert np.abs(answer - truth.numpy()).max() <= NOISE_MARGIN * noise


def counted(model: onnx.ModelProto) -> dict[str, int]:
    found: Any = operators(model)
    return {name: found[name] for name in ("LSTM", "GRU", "Scan", "Loop") if found[name]}


class OverCell(Loop):
    """The loop of the tutorials."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, outputs = self.begin(x), []
        for t in range(x.shape[1]):
            h = self.gru(x[:, t], h)
            outputs.append(h)
        return torch.stack(outputs, 1), h


def test_a_cell_in_a_loop_is_one_operator_for_any_length() -> None:
    network = OverCell()
    model = graph_of(network, [Output("y", "float32", ("B", "T", HIDDEN)), Output("h", "float32", ("B", HIDDEN))])
    assert counted(model) == {"GRU": 1}
    hold_against_torch(network, model)
    assert "forward" not in vars(network)


class OtherFirst(Loop):
    """The first step has weights of its own."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.begin(x)
        for t in range(x.shape[1]):
            h = (self.other if t == 0 else self.gru)(x[:, t], h)
        return h


class Counting(Loop):
    """A step depends on its number."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.begin(x)
        for t in range(x.shape[1]):
            h = self.gru(x[:, t] * t, h)
        return h


@pytest.mark.parametrize(
    ("kind", "why"), [(OtherFirst, "step"), (Counting, "a number in mul differs from step to step")]
)
def test_steps_that_are_not_alike_are_refused(kind: type[Loop], why: str) -> None:
    with pytest.raises(GuardError, match=rf"freezes T of x to 5.*over_time.*here: .*{why}"):
        graph_of(kind(), [Output("h", "float32", ("B", HIDDEN))])
