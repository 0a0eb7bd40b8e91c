"""Recurrent layers through the exporter: one operator each, any batch and time, equal to torch in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations as subsets
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from exporters import recurrent, recurrent_operators
from exporters.convert import convert, rename_axes
from exporters.errors import GuardError, ParityError
from exporters.execute import LEVELS, open_graph
from exporters.export import export_model
from exporters.folding import fold_weights
from exporters.graphs import operators
from exporters.guards import check_graph
from exporters.parity import NOISE_MARGIN
from exporters.spec import Case, Input, Output, Signature
from tests.exporters.recurrent_networks import HIDDEN, INPUTS, LAYERS, Combination, combinations, truth_of

# torch says so of its own reference
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

OPTIONS = ("layers", "bidirectional", "bias", "batch_first", "states", "lengths")


def aspects(made: Combination) -> set[Any]:
    """The kind, each option with the operator and with the form of the network, and each two options together."""
    (operator,) = (name for name, count in made.operators.items() if count)
    form = made.kind if made.kind in LAYERS else made.kind.partition("-")[0]
    values = {name: getattr(made, name) for name in OPTIONS} | {"layers": made.layers > 1}
    with_both = {(of, *one) for of in (operator, form) for one in values.items()}
    return {made.kind, *with_both, *subsets(values.items(), 2)}


def covering(found: Sequence[Combination]) -> Iterator[Combination]:
    """A few that have every aspect of all between them: at each step the one with the most that are still missing."""
    missing = set[Any]().union(*map(aspects, found))
    while missing:
        best = max(found, key=lambda made: len(aspects(made) & missing))
        missing -= aspects(best)
        yield best


ALL = list(combinations())
SOME = list(covering(ALL))
EXAMPLE = (3, 5)
SIZES = ((1, 1), (2, 33), (7, 2), (1, 200), (7, 33))


def graph_of(options: Combination) -> onnx.ModelProto:
    signature = Signature(options.inputs(), options.outputs())
    converted = convert(options.network(), options.arrays(*EXAMPLE), signature, 18)
    rename_axes(converted.model, signature)
    check_graph(converted.model, signature, 18)
    return converted.model


def hold_against_torch(options: Combination) -> None:
    model, network = graph_of(options), options.network()
    counted = operators(model)
    assert {name: counted.get(name, 0) for name in options.operators} == options.operators
    names = [output.name for output in options.outputs()]
    cases = [options.arrays(*size) for size in SIZES]
    truths = [truth_of(network, arrays) for arrays in cases]
    noise = max(
        np.abs(single - double).max()
        for arrays, truth in zip(cases, truths, strict=True)
        for single, double in zip(truth_of(network, arrays, torch.float32), truth, strict=True)
    )
    assert 0 < noise < 1e-5
    for level in LEVELS:
        session = open_graph(model.SerializeToString(), level)
        for arrays, truth in zip(cases, truths, strict=True):
            for answer, expected in zip(session.run(names, arrays), truth, strict=True):
                assert answer.shape == expected.shape
                assert np.abs(answer - expected).max() <= NOISE_MARGIN * noise


def test_the_matrix_has_at_least_two_hundred_combinations_and_the_quick_part_every_aspect() -> None:
    assert len(set(ALL)) == len(ALL) >= 200
    assert len(SOME) < 25
    assert {options.kind for options in SOME} == {options.kind for options in ALL}
    assert {("LSTM", "lengths", True), ("loop", "states", True)} < set[Any]().union(*map(aspects, SOME))


@pytest.mark.parametrize("options", SOME, ids=str)
def test_equals_torch_at_sizes_that_were_not_exported(options: Combination) -> None:
    hold_against_torch(options)


@pytest.mark.slow
def test_every_combination_equals_torch_in_one_process() -> None:
    for options in ALL:
        hold_against_torch(options)


class Classifier(nn.Module):
    """Rows of different length in, a class by the last state out."""

    def __init__(self, kind: str = "gru") -> None:
        super().__init__()
        torch.manual_seed(1)
        made = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[kind]
        self.recurrent = made(INPUTS, HIDDEN, batch_first=True, bidirectional=True)
        # As after training: the default is so small that rounding a weight hardly shows.
        for weight in self.recurrent.parameters():
            nn.init.normal_(weight, std=0.5)
        self.head = nn.Linear(2 * HIDDEN, 3)

    def forward(self, x: Tensor, lengths: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hx = (h0, h0 * 0.5) if isinstance(self.recurrent, nn.LSTM) else h0
        y, final = self.recurrent(packed, hx)
        last = final[0] if isinstance(final, tuple) else final
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        return self.head(torch.cat([last[0], last[1]], dim=-1)), y


DECLARED: dict[str, Any] = {
    "inputs": [
        Input("x", "float32", ("B", "T", INPUTS)),
        Input("lengths", "int64", ("B",)),
        Input("h0", "float32", (2, "B", HIDDEN)),
    ],
    "outputs": [
        Output("logits", "float32", ("B", 3), decision="argmax"),
        Output("y", "float32", ("B", "T", 2 * HIDDEN)),
    ],
}


def cases() -> list[Case]:
    chance = np.random.default_rng(0)
    found = []
    for batch, steps in ((3, 5), (1, 1), (2, 17), (7, 2), (1, 33), (4, 9), (5, 3), (2, 40)):
        lengths = chance.integers(1, steps + 1, batch)
        x = chance.standard_normal((batch, steps, INPUTS)).astype(np.float32)
        h0 = chance.standard_normal((2, batch, HIDDEN)).astype(np.float32)
        found.append(Case(f"{batch} of {steps}", {"x": x, "lengths": lengths, "h0": h0}))
    return found


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_packed_rows_pass_the_gate(kind: str) -> None:
    report = export_model(Classifier(kind).eval(), cases=cases(), **DECLARED).report
    assert report
    assert not report.vacuous
    assert {mutant.layer for mutant in report.mutants} >= {"recurrent.weight_ih_l0", "recurrent.weight_hh_l0_reverse"}


def _without_reset_first(translate: Any) -> Any:
    def changed(*arguments: Any) -> Any:
        found = translate(*arguments)
        for value in found:
            node = value.producer() if hasattr(value, "producer") else None
            while node is not None and node.op_type != "GRU":
                node = node.inputs[0].producer()
            if node is not None:
                node.attributes["linear_before_reset"] = type(node.attributes["linear_before_reset"])(
                    "linear_before_reset", node.attributes["linear_before_reset"].type, 0
                )
        return found

    return changed


FAULTS: dict[str, Callable[[Any], Any]] = {
    "h0 ignored": lambda run: lambda x, n, state, weights, d: run(x, n, None, weights, d),
    "lengths ignored": lambda run: lambda x, n, state, weights, d: run(x, None, state, weights, d),
    "directions exchanged": lambda run: (
        lambda x, n, state, w, d: run(x, n, state, [*w[len(w) // 2 :], *w[: len(w) // 2]], d)
    ),
    "reset before the product": _without_reset_first,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_catches_a_wrong_operator(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = recurrent_operators.onnx_translations()
    target = torch.ops.edgedl.gru_layer.default
    wrong = right | {target: FAULTS[fault](right[target])}
    monkeypatch.setattr(recurrent_operators, "onnx_translations", lambda: wrong)
    with pytest.raises((ParityError, GuardError)):
        export_model(Classifier().eval(), cases=cases(), **DECLARED)


@pytest.mark.parametrize(
    ("kind", "order"), [("gru", (0, 1, 2)), ("lstm", (0, 1, 2, 3)), ("lstm", (0, 1, 3, 2))], ids=str
)
def test_the_gate_catches_gates_in_another_order(
    kind: str, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recurrent_operators.ONNX_GATES, kind.upper(), order)
    with pytest.raises(ParityError):
        export_model(Classifier(kind).eval(), cases=cases(), **DECLARED)


class Jordan(nn.Module):
    """A step that torch has no layer for: the context comes from the output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.into, self.context, self.out = nn.Linear(3, 8), nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        def step(given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            answer = self.out((given + self.context(state[0])).tanh())
            return answer, (0.5 * state[0] + answer,)

        answers, (last,) = recurrent.over_time(step, self.into(x), (context,))
        return answers, last


def test_any_step_becomes_one_scan() -> None:
    report = export_model(
        Jordan().eval(),
        inputs=[Input("x", "float32", ("T", "B", 3)), Input("context", "float32", ("B", 2))],
        outputs=[Output("answers", "float32", ("T", "B", 2)), Output("last", "float32", ("B", 2))],
        untrained=True,
    ).report
    assert report.operators["Scan"] == 1


class Single(nn.Module):
    """A sequence without a batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(INPUTS, HIDDEN, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (h, _) = self.lstm(x)
        return y, h


def test_a_sequence_without_a_batch() -> None:
    report = export_model(
        Single().eval(),
        inputs=[Input("x", "float32", ("T", INPUTS))],
        outputs=[Output("y", "float32", ("T", HIDDEN)), Output("h", "float32", (2, HIDDEN))],
        untrained=True,
    ).report
    assert report.operators["LSTM"] == 2


def test_the_module_is_left_as_it_was() -> None:
    network = Combination("lstm").network()
    own = nn.LSTM.forward
    with recurrent.lowered():
        assert nn.LSTM.forward is not own
    assert nn.LSTM.forward is own
    assert "forward" not in vars(network.inner["recurrent"])
    assert pack_padded_sequence(torch.zeros(3, 2, 1), torch.tensor([3, 1])).data.shape == (4, 1)


class Own(nn.LSTM):
    """A layer with a ``forward`` of its own, which is not replaced."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        return x * 2, hx


def test_a_forward_of_ones_own_is_left_to_it() -> None:
    layer = Own(2, 2)
    with recurrent.lowered():
        assert torch.equal(layer(torch.ones(1, 1, 2))[0], torch.full((1, 1, 2), 2.0))


def test_over_time_is_the_loop() -> None:
    cell, x = nn.LSTMCell(INPUTS, HIDDEN).double(), torch.randn(4, 3, INPUTS).double()
    state = (torch.randn(3, HIDDEN).double(), torch.randn(3, HIDDEN).double())
    outputs, final = recurrent.over_time(cell, x, state)
    for index in range(4):
        state = cell(x[index], state)
        assert torch.equal(outputs[index], state[0])
    assert all(torch.equal(*pair) for pair in zip(final, state, strict=True))


def test_reordered_weights_are_constants_and_the_originals_gone() -> None:
    layer = nn.LSTM(60, 64, 2, bidirectional=True).eval().requires_grad_(False)
    inputs = [Input("x", "float32", ("T", "B", 60))]
    outputs = [Output("y", "float32", ("T", "B", 128)), *(Output(n, "float32", (4, "B", 64)) for n in "hc")]
    model = convert(layer, {"x": np.zeros((3, 2, 60), np.float32)}, Signature(inputs, outputs), 18).model
    names = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 3}
    assert names == {f"weight_{part}_l{k}.folded" for part in ("ih", "hh") for k in (0, 1)}
    assert {node.op_type for node in model.graph.node} == {"LSTM", "Transpose", "Reshape", "Concat"}


def test_a_weight_that_is_read_elsewhere_is_not_kept_twice() -> None:
    weight = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    nodes = [
        onnx.helper.make_node("Transpose", ["w"], ["t"]),
        onnx.helper.make_node("MatMul", ["x", "t"], ["y"]),
        onnx.helper.make_node("MatMul", ["y", "w"], ["z"]),
    ]

    def value(name: str, width: int) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width])

    graph = onnx.helper.make_graph(nodes, "g", [value("x", 3)], [value("z", 3)], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    assert fold_weights(model) == 0
    del model.graph.node[2]
    model.graph.output[0].CopyFrom(value("y", 2))
    assert fold_weights(model) == 1
    assert [tensor.name for tensor in model.graph.initializer] == ["w.folded"]
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), np.arange(6).reshape(2, 3).T)
