"""Tolerances, decisions and the report."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporters.errors import GuardError, ParityError, VacuousGateError
from exporters.export import ExportedModel, export_model
from exporters.mutants import Mutant, each_mutation, rounded
from exporters.parity import ParityReport, derive_tolerances, hold
from exporters.reference import measure_noise
from exporters.spec import Case, Output
from tests.exporters.networks import IMAGE, OUTPUTS, VECTOR, SmallClassifier, perceptron, picture_cases

AGE = Output("age", "float32", ("N",))
TOKENS = Output("tokens", "int64", ("N",))


def mutant(layer: str, **effects: float) -> Mutant:
    return Mutant(layer, "float16", effects)


def test_a_tolerance_lies_in_the_geometric_middle() -> None:
    mutants = [mutant("a", age=0.5), mutant("b", age=0.03)]
    found = derive_tolerances([AGE, TOKENS], {"age": 1e-6}, mutants)
    assert found["age"].rule.atol == pytest.approx(math.sqrt(30e-6 * 0.003))
    assert (found["age"].rule.mutant, found["age"].layer, found["age"].vacuous) == (0.03, "b (float16)", None)
    assert found["age"].margin == pytest.approx(0.03 / found["age"].rule.atol)
    assert found["tokens"].rule.atol == 0


def test_a_faint_mutant_keeps_the_tolerance_at_thirty_times_the_noise() -> None:
    found = derive_tolerances([AGE], {"age": 1e-5}, [mutant("a", age=1.0), mutant("b", age=6e-4)])["age"]
    assert (found.rule.atol, found.vacuous) == (pytest.approx(3e-4), None)
    assert found.margin == pytest.approx(2.0)


def test_a_gate_that_catches_less_than_half_is_vacuous() -> None:
    mutants = [mutant("a", age=1.0), mutant("b", age=2e-4), mutant("c", age=1e-4)]
    found = derive_tolerances([AGE], {"age": 1e-5}, mutants)["age"]
    assert found.vacuous == (
        "age catches 1 of 3 weights rounded to half precision; its tolerance, 30 times the noise, is 3.0e-04"
    )


def test_a_mutant_that_no_output_catches_makes_the_gate_vacuous() -> None:
    mutants = [mutant("a", age=1.0), mutant("b", age=1.0), mutant("faint", age=2e-4)]
    assert "no output catches faint rounded to float16" in str(
        derive_tolerances([AGE], {"age": 1e-5}, mutants)["age"].vacuous
    )


def test_an_output_may_leave_a_mutant_to_another() -> None:
    boxes, scores = Output("boxes", "float32", ("D", 4)), Output("scores", "float32", ("D",))
    mutants = [mutant("trunk", boxes=1.0, scores=1.0), mutant("regressor", boxes=1.0, scores=0.0)]
    found = derive_tolerances([boxes, scores], {"boxes": 1e-5, "scores": 1e-6}, mutants)
    assert [found[name].vacuous for name in ("boxes", "scores")] == [None, None]
    assert (found["scores"].caught, found["scores"].seen) == (1, 1)


def test_weights_that_change_nothing_make_the_gate_vacuous() -> None:
    assert derive_tolerances([AGE], {"age": 1e-6}, [mutant("dead", age=0.0)])["age"].vacuous
    assert derive_tolerances([AGE], {"age": 1e-6}, [])["age"].vacuous is None


def test_rounding_takes_the_next_coarser_grid() -> None:
    weight = torch.tensor([[1.0, 0.1]])
    assert rounded(weight)[0] == "float16"  # type: ignore[index]
    assert rounded(weight.half().float())[0] == "bfloat16"  # type: ignore[index]
    assert rounded(torch.tensor([[1.0, 0.5]])) is None
    assert rounded(torch.tensor([[1e6, 0.1]]))[0] == "bfloat16"  # type: ignore[index]


def test_mutations_are_undone() -> None:
    module = perceptron()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    changed = []
    for name, _ in each_mutation(module):
        changed.append(name)
        assert not torch.equal(module.state_dict()[name], before[name])
    assert changed == ["first.weight", "second.weight"]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_noise_is_at_least_one_unit_in_the_last_place() -> None:
    case = Case("one", {"x": np.zeros((1, 6), np.float32)})
    exact, single = {"age": np.array([40.0])}, {"age": np.array([40.0], np.float32)}
    assert measure_noise([AGE], [case], [exact], [single]) == {"age": np.spacing(np.float32(40))}


def test_a_case_on_the_edge_of_a_decision_is_refused() -> None:
    case = Case("edge", {"x": np.zeros((1, 6), np.float32)})
    with pytest.raises(GuardError, match="case 'edge': torch float32 and torch float64 decide differently"):
        measure_noise([TOKENS], [case], [{"tokens": np.array([1])}], [{"tokens": np.array([2])}])


def test_an_untrained_network_is_refused_unless_it_is_declared() -> None:
    """Its expectation hangs at the middle of the years, whatever a layer does."""

    class Expectation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 81)
            self.register_buffer("years", torch.arange(81.0))

        def forward(self, x: Tensor) -> Tensor:
            return ((self.second(torch.tanh(self.first(x * 0.01))) * 1e-3).softmax(1) * self.years).sum(1)

    torch.manual_seed(0)
    module = Expectation().eval()
    with pytest.raises(VacuousGateError, match=r"vacuous.*Give real inputs.*train it, or export it as untrained"):
        export_model(module, inputs=[VECTOR], outputs=[AGE])
    model = export_model(module, inputs=[VECTOR], outputs=[AGE], untrained=True)
    parity = model.parity.outputs["age"]
    assert parity.atol == pytest.approx(30 * (parity.noise or 0))
    assert model.report.untrained
    assert model.report.vacuous
    assert "vacuous (allowed: untrained)" in str(model.report)


def test_the_report_reads_well(exported: ExportedModel) -> None:
    report = exported.report
    assert report
    lines = str(report).splitlines()
    assert len(lines) <= 50
    assert lines[0] == "parity passed: 10 cases against torch float64, the graph as written and optimised"
    assert any(line.lstrip().startswith("level ") and "round: 0 changed" in line for line in lines)
    assert any("opset 18, IR 8" in line and "Conv 3" in line for line in lines)
    for check in report.checks:
        rule = report.tolerances[check.output].rule
        assert rule.noise is not None
        assert rule.mutant is not None
        assert 30 * rule.noise <= rule.atol < rule.mutant
        assert check.max_abs <= rule.atol / 5
    assert not ParityReport(checks=(), tolerances={}, cases=0, failures=("it broke",))


def test_the_gate_fails_for_another_graph(classifier: SmallClassifier, exported: ExportedModel) -> None:
    """The truth of one network, the graph of another: outputs and the worst case are named."""
    cases = picture_cases()
    truth = [{"probabilities": np.full((len(c.inputs["image"]), 5), 0.2),
              "level": np.full(len(c.inputs["image"]), 2.2)} for c in cases]  # fmt: skip
    tolerances = exported.report.tolerances
    held = hold(exported.graph, OUTPUTS, cases, truth, tolerances)
    checks = held.checks
    assert not held.failures
    assert list(held.off) == cases
    assert not any(checks)
    report = ParityReport(checks=checks, tolerances=tolerances, cases=len(cases))
    assert not report
    assert "<- case '" in str(report)
    short = [{name: array[:0] for name, array in answers.items()} for answers in truth]
    checks = hold(exported.graph, OUTPUTS, cases[:1], short[:1], tolerances).checks
    assert checks[0].note == "shape [1, 5], the reference has [0, 5]"


def test_a_graph_that_stops_at_another_size_fails(exported: ExportedModel) -> None:
    bad = Case("four bands", {"image": np.zeros((1, 9, 9, 4), np.uint8)})
    tolerances = exported.report.tolerances
    truth = [{"probabilities": np.zeros((1, 5)), "level": np.zeros(1)}]
    failures = hold(exported.graph, OUTPUTS, [bad], truth, tolerances).failures
    assert failures[0].startswith("case 'four bands': ONNX Runtime stops:")


def test_a_module_that_is_wrong_in_onnx_only_fails_with_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resize without antialias: the fault is in the translation, and the report names the node."""
    from exporters import image

    network = SmallClassifier().eval()
    monkeypatch.setitem(image._RESIZE_ATTRIBUTES, "coordinate_transformation_mode", "asymmetric")
    with pytest.raises(ParityError, match=r"first node that differs: Resize \(Resize, \d+ of \d+\).*case '"):
        export_model(network, inputs=[IMAGE], outputs=OUTPUTS, cases=picture_cases())
