"""A layer that half precision cannot be seen in is rounded more coarsely, and an idle one is still told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporters.errors import VacuousGateError
from exporters.export import export_model
from exporters.mutants import FORMATS, rounded
from exporters.parity import ParityReport
from exporters.spec import Input, Output


class Faint(nn.Module):
    """Two layers side by side, one of which is hardly heard."""

    def __init__(self, share: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loud, self.faint, self.share = nn.Linear(16, 4), nn.Linear(16, 4), share

    def forward(self, x: Tensor) -> Tensor:
        return self.loud(x) + self.share * self.faint(x)


def report_of(share: float) -> ParityReport:
    return export_model(
        Faint(share).eval(), inputs=[Input("x", "float32", ("N", 16))], outputs=[Output("y", "float32", ("N", 4))]
    ).report


@pytest.mark.parametrize(("share", "formats"), [(1.0, {"float16"}), (2e-3, {"bfloat16", "8 bits"})])
def test_each_layer_is_held_to_the_finest_fault_that_shows(share: float, formats: set[str]) -> None:
    report = report_of(share)
    assert report
    assert not report.vacuous
    found = {mutant.layer: mutant.format for mutant in report.mutants}
    assert found["loud.weight"] == "float16"
    assert found["faint.weight"] in formats


def test_a_layer_that_may_be_quantised_unseen_makes_the_gate_vacuous() -> None:
    with pytest.raises(VacuousGateError, match=r"no output catches faint\.weight rounded to 8 bits"):
        report_of(1e-6)


def test_the_report_names_what_is_held_to_8_bits_only() -> None:
    report = report_of(9e-4)
    coarse = [mutant.layer for mutant in report.mutants if mutant.format == "8 bits"]
    assert coarse == ["faint.weight"]
    assert "held to no finer a fault than 8 bits of a weight: faint.weight" in report.notes


def test_each_format_is_coarser_than_the_one_before() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64)
    errors = [float((form(weight) - weight).abs().mean()) for form in FORMATS.values()]
    assert errors == sorted(errors)
    assert errors[0] > 0
    names, finer = [], None
    while (found := rounded(weight, finer)) is not None:
        finer, changed = found
        names.append(finer)
        assert not torch.equal(changed, weight)
    assert names == list(FORMATS)


def test_a_weight_that_half_precision_holds_is_a_fixed_kernel() -> None:
    assert rounded(torch.tensor([[1.0, 0.5], [0.25, -2.0]])) is None
