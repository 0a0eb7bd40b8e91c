"""Figures: what is drawn is what was given."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest

from edgedl.figures.curves import curves, save_curves
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


def test_a_saved_figure_is_the_same_file_each_time(tmp_path):
    first = save_figure(curves(HISTORY), tmp_path / "a.png").read_bytes()
    assert first == save_figure(curves(HISTORY), tmp_path / "b.png").read_bytes()
    assert first.startswith(b"\x89PNG")


def test_no_window_system_is_touched():
    code = "import sys, edgedl.figures.curves; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
