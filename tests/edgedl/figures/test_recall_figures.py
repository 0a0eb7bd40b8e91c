"""Figures of networks that remember: what is drawn is what was given, and each axis says what it is."""

from __future__ import annotations

import numpy as np
import pytest

from edgedl.tasks.gradients.recall_figure import BASELINE, Blocks, Network, blocks_figure, gradients_after_training
from runtime.errors import InputError

T, H = 12, 3


def network(kind: str, cell: bool) -> Network:
    chance = np.random.default_rng(len(kind))

    def quartiles() -> np.ndarray:
        return np.sort(10.0 ** -chance.uniform(0, 9, (3, T)), axis=0)

    errors = chance.random(4)
    return Network(kind, quartiles(), quartiles(), quartiles() if cell else None, errors, 100 * np.arange(1, 5))


def blocks() -> Blocks:
    chance = np.random.default_rng(0)
    inputs = np.zeros((T, 3))
    inputs[:, 0] = chance.uniform(-1, 1, T)
    inputs[[0, 6], 1], inputs[[4, 11], 2] = 1, 1
    gates = {name: chance.random((T, H)) for name in ("input", "forget", "output")}
    cell, left = chance.normal(size=(2, T, H))
    return Blocks(inputs, np.where(inputs[:, 2], 0.5, 0), chance.random(T), gates, cell, np.abs(left) * [1, 3, 2])


def test_each_network_has_a_panel_with_its_medians_and_all_share_one_of_errors():
    drawn = [network("rnn", False), network("gru", False), network("lstm", True)]
    figure = gradients_after_training(drawn, [4, 12])
    *panels, errors = figure.axes
    assert [axes.get_title() for axes in panels] == ["RNN", "GRU", "LSTM"]
    for one, axes in zip(drawn, panels, strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        np.testing.assert_allclose(lines["h, before training"].get_ydata(), one.before[1])
        np.testing.assert_allclose(lines["h, after"].get_ydata(), one.after[1])
        assert ("c, after" in lines) == (one.cell is not None)
        assert lines["asked"].get_xdata().tolist() == [4, 12]
        assert (axes.get_xlabel(), axes.get_yscale()) == ("t (steps)", "log")
        assert axes.get_ylabel().startswith("|∂h")
        assert {text.get_text() for text in axes.get_legend().get_texts()} == set(lines)
        low, high = axes.get_ylim()
        assert low < min(one.before.min(), one.after.min())
        assert high > max(one.before.max(), one.after.max())
    np.testing.assert_allclose(panels[2].lines[-1].get_ydata(), drawn[2].cell[1])
    assert (errors.get_xlabel(), errors.get_ylabel()) == ("updates", "MSE of what is asked")
    np.testing.assert_array_equal(errors.lines[1].get_ydata(), drawn[1].errors)
    assert errors.lines[-1].get_ydata()[0] == BASELINE


def test_two_networks_leave_no_empty_panel_and_none_is_refused():
    assert len(gradients_after_training([network("rnn", False), network("lstm", True)], [1]).axes) == 3
    with pytest.raises(InputError, match="no network to draw"):
        gradients_after_training([], [1])


def test_blocks_are_drawn_in_the_order_of_what_they_keep():
    shown = blocks()
    order = [1, 2, 0]
    assert shown.ordered().tolist() == order
    figure = blocks_figure(shown)
    what, *shades = [axes for axes in figure.axes if axes.get_ylabel().endswith("(block)") or axes.lines]
    assert [axes.get_ylabel().split("\n")[0] for axes in shades[:3]] == ["input gate", "forget gate", "output gate"]
    for axes, values in zip(shades, (*shown.gates.values(), shown.cell, shown.left), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), values[:, order].T)
    assert {axes.images[0].get_clim() for axes in shades[:3]} == {(0, 1)}
    assert shades[-1].get_xlabel() == "t (steps)"
    low, high = shades[3].images[0].get_clim()
    assert (low, high) == (-np.abs(shown.cell).max(), np.abs(shown.cell).max())
    lines = {line.get_label(): line for line in what.lines}
    np.testing.assert_array_equal(lines["answer"].get_ydata(), shown.answers)
    assert lines["store"].get_xdata().tolist() == [1, 7]
    assert lines["recall: target"].get_xdata().tolist() == [5, 12]
