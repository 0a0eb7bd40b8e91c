"""Python loops over time through the exporter: rolled up and equal to torch in float64, or refused; never wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from exporters import loops
from exporters.convert import convert, rename_axes
from exporters.errors import GuardError
from exporters.execute import LEVELS, open_graph
from exporters.graphs import operators
from exporters.guards import check_graph
from exporters.parity import NOISE_MARGIN
from exporters.spec import Input, Output, Signature
from tests.exporters.loop_networks import INPUTS, REFUSED, RELATIVES, ROLLED, Loop, Run, gru

SIZES = ((1, 1), (7, 2), (2, 33), (1, 200))
SEQUENCE = Input("x", "float32", ("B", "T", INPUTS))


def graph_of(network: nn.Module) -> onnx.ModelProto:
    network.eval().requires_grad_(False)
    example = np.random.default_rng(0).standard_normal((2, 5, INPUTS)).astype(np.float32)
    shape = network(torch.from_numpy(example)).shape
    outputs = [Output("y", "float32", ("B", "T", shape[2]) if len(shape) == 3 else ("B", shape[1]))]
    signature = Signature([SEQUENCE], outputs)
    converted = convert(network, {"x": example}, signature, 18)
    rename_axes(converted.model, signature)
    check_graph(converted.model, signature, 18)
    return converted.model


def hold_against_torch(network: nn.Module, model: onnx.ModelProto) -> None:
    """At sizes that were not exported, both as the graph is written and optimised."""
    chance = np.random.default_rng(1)
    sessions = [open_graph(model.SerializeToString(), level) for level in LEVELS]
    for batch, steps in SIZES:
        x = chance.standard_normal((batch, steps, INPUTS)).astype(np.float32)
        single = network(torch.from_numpy(x))
        truth = network.double()(torch.from_numpy(x).double())
        network.float()
        noise = max(float((single - truth).abs().max()), float(np.spacing(np.float32(truth.abs().max()))))
        for session in sessions:
            (found,) = session.run(None, {"x": x})
            assert found.shape == truth.shape
            assert np.abs(found - truth.numpy()).max() <= NOISE_MARGIN * noise


@pytest.mark.parametrize(
    "run",
    [pytest.param(run, id=run.__name__, marks=[pytest.mark.slow] if run in RELATIVES else []) for run in ROLLED],
)
def test_a_loop_is_one_operator_for_any_length(run: Run) -> None:
    network = Loop(run)
    model = graph_of(network)
    counted = operators(model)
    assert {name: counted[name] for name in ("LSTM", "GRU", "RNN", "Scan", "Loop") if counted[name]} == ROLLED[run]
    hold_against_torch(network, model)
    assert "forward" not in vars(network)


@pytest.mark.parametrize("run", REFUSED, ids=lambda run: run.__name__)
def test_steps_that_are_not_alike_are_refused_with_the_reason(run: Run) -> None:
    with pytest.raises(GuardError, match=rf"freezes T of x to 5.*over_time.*here: .*{REFUSED[run]}"):
        graph_of(Loop(run))


def test_one_process_exports_a_loop_as_often_as_it_likes() -> None:
    first, second = (graph_of(Loop(gru)).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def rolled_eagerly(network: nn.Module, x: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """What the rolled program answers where a module stands, without a graph."""
    example = {"x": x[:, :5].numpy()}
    with torch.no_grad(), loops.rolled(network, example, [SEQUENCE], "T"):
        return [network(x[:, :length]) for length in lengths]


class Random(nn.Module):
    """Cells of any kind one above the other, in one loop."""

    def __init__(self, kinds: Sequence[str], hidden: int, *, bias: bool, residual: bool, turned: bool) -> None:
        super().__init__()
        torch.manual_seed(len(kinds) + hidden)
        made = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "elman": nn.RNNCell}
        widths = [INPUTS, *[hidden] * len(kinds)]
        self.cells = nn.ModuleList(made[kind](widths[n], hidden, bias=bias) for n, kind in enumerate(kinds))
        self.residual, self.turned = residual, turned

    def forward(self, x: Tensor) -> Tensor:
        states: list[Tensor | tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        outputs = []
        for t in range(x.shape[1]):
            given = x[:, -1 - t if self.turned else t]
            for number, cell in enumerate(self.cells):
                states[number] = state = cell(given, states[number])
                hidden = state[0] if isinstance(state, tuple) else state
                given = given + hidden if self.residual and number else hidden
            outputs.append(given)
        return torch.stack(outputs, 1)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    kinds=st.lists(st.sampled_from(["gru", "lstm", "elman"]), min_size=1, max_size=3),
    hidden=st.sampled_from([2, 6, 17]),
    bias=st.booleans(),
    residual=st.booleans(),
    turned=st.booleans(),
)
def test_any_cells_one_above_the_other(kinds: list[str], hidden: int, bias: bool, residual: bool, turned: bool) -> None:
    network = Random(kinds, hidden, bias=bias, residual=residual, turned=turned).eval().requires_grad_(False)
    x, lengths = torch.randn(2, 33, INPUTS), (1, 2, 3, 33)
    for found, length in zip(rolled_eagerly(network, x, lengths), lengths, strict=True):
        torch.testing.assert_close(found, network(x[:, :length]), atol=1e-5, rtol=0)


def test_a_wrong_loop_is_seen_before_it_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the steps mistaken, the comparison with the module would tell."""
    monkeypatch.setattr(loops.rolling.operators, "series", lambda x, dim, index, steps: x.movedim(dim, 0).flip(0))
    with pytest.raises(loops.NotRolledError, match="with T = 2 the loop does something else"):
        rolled_eagerly(Loop(gru).eval().requires_grad_(False), torch.randn(2, 9, INPUTS), [9])
