"""The picture of the paths: what is drawn is what was recorded."""

from __future__ import annotations

import numpy as np
import pytest

from edgedl.tasks.sgd.figure import Descent, descent_figure
from edgedl.tasks.sgd.quadratic_cost import QuadraticCost
from runtime.errors import InputError

COST = QuadraticCost(np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([1.0, 0.5]), 2.0, 10)  # least at (1, 0)


def straight(label: str, group, points: int = 6) -> Descent:
    weights = np.linspace((-1.0, 1.0), (1.0, 0.0), points)
    return Descent(label, group, 10 * np.arange(points), weights, np.array([0.5, 0.25]) if group == "cost" else None)


def curve(axes, label: str) -> np.ndarray:
    return next(line for line in axes.get_lines() if line.get_label() == label).get_xydata()


def axes_by_title(figure):
    return {axes.get_title() or axes.get_xlabel(): axes for axes in figure.axes}


def test_each_group_has_its_surface_and_every_axis_its_unit():
    figure = descent_figure(COST, [straight("a", "step"), straight("b", "batch"), straight("c", "cost")])
    found = axes_by_title(figure)
    surfaces = [axes for axes in figure.axes if axes.get_ylabel() == "weight w₂ (N/mV)"]
    assert [axes.get_xlabel() for axes in surfaces] == ["weight w₁ (N/mV)"] * 3
    for axes, label in zip(surfaces, "abc", strict=True):
        np.testing.assert_array_equal(curve(axes, label), straight(label, "step").weights)
    assert surfaces[2].get_title().startswith("another cost")
    stars = [line.get_xydata().tolist() for line in surfaces[2].get_lines() if line.get_marker() == "*"]
    crosses = [line.get_xydata() for line in surfaces[0].get_lines() if line.get_marker() == "+"]
    assert stars == [[[0.5, 0.25]]]
    np.testing.assert_allclose(crosses, [[[1.0, 0.0]]], atol=1e-12)
    assert {"updates", "training samples seen"} <= found.keys()
    assert found["updates"].get_ylabel() == "cost above the least, J − J* (N²)"


def test_cost_is_drawn_against_updates_and_samples():
    path = straight("a", "step")
    figure = descent_figure(COST, [path, straight("c", "cost")])
    found = axes_by_title(figure)
    excess = 0.5 * np.einsum("ni,ij,nj->n", path.weights - [1, 0], COST.hessian, path.weights - [1, 0])
    for name, paid in (("updates", np.arange(6)), ("training samples seen", path.samples)):
        drawn = curve(found[name], "a")
        np.testing.assert_array_equal(drawn[:, 0], paid[1:])
        np.testing.assert_allclose(drawn[:-1, 1], excess[1:-1], atol=1e-12)  # the last is 0, drawn at the floor
        assert [line.get_label() for line in found[name].get_lines()] == ["a"]


def test_a_long_path_is_drawn_as_means():
    path = straight("a", "batch", 1001)
    drawn = curve(axes_by_title(descent_figure(COST, [path]))["updates"], "a")
    assert 20 <= len(drawn) <= 40
    assert (np.diff(drawn[:, 0]) > 0).all()
    assert (np.diff(drawn[:, 1]) < 0).all()


def test_penalised_paths_alone_are_drawn_too():
    figure = descent_figure(COST, [straight("c", "cost")])
    assert len(curve(axes_by_title(figure)["updates"], "c")) == 5


def test_without_paths_there_is_no_picture():
    with pytest.raises(InputError, match="no path"):
        descent_figure(COST, [])
