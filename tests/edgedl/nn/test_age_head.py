"""The head of DEX: expectation, distribution and the central interval, against closed forms and numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgedl.nn.age import AgeNetwork, class_edges, expectation, quantile

DEX_YEARS = [float(year) for year in range(101)]
PUBLIC_YEARS = [0.25, *(float(year) for year in range(1, 81))]


class Brightness(nn.Module):
    """Stands in for a backbone: one feature, the mean level."""

    features = 1

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        return levels.mean(dim=(1, 2, 3)).unsqueeze(1)  # (B, 1)


def network(years: list[float] = DEX_YEARS, size: int = 8) -> AgeNetwork:
    return AgeNetwork(Brightness(), years, size).eval()


def quantile_by_numpy(probabilities: np.ndarray, years: list[float], share: float) -> float:
    """The inverse of the piecewise linear distribution function, in float64 and by interpolation."""
    middles = (np.array(years[1:]) + np.array(years[:-1])) / 2
    first = max(0.0, years[0] - (middles[0] - years[0]))
    edges = np.concatenate([[first], middles, [years[-1] + (years[-1] - middles[-1])]])
    return float(np.interp(share, np.concatenate([[0.0], np.cumsum(probabilities)]), edges))


def as_rows(*rows: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.stack(rows), dtype=torch.float64)


def answers_of(probabilities: torch.Tensor, years: list[float] = DEX_YEARS) -> tuple[torch.Tensor, ...]:
    """What the network answers when its soft-max is exactly this: the logarithm undoes it."""
    return network(years).double().answers(probabilities.clamp(min=1e-300).log())


@pytest.mark.parametrize("years", [DEX_YEARS, PUBLIC_YEARS], ids=["dex", "public"])
def test_one_hot_at_a_class_gives_exactly_its_year(years):
    ages = expectation(torch.eye(len(years)), torch.tensor(years))
    assert ages.tolist() == years


def test_one_hot_logits_give_exactly_the_year():
    """Through the soft-max: 200 above the rest leaves nothing to the others in float32. (i + 1)·p would be one more."""
    age, _, _, probabilities = network().answers(200 * torch.eye(101))
    assert age.tolist() == DEX_YEARS
    assert torch.equal(probabilities, torch.eye(101))


def test_uniform_gives_fifty():
    age, low, high, probabilities = network().double().answers(torch.zeros(1, 101, dtype=torch.float64))
    assert age.item() == pytest.approx(50.0, abs=1e-12)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)
    # A tenth of 101 cells is 10.1: ten whole ones end at 9.5, and a tenth of the eleventh; the other end mirrors it,
    # but the first cell begins at 0, half as wide, which moves nothing beyond itself.
    assert low.item() == pytest.approx(9.6, abs=1e-9)
    assert high.item() == pytest.approx(90.4, abs=1e-9)


def test_expectation_by_hand():
    """.3·22 + .3·23 + .2·24 + .1·25 + .1·26 = 6.6 + 6.9 + 4.8 + 2.5 + 2.6."""
    probabilities = np.zeros(101)
    probabilities[22:27] = [0.3, 0.3, 0.2, 0.1, 0.1]
    age, low, high, _ = answers_of(as_rows(probabilities))
    assert age.item() == pytest.approx(23.4, abs=1e-9)
    assert low.item() == pytest.approx(21.5 + 1 / 3, abs=1e-9)  # a third of the cell of 22
    assert high.item() == pytest.approx(25.5, abs=1e-9)  # the cells up to 25 hold nine tenths


@pytest.mark.parametrize("index", [0, 1, 40, 99, 100])
def test_interval_of_one_hot_is_the_middle_of_its_cell(index):
    _, low, high, _ = answers_of(as_rows(np.eye(101)[index]))
    lower, upper = class_edges(DEX_YEARS)[index : index + 2]
    assert low.item() == pytest.approx(lower + 0.1 * (upper - lower), abs=1e-9)
    assert high.item() == pytest.approx(lower + 0.9 * (upper - lower), abs=1e-9)


def test_edges_lie_halfway_and_nobody_is_younger_than_zero():
    assert class_edges([0.0, 1.0, 2.0]) == [0.0, 0.5, 1.5, 2.5]
    assert class_edges([10.0, 20.0, 40.0]) == [5.0, 15.0, 30.0, 50.0]
    assert class_edges(PUBLIC_YEARS)[:3] == [0.0, 0.625, 1.5]
    assert class_edges(PUBLIC_YEARS)[-1] == 80.5


@pytest.mark.parametrize("years", [[], [3.0], [1.0, 1.0], [2.0, 1.0], [0.0, 5.0, 4.0]], ids=str)
def test_years_that_do_not_ascend_are_refused(years):
    with pytest.raises(ValueError, match="ascending"):
        class_edges(years)


distributions = st.lists(st.floats(1e-6, 1), min_size=3, max_size=40).map(lambda p: np.array(p) / np.sum(p))


@given(distributions, st.floats(0.01, 0.99), st.floats(0.3, 12), st.floats(0, 30))
def test_quantile_is_the_inverse_of_the_distribution(probabilities, share, step, first):
    years = [first + step * i for i in range(len(probabilities))]
    edges = torch.tensor(class_edges(years), dtype=torch.float64)
    found = quantile(as_rows(probabilities), edges, share).item()
    assert found == pytest.approx(quantile_by_numpy(probabilities, years, share), abs=1e-7 * years[-1])


@given(distributions, st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6))
def test_quantile_rises_with_the_share(probabilities, shares):
    edges = torch.tensor(class_edges([float(y) for y in range(len(probabilities))]))
    row = torch.tensor(probabilities, dtype=torch.float32)[None]
    ages = [quantile(row, edges, share).item() for share in sorted(shares)]
    assert ages == sorted(ages)
    assert edges[0] <= ages[0]
    assert ages[-1] <= edges[-1]


@given(st.lists(st.floats(-80, 80), min_size=101, max_size=101))
def test_low_lies_below_high_whatever_the_logits(logits):
    age, low, high, probabilities = network().answers(torch.tensor([logits]))
    assert torch.isfinite(torch.stack([age, low, high])).all()
    assert 0 <= low.item() <= high.item() <= 100.5
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)


@given(distributions)
def test_four_fifths_lie_between(probabilities):
    """The mass between the two answers, by the piecewise linear distribution function."""
    years = [float(y) for y in range(len(probabilities))]
    _, low, high, _ = answers_of(as_rows(probabilities), years)
    edges, cumulative = class_edges(years), np.concatenate([[0.0], np.cumsum(probabilities)])
    between = np.interp(high.item(), edges, cumulative) - np.interp(low.item(), edges, cumulative)
    assert between == pytest.approx(0.8, abs=1e-7)


def test_quantile_does_not_jump_between_cells():
    """Where a cell's end holds exactly a tenth, a hair more or less must move the answer by a hair."""
    edges = torch.tensor(class_edges(DEX_YEARS), dtype=torch.float64)
    exact = np.zeros(101)
    exact[20], exact[21], exact[60] = 0.1, 0.4, 0.5
    ages = []
    for change in (-1e-9, 0.0, 1e-9):
        moved = exact.copy()
        moved[20] += change
        moved[21] -= change
        ages.append(quantile(as_rows(moved), edges, 0.1).item())
    assert ages == pytest.approx([20.5] * 3, abs=1e-7)


