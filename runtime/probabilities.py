"""Soft-max and one-hot: between class numbers and probabilities, with numpy alone.

Bundles give probabilities already; these are for what is done beside them: logits from another graph, targets for a
cost, the slide's own example::

    softmax([3.0, 1.0, 0.2], axis=-1)    [.8360188, .11314284, .05083836]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.errors import InputError


def softmax(logits: ArrayLike, *, axis: int) -> NDArray[np.floating]:
    """The soft-max exp(zₖ) / Σⱼ exp(zⱼ) along one axis.

    The maximum along the axis is subtracted first. That changes nothing in the quotient, and no exponential overflows:
    exp(1000) is infinite in float64, and infinite over infinite is no number.

    Args:
        logits: of any shape; whole numbers are taken as float64. A logit of -inf has the probability 0.
        axis: the one along which the answers sum to 1. It has no default: with (classes, samples) instead of
            (samples, classes), a default would be silently wrong.

    Returns:
        The logits' shape, in their own floating-point type (float64 for whole numbers).

    Raises:
        InputError: the logits are no numbers or have NaN or +inf among them, the axis is not there or is empty, or all
            logits along it are -inf.
    """
    numbers = _numbers(logits)
    if not -numbers.ndim <= axis < numbers.ndim:
        raise InputError(f"soft-max along axis {axis}: the logits have the shape {numbers.shape}")
    if numbers.shape[axis] == 0:
        raise InputError(f"soft-max along axis {axis} of the shape {numbers.shape}: there is no class to choose from")
    if np.isnan(numbers).any() or np.isposinf(numbers).any():
        raise InputError("soft-max: the logits hold NaN or +inf, so no probability is defined")
    largest = numbers.max(axis=axis, keepdims=True)
    if np.isneginf(largest).any():
        raise InputError("soft-max: where all logits are -inf, no probability is defined")
    powers = np.exp(numbers - largest)
    found: NDArray[np.floating] = powers / powers.sum(axis=axis, keepdims=True)
    return found


def one_hot(labels: ArrayLike, classes: int) -> NDArray[np.float32]:
    """A 1 at each label and 0 elsewhere, along a new last axis.

    Args:
        labels: whole numbers 0 … classes - 1, of any shape.
        classes: how many there are.

    Returns:
        float32, the shape of the labels with ``classes`` behind it.

    Raises:
        InputError: a label is no whole number or none of the classes. A negative one does not count from the end.
    """
    if classes < 1:
        raise InputError(f"one-hot: there must be at least 1 class, not {classes}")
    numbers = np.asarray(labels)
    if numbers.size == 0 and numbers.dtype.kind == "f":  # an empty list has no other type
        numbers = numbers.astype(np.int64)
    if numbers.dtype.kind not in "iu":
        raise InputError(f"one-hot: labels are whole numbers, found {numbers.dtype}")
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < classes):
        raise InputError(f"one-hot: labels are 0 … {classes - 1}, found {numbers.min()} … {numbers.max()}")
    found: NDArray[np.float32] = (numbers[..., None] == np.arange(classes)).astype(np.float32)
    return found


def _numbers(logits: ArrayLike) -> NDArray[np.floating]:
    try:
        numbers = np.asarray(logits)
    except ValueError as error:
        raise InputError(f"soft-max: the logits are no array: {error}") from error
    if numbers.dtype.kind in "iu":
        return numbers.astype(np.float64)
    if numbers.dtype.kind != "f":
        raise InputError(f"soft-max: logits are real numbers, found {numbers.dtype}")
    return numbers
