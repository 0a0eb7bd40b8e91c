"""A layer that half precision cannot be seen in is rounded more coarsely, and an idle one is still told.

Inputs are small whole numbers and weights have few bits, so that float32 computes each layer exactly, in whatever order
a processor adds. The noise is then one unit in the last place on every processor, and each fault is five times as large
as what decides about it, or a fifth of it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporters.errors import VacuousGateError
from exporters.export import export_model
from exporters.mutants import FORMATS, rounded
from exporters.parity import NOISE_MARGIN, ParityReport
from exporters.spec import Case, Input, Output

REMAINDER = 2.0**-14
"""What float16 drops of a weight between 1 and 2 that has this beside 10 bits or fewer."""


class Faint(nn.Module):
    """Two layers side by side, one of which is hardly heard.

    Args:
        share: of the faint one, a power of two.
        bits: of its weights, beside the remainder.
    """

    def __init__(self, share: float, bits: int) -> None:
        super().__init__()
        self.loud, self.faint, self.share = nn.Linear(16, 4, bias=False), nn.Linear(16, 4, bias=False), share
        chance = torch.Generator().manual_seed(0)
        for layer, fraction in ((self.loud, 12), (self.faint, bits)):
            steps = torch.randint(2**fraction, (4, 16), generator=chance)
            layer.weight.data = 1 + steps / 2**fraction + REMAINDER

    def forward(self, x: Tensor) -> Tensor:
        return self.loud(x) + self.share * self.faint(x)


def report_of(share: float, bits: int) -> ParityReport:
    chance = np.random.default_rng(0)
    rows = (1, 2, 7, 32, 3, 5, 9, 11)
    cases = [Case(f"{n} rows", {"x": chance.integers(-3, 4, (n, 16)).astype(np.float32)}) for n in rows]
    return export_model(
        Faint(share, bits).eval(),
        inputs=[Input("x", "float32", ("N", 16))],
        outputs=[Output("y", "float32", ("N", 4))],
        cases=cases,
    ).report


HELD_TO = [(0.5, 10, "float16"), (2**-6, 10, "bfloat16"), (2**-6, 7, "8 bits")]


@pytest.mark.parametrize(("share", "bits", "held_to"), HELD_TO, ids=[form for *_, form in HELD_TO])
def test_each_layer_is_held_to_the_finest_fault_that_shows(share: float, bits: int, held_to: str) -> None:
    report = report_of(share, bits)
    assert report
    assert not report.vacuous
    assert {mutant.layer: mutant.format for mutant in report.mutants} == {
        "loud.weight": "float16", "faint.weight": held_to,
    }  # fmt: skip
    told = "held to no finer a fault than 8 bits of a weight: faint.weight" in report.notes
    assert told == (held_to == "8 bits")
    assert report.tolerances["y"].rule.noise == np.spacing(np.float32(40))
    assert min(mutant.effects["y"] for mutant in report.mutants) > 5 * NOISE_MARGIN * np.spacing(np.float32(40))


def test_a_layer_that_may_be_quantised_unseen_makes_the_gate_vacuous() -> None:
    with pytest.raises(VacuousGateError, match=r"no output catches faint\.weight rounded to 8 bits"):
        report_of(2**-12, 7)


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
