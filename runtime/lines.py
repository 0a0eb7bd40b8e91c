"""Steps of a stream as people write them, a line of numbers or JSON, and the model's answers to them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.engine import Engine
from runtime.errors import InputError
from runtime.signature import TensorSpec
from runtime.values import as_array

LONGEST_LINE = 1 << 20
"""Characters."""


class LineStream:
    """Answers lines of text, each a step of one row, with the state carried from line to line.

    A line holds the values of a step: numbers between blanks or commas, or a JSON list. Where the model has several
    inputs, it is a JSON object with a list, or a number, for each.

    Args:
        engine: of a model that declares what it carries.

    Raises:
        InputError: the model carries nothing, or one of its inputs is text.
    """

    def __init__(self, engine: Engine) -> None:
        self.stream = engine.stream()
        carried = {spec.input for spec in engine.spec.state}
        self._specs = [spec for spec in engine.spec.inputs if spec.name not in carried]
        self._outputs = {spec.name: spec.shape for spec in engine.spec.outputs}
        for spec in self._specs:
            if spec.dtype == "string":
                raise InputError(f"{engine.name}: the input {spec.name} is text; lines hold numbers")

    def answer(self, line: str) -> dict[str, Any]:
        """The outputs of one step by name: a number, or nested lists without the axes of batch and time.

        Raises:
            InputError: the line does not hold a step; the state stays as it was.
        """
        return self.run(self.inputs(line_values(line)))

    def inputs(self, values: Any) -> dict[str, NDArray[Any]]:
        """The arrays of one step, from a list of its values or, by name, from a mapping.

        Raises:
            InputError: they are no step.
        """
        if not isinstance(values, Mapping):
            if len(self._specs) != 1:
                names = ", ".join(spec.name for spec in self._specs)
                raise InputError(f"a step has the inputs {names}; give a JSON object with numbers for each")
            values = {self._specs[0].name: values}
        known = {spec.name for spec in self._specs}
        if values.keys() != known:
            found = ", ".join(map(str, values)) or "none"
            raise InputError(f"a step has the inputs {', '.join(sorted(known))}, found {_cut(found)}")
        return {spec.name: _array(spec, values[spec.name]) for spec in self._specs}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Answers one step that `inputs` gave; see `answer`."""
        return self.run_all([inputs])[0]

    def run_all(self, steps: Sequence[Mapping[str, NDArray[Any]]]) -> list[dict[str, Any]]:
        """Answers several steps that `inputs` gave: all of them or none.

        Raises:
            InputError: a step is refused; the state is what it was before the first one.
        """
        return [
            {name: _without_named(value, self._outputs[name]) for name, value in answers.items()}
            for answers in self.stream.steps(steps)
        ]


def line_values(line: str) -> Any:
    """The values of a step that a line holds, for `LineStream.inputs`: a list, or a mapping by input.

    Raises:
        InputError: it holds neither numbers nor JSON, or is too long.
    """
    if len(line) > LONGEST_LINE:
        raise InputError(f"a line of {len(line)} characters, at most {LONGEST_LINE} are read")
    text = line.strip()
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{_cut(line)} is no JSON: {error}") from error
    return [_number(word, line) for word in text.replace(",", " ").split()]


def _number(word: str, line: str) -> float:
    try:
        if "_" in word:  # Python's own way to write 1_000
            raise ValueError
        return int(word) if word.lstrip("+-").isdecimal() else float(word)
    except ValueError:
        raise InputError(f"{_cut(word)} in {_cut(line)} is no number") from None


def _array(spec: TensorSpec, values: Any) -> NDArray[Any]:
    """One step of one row: every axis with a name has one entry."""
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    if spec.dtype == "bool" and isinstance(values, list):  # a line of text has no other words for them
        values = [bool(value) if type(value) in (int, float) and value in (0, 1) else value for value in values]
    array = as_array(spec, values)
    if array.size != math.prod(shape):
        raise InputError(f"{spec.name}: a step has {math.prod(shape)} numbers, the line has {array.size}")
    return array.reshape(shape)


def _without_named(value: NDArray[Any], shape: tuple[int | str, ...]) -> Any:
    sizes = [found for found, size in zip(value.shape, shape, strict=True) if isinstance(size, int) or found != 1]
    value = value.reshape(sizes)
    if value.dtype in (np.float16, np.float32):
        # As short as their own type says them: 0.1, not 0.10000000149011612.
        return value.astype(str).astype(np.float64).tolist()
    return value.tolist()


def _cut(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 60 else f"{text[:60]} …")
