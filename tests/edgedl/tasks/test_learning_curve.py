"""How techniques scale with the amount of data: the draws, the trainings, the picture and its page."""

from __future__ import annotations

import csv
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgedl.data.digits import embedded_digits
from edgedl.tasks.digits import learning_curve
from edgedl.tasks.digits.figure import learning_curves
from edgedl.tasks.digits.learning_curve import SIZES, TECHNIQUES, Repeated, Trained, nested_order, train_all
from runtime.errors import InputError

DOCS = Path(__file__).parents[3] / "docs"
LABELS = embedded_digits("train").labels


@pytest.mark.parametrize("digits", SIZES)
def test_every_draw_is_stratified_and_holds_the_smaller_ones(digits):
    order = nested_order(LABELS, 3)
    assert sorted(order) == list(range(len(LABELS)))
    found = np.bincount(LABELS[order[:digits]], minlength=10)
    assert np.abs(found - digits * np.bincount(LABELS) / len(LABELS)).max() <= 1


def test_draws_differ_and_the_last_size_is_all_digits():
    assert set(nested_order(LABELS, 0)[:50]) != set(nested_order(LABELS, 1)[:50])
    assert np.array_equal(nested_order(LABELS, 0), nested_order(LABELS, 0))
    assert SIZES[-1] == len(LABELS)


def test_a_pass_shows_each_digit_once():
    batches = Repeated({"label": np.arange(6)}, 4, 3, seed=0)
    seen = np.concatenate([batch["label"].numpy() for batch in batches])
    assert len(seen) == 12
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6].tolist() != seen[6:].tolist()


@pytest.fixture(scope="module")
def trained() -> list[Trained]:
    return list(train_all((50, 800), 1, 60))


def test_more_digits_are_read_better(trained):
    weights = {one.technique: one.weights for one in trained}
    assert list(weights) == list(TECHNIQUES)
    assert weights["logistic regression"] == 10 * (64 + 1)
    assert list(weights.values()) == sorted(weights.values())
    for few, many in zip(trained[::2], trained[1::2], strict=True):
        assert (few.digits, many.digits, few.tested) == (50, 800, 359)
        assert many.wrong < few.wrong < 0.7 * 359  # chance is 0.9


def test_equal_draws_give_equal_networks(trained, monkeypatch):
    monkeypatch.setattr(learning_curve, "TECHNIQUES", {"logistic regression": TECHNIQUES["logistic regression"]})
    assert list(train_all((50,), 1, 60)) == trained[:1]


def test_the_picture_shows_medians_and_all_that_was_drawn():
    errors = {"a": {100: [4.0, 2.0, 3.0], 50: [8.0, 5.0, 9.0]}, "b": {50: [1.0, 2.0, 3.0], 100: [0.0, 0.0, 1.0]}}
    (axes,) = learning_curves(errors, least=0.1).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[50, 8], [100, 3]], [[50, 2], [100, 0.1]]]
    assert [band.get_paths()[0].get_extents().intervaly.tolist() for band in axes.collections] == [[2, 9], [0.1, 3]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training digits", "test digits read wrongly (%)")
    with pytest.raises(InputError, match="no technique has been trained"):
        learning_curves({}, least=0.1)


def test_the_command_writes_the_picture_and_its_numbers(call, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_curve, "TECHNIQUES", {"logistic regression": TECHNIQUES["logistic regression"]})
    monkeypatch.setattr(learning_curve, "train_all", partial(train_all, (50, 100), 2, 5))
    status, out, err = call("plot", "digits", "--learning-curve", "-o", tmp_path / "a.png")
    assert (status, out) == (0, f"{tmp_path / 'a.png'}\n")
    assert "epoch" not in err
    assert (tmp_path / "a.png").stat().st_size > 1000
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["digits"], row["draw"]) for row in rows] == [("50", "0"), ("50", "1"), ("100", "0"), ("100", "1")]


@pytest.mark.parametrize(
    ("source", "output", "why"),
    [
        ("runs/1", "a.png", "reads no run, found runs/1"),
        ("digits", "nowhere/a.png", "nowhere, the folder of the picture"),
    ],
    ids=["run", "folder"],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_trained(call, monkeypatch, source, output, why):
    monkeypatch.setattr(learning_curve, "train_all", None)  # whoever calls it fails
    status, out, err = call("plot", source, "--learning-curve", "-o", output)
    assert (status, out) == (2, "")
    assert why in err


def test_the_table_of_the_page_is_the_one_beside_the_picture():
    found: dict[tuple[str, str], list[float]] = {}
    for row in csv.DictReader((DOCS / "learning-curve.csv").read_text(encoding="utf-8").splitlines()):
        found.setdefault((row["technique"], f"{int(row['digits']):,}"), []).append(
            100 * int(row["wrong"]) / int(row["tested"])
        )
    page = (DOCS / "learning-curve.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    names, *table = next(rows[n:] for n, row in enumerate(rows) if row[0] == "training digits")
    shown = {
        (name.partition(",")[0], size): cell
        for size, *cells in table[: len(SIZES)]
        for name, cell in zip(names[1:], cells, strict=True)
    }
    assert shown == {
        key: f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        for key, values in found.items()
    }
    assert {len(values) for values in found.values()} == {5}