def test_a_forward_pass_resizes_and_answers_in_the_declared_shapes():
    torch.manual_seed(0)
    faces = torch.randint(0, 256, (3, 31, 17, 3), dtype=torch.uint8)
    age, low, high, probabilities = network()(faces)
    assert (age.shape, low.shape, high.shape, probabilities.shape) == ((3,), (3,), (3,), (3, 101))
    assert {t.dtype for t in (age, low, high, probabilities)} == {torch.float32}


def test_the_network_sees_levels_in_rgb_order():
    """A backbone that looks at one channel only must get that channel's level, unscaled."""

    class OneChannel(nn.Module):
        features = 3

        def forward(self, levels):
            return levels.mean(dim=(2, 3))  # (B, 3)

    net = AgeNetwork(OneChannel(), [0.0, 1.0, 2.0], 4).eval()
    nn.init.eye_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    face = torch.zeros(1, 9, 9, 3, dtype=torch.uint8)
    face[..., 0], face[..., 1], face[..., 2] = 10, 12, 9
    expected = torch.tensor([[10.0, 12.0, 9.0]]).softmax(1)
    torch.testing.assert_close(net(face)[3], expected, atol=1e-5, rtol=0)


def test_sharpness_multiplies_the_scores():
    """The inverse of a temperature: soft-max of twice the scores is the square of the soft-max, normalised."""
    net = network()
    logits = torch.randn(3, 101, generator=torch.Generator().manual_seed(1))
    plain = net.answers(logits)[3]
    net.sharpness.fill_(2.0)
    age, _, _, sharp = net.answers(logits)
    squared = plain.square() / plain.square().sum(dim=1, keepdim=True)
    torch.testing.assert_close(sharp, squared)
    torch.testing.assert_close(age, squared @ net.years)
    assert "sharpness" in net.state_dict()


def test_dropout_works_while_training_only():
    net = AgeNetwork(Brightness(), DEX_YEARS, 8, dropout=0.9)
    levels = torch.full((64, 3, 8, 8), 100.0)
    torch.manual_seed(0)
    assert net.train().logits(levels).std(dim=0).max() > 0
    assert net.eval().logits(levels).std(dim=0).max() == 0
