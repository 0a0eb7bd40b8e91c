"""The embedded digits and their parts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgedl.data.digits import embedded_digits, split_rows
from runtime.errors import InputError


def test_the_pixels_are_scikit_learns():
    part, loaded = embedded_digits("all"), load_digits()
    assert part.pixels.shape == (1797, 8, 8, 3)
    np.testing.assert_array_equal(np.rint(part.pixels[..., 1] / 255 * 16), loaded.images)
    np.testing.assert_array_equal(part.labels, loaded.target)


def test_the_parts_are_stratified_and_share_nothing():
    labels = embedded_digits("all").labels
    rows = split_rows(labels)
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(1797))
    counts = np.bincount(labels)
    np.testing.assert_array_equal(np.bincount(labels[rows["test"]]), np.rint(counts / 5))
    assert [len(embedded_digits(name)) for name in ("train", "val", "test")] == [1295, 143, 359]
    assert set(np.bincount(labels[rows["val"]])) <= {14, 15}


def test_the_split_does_not_depend_on_chance():
    assert split_rows(embedded_digits("all").labels)["test"][:5].tolist() == FIRST_TEST_ROWS


FIRST_TEST_ROWS = [1, 24, 28, 30, 31]


def test_an_unknown_part_is_refused():
    with pytest.raises(InputError, match="no part 'dev'; there is train, val, test, all"):
        embedded_digits("dev")
