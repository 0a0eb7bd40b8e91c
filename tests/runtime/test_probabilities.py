"""Soft-max and one-hot: the slide's numbers, the identities, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime import one_hot, softmax
from runtime.errors import InputError

LOGITS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=5),
    elements=st.floats(-1e4, 1e4),
)


def test_the_slides_numbers():
    found = softmax([3.0, 1.0, 0.2], axis=-1)
    np.testing.assert_allclose(found, [0.8360188, 0.11314284, 0.05083836], rtol=0, atol=5e-9)


def test_large_logits_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        found = softmax(np.array([1003.0, 1001.0, 1000.2]), axis=0)
    np.testing.assert_allclose(found, [0.8360188, 0.11314284, 0.05083836], rtol=0, atol=5e-9)


def test_the_axis_is_the_one_named():
    # Two samples in columns: the same numbers along the other axis would give other answers.
    columns = np.array([[3.0, 1.0], [1.0, 1.0], [0.2, 1.0]])
    np.testing.assert_allclose(softmax(columns, axis=0)[:, 0], [0.8360188, 0.11314284, 0.05083836], atol=5e-9)
    np.testing.assert_allclose(softmax(columns, axis=0)[:, 1], 1 / 3)
    np.testing.assert_allclose(softmax(columns, axis=1)[1], 0.5)
    with pytest.raises(TypeError, match="axis"):
        softmax(columns)


@given(LOGITS, st.data())
def test_it_is_a_distribution_that_a_shift_does_not_change(logits, data):
    axis = data.draw(st.integers(-logits.ndim, logits.ndim - 1))
    found = softmax(logits, axis=axis)
    assert found.shape == logits.shape
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=axis), 1, rtol=1e-12)
    np.testing.assert_allclose(softmax(logits + 512.0, axis=axis), found, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(("dtype", "expected"), [("float32", "float32"), ("float64", "float64"), ("int64", "float64")])
def test_the_type_stays(dtype, expected):
    assert softmax(np.arange(3, dtype=dtype), axis=0).dtype == expected


def test_what_is_ruled_out_gets_nothing():
    np.testing.assert_array_equal(softmax([0.0, -np.inf, 0.0], axis=0), [0.5, 0.0, 0.5])


@pytest.mark.parametrize(
    ("logits", "axis", "why"),
    [
        ([1.0, np.nan], 0, "NaN or \\+inf"),
        ([1.0, np.inf], 0, "NaN or \\+inf"),
        ([-np.inf, -np.inf], 0, "all logits are -inf"),
        ([1.0, 2.0], 1, "shape \\(2,\\)"),
        (3.0, 0, "shape \\(\\)"),
        (np.zeros((2, 0)), 1, "no class"),
        (["a", "b"], 0, "real numbers"),
        ([1j], 0, "real numbers"),
        ([[1.0], [1.0, 2.0]], 0, "no array"),
    ],
    ids=["nan", "inf", "all -inf", "axis", "scalar", "empty", "text", "complex", "ragged"],
)
def test_what_has_no_softmax_is_refused(logits, axis, why):
    with pytest.raises(InputError, match=why):
        softmax(logits, axis=axis)


def test_one_hot():
    np.testing.assert_array_equal(one_hot([2, 0], 3), [[0, 0, 1], [1, 0, 0]])
    assert one_hot(np.array([[1], [2]], np.uint8), 4).shape == (2, 1, 4)
    assert one_hot(1, 2).tolist() == [0, 1]
    assert one_hot([], 3).shape == (0, 3)


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=6), elements=st.integers(0, 6)))
def test_one_hot_has_one_one_where_the_label_is(labels):
    found = one_hot(labels, 7)
    np.testing.assert_array_equal(found.argmax(axis=-1), labels)
    np.testing.assert_array_equal(found.sum(axis=-1), 1)


@pytest.mark.parametrize(
    ("labels", "classes", "why"),
    [([-1], 3, "0 … 2"), ([3], 3, "0 … 2"), ([1.0], 3, "float64"), ([True], 3, "bool"), ([0], 0, "at least 1")],
    ids=["negative", "too large", "float", "bool", "no classes"],
)
def test_labels_that_are_none_are_refused(labels, classes, why):
    with pytest.raises(InputError, match=why):
        one_hot(labels, classes)
