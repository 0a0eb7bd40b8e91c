"""Figures: what is drawn is what was given."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest

from edgedl.figures.curves import curves, save_curves
from edgedl.figures.distribution import age_distribution
from edgedl.figures.errors import error_bands, errors_by_band, write_bands
from edgedl.figures.style import save_figure
from runtime.errors import InputError

HISTORY = [
    {
        "epoch": epoch, "step": 10 * epoch, "seconds": 3.0 * epoch, "lr": 0.1,
        "train_loss": 3 / epoch, "validation_loss": 3.3 / epoch, "MAE": abs(epoch - 4) + 5, "CS@5": 0.1 * epoch,
    }
    for epoch in range(1, 6)
]  # fmt: skip


def lines(axes) -> dict[str, list[tuple[float, float]]]:
    return {
        line.get_label(): [tuple(point) for point in line.get_xydata()]
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def test_curves_draw_each_series_against_the_epoch(tmp_path):
    figure = save_curves(HISTORY, tmp_path / "curves.png")
    loss, error, share = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "MAE (years)", "CS@5 (share)"]
    assert all(axes.get_xlabel() == "epoch" for axes in figure.axes)
    assert lines(loss) == {
        "train loss": [(row["epoch"], row["train_loss"]) for row in HISTORY],
        "validation loss": [(row["epoch"], row["validation_loss"]) for row in HISTORY],
    }
    assert lines(error)["MAE"] == [(row["epoch"], row["MAE"]) for row in HISTORY]
    assert error.get_title() == "best 5 in epoch 4"
    assert share.get_title() == "best 0.5 in epoch 5"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train loss", "validation loss"]
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["MAE"]) for row in rows] == [row["MAE"] for row in HISTORY]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curves.csv", "curves.png"]


def test_sets_share_the_panel_of_their_measure():
    rows = [{**row, "crop/MAE": row["MAE"] - 1, "aligned/MAE": row["MAE"] + 1} for row in HISTORY]
    panel = curves(rows).axes[1]
    assert set(lines(panel)) == {"MAE", "crop/MAE", "aligned/MAE"}


def test_one_epoch_is_visible_and_none_is_refused():
    assert curves(HISTORY[:1]).axes[0].get_lines()[0].get_marker() == "o"
    with pytest.raises(InputError, match="no epoch has ended"):
        curves([])


def test_distribution_marks_the_interval():
    years = np.arange(101)
    probabilities = np.exp(-((years - 30) ** 2) / 50)
    probabilities /= probabilities.sum()
    axes = age_distribution(probabilities, years, age=30.2, low=24, high=36, truth=33).axes[0]
    heights = {round(bar.get_x() + bar.get_width() / 2): (bar.get_height(), bar.get_alpha()) for bar in axes.patches}
    assert len(heights) == 101
    assert heights[30][0] == pytest.approx(probabilities[30])
    assert {year for year, (_, alpha) in heights.items() if alpha > 0.5} == set(range(24, 37))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(labels) == ["age 30.2", "central 80 %: 24–36", "true age 33"]
    with pytest.raises(InputError, match="one probability per year"):
        age_distribution(probabilities[:-1], years, age=1, low=0, high=2)


def test_errors_by_band_by_hand(tmp_path):
    rows = errors_by_band([3, 4, 25, 29, 30, 116], [5, 3, 30, 28, 30, 100])
    found = {(row.low, row.high): (row.count, row.mean_absolute_error, row.mean_error) for row in rows if row.count}
    assert found == {
        (0, 3): (1, 2.0, 2.0),
        (4, 12): (1, 1.0, -1.0),
        (20, 29): (2, 3.0, 2.0),
        (30, 39): (1, 0.0, 0.0),
        (70, 119): (1, 16.0, -16.0),
    }
    axes = error_bands(rows).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [2, 1, 3, 0, 16]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0–3", "4–12", "20–29", "30–39", "70–119"]
    assert [text.get_text() for text in axes.texts] == ["n=1", "n=1", "n=2", "n=1", "n=1"]
    write_bands(rows, tmp_path / "bands.csv")
    with (tmp_path / "bands.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 9
    assert table[0] == {"low": "0", "high": "3", "count": "1", "MAE": "2.0000", "mean_error": "2.0000"}
    assert table[2]["MAE"] == ""


@pytest.mark.parametrize(
    ("ages", "predicted"),
    [([1, 2], [1]), ([], []), ([130], [100]), ([-1], [3])],
    ids=["lengths", "none", "old", "young"],
)
def test_errors_that_cannot_be_sorted(ages, predicted):
    with pytest.raises(InputError):
        errors_by_band(ages, predicted)


def test_a_saved_figure_is_the_same_file_each_time(tmp_path):
    first = save_figure(curves(HISTORY), tmp_path / "a.png").read_bytes()
    assert first == save_figure(curves(HISTORY), tmp_path / "b.png").read_bytes()
    assert first.startswith(b"\x89PNG")


def test_no_window_system_is_touched():
    modules = "edgedl.figures.curves, edgedl.figures.errors, edgedl.figures.distribution"
    code = f"import sys, {modules}; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
