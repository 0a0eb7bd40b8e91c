"""The answer to a call with an empty dimension: no rows, or no steps.

ONNX Runtime aborts the process on some of these calls (LSTM and GRU without rows, GRU without steps) and answers others
from memory that nobody wrote (the state of an LSTM after no steps). So the answer is worked out here, from the
signature alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.axes import step_name
from runtime.manifest import ModelSpec


def empty_answers(
    spec: ModelSpec, sizes: Mapping[str, int], inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
) -> dict[str, NDArray[Any]] | None:
    """What the signature says about the outputs of a call with an empty dimension.

    An output with an empty dimension holds nothing. A state that ran over no steps is what it was.

    Args:
        spec: of the model.
        sizes: of the named dimensions.
        inputs: by name, as far as they are there.
        outputs: names.

    Returns:
        The outputs by name; None if one of them does not follow from the signature, such as a sum over no elements.
    """
    shapes = {tensor.name: tensor for tensor in spec.outputs}
    before = {state.output: state.input for state in spec.state}
    # Only the steps may be missing: a model may well change its state on another input that is empty.
    stands = [name for name, size in sizes.items() if size == 0] == [step_name(spec)]
    answers: dict[str, NDArray[Any]] = {}
    for name in outputs:
        tensor = shapes[name]
        shape = [sizes.get(size) if isinstance(size, str) else size for size in tensor.shape]
        if 0 in shape and None not in shape:
            answers[name] = np.empty(shape, object if tensor.dtype == "string" else tensor.dtype)  # type: ignore[arg-type]
        elif stands and before.get(name) in inputs:
            answers[name] = inputs[before[name]].copy()
        else:
            return None
    return answers
