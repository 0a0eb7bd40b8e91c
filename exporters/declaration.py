"""Declarations as text, for the command line: ``x: float32[B, T=1..512, 24] in 0..1``.

A dimension is a number or a name. A name may say its sizes: ``T=1..512``, ``T=1..`` without an upper end, and
``H=32..1024/32`` for the multiples of 32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np

from exporters.spec import Case, Decision, Dimension, Input, Output
from runtime.errors import InputError
from runtime.manifest import DimensionSpec, StateSpec
from runtime.npy import load_npz
from runtime.signature import DTYPES

_TENSOR = re.compile(r"\s*(?P<name>[^:\s]+)\s*:\s*(?P<dtype>\w+)\s*\[(?P<shape>[^\]]*)\]\s*(?P<rest>.*?)\s*")
_DIMENSION = re.compile(
    r"(?P<name>[A-Za-z_]\w*)(\s*=\s*(?P<low>\d+)\s*\.\.\s*(?P<high>\d+)?(\s*/\s*(?P<multiple>\d+))?)?"
)
_LIMITS = re.compile(r"in\s+(?P<low>[-+.\deE]+?)\.\.(?P<high>[-+.\deE]+)")

INPUT_FORM = "NAME: DTYPE[DIMENSIONS], e.g. 'x: float32[B, T=1..512, 24] in 0..1'"
OUTPUT_FORM = "NAME: DTYPE[DIMENSIONS], e.g. 'scores: float32[B, 10] argmax'"


def parse_input(text: str) -> tuple[Input, dict[str, DimensionSpec]]:
    """An input and the sizes that its dimensions were given.

    Raises:
        InputError: the text has another form.
    """
    name, dtype, shape, sizes, rest = _tensor(text, INPUT_FORM)
    limits = None
    if rest:
        found = _LIMITS.fullmatch(rest)
        try:
            limits = (float(found["low"]), float(found["high"])) if found else None
        except ValueError:
            limits = None
        if limits is None or not limits[0] <= limits[1]:
            raise InputError(f"{rest!r} in {text!r} is no range of values; expected {INPUT_FORM}")
    return Input(name, dtype, shape, limits=limits), sizes


def parse_output(text: str) -> tuple[Output, dict[str, DimensionSpec]]:
    """An output and the sizes that its dimensions were given. Behind it may stand a decision, and ``nan``.

    Raises:
        InputError: the text has another form.
    """
    name, dtype, shape, sizes, rest = _tensor(text, OUTPUT_FORM)
    decision: Decision | None = None
    nan = False
    for word in rest.split():
        if word == "nan":
            nan = True
        elif word in get_args(Decision):
            decision = next(known for known in get_args(Decision) if known == word)
        else:
            raise InputError(f"{word!r} in {text!r} is none of {', '.join(get_args(Decision))} and nan")
    return Output(name, dtype, shape, decision=decision, nan=nan), sizes


def parse_state(text: str, inputs: Sequence[Input]) -> StateSpec:
    """A carried state, ``h0=hn``: the input and the output.

    Raises:
        InputError: the text has another form, or there is no such input.
    """
    given, _, left = text.partition("=")
    for tensor in inputs:
        if tensor.name == given.strip() and left.strip():
            return StateSpec(tensor.name, left.strip(), tensor.shape, tensor.dtype)
    raise InputError(
        f"a state is INPUT=OUTPUT, e.g. h0=hn, not {text!r}; inputs are {', '.join(t.name for t in inputs)}"
    )


def parse_sizes(texts: Iterable[str]) -> dict[str, list[int]]:
    """Sizes to sweep, ``T=1,7,33``, by dimension.

    Raises:
        InputError: a text has another form.
    """
    sizes: dict[str, list[int]] = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            sizes[name.strip()] = [int(number) for number in numbers.split(",")]
        except ValueError:
            raise InputError(f"sizes are NAME=N,N,…, e.g. T=1,7,33, not {text!r}") from None
    return sizes


def read_sample(path: str, inputs: Sequence[Input], outputs: Sequence[Output] = ()) -> tuple[Case, dict[str, Any]]:
    """A real case from a ``.npz`` file with an array for each input, and the answers that stand beside them.

    Args:
        path: The file.
        inputs: As declared.
        outputs: What answers may be there, for all of them or for none.

    Raises:
        InputError: the file cannot be read, or holds other arrays.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a name as it was typed
            arrays = load_npz(file.read())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    names, answers = [tensor.name for tensor in inputs], [tensor.name for tensor in outputs]
    if sorted(arrays) not in (sorted(names), sorted([*names, *answers])):
        expected = ", ".join(names) + (f", and {', '.join(answers)} or none of these" if answers else "")
        raise InputError(f"{path} holds the arrays {', '.join(arrays) or 'none'}; expected {expected}")
    case = Case(f"sample {path.replace('/', ' ')}", {name: np.asarray(arrays[name]) for name in names})
    return case, {name: np.asarray(arrays[name]) for name in answers if name in arrays}


def _tensor(text: str, form: str) -> tuple[str, str, tuple[Dimension, ...], dict[str, DimensionSpec], str]:
    found = _TENSOR.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is no declaration; expected {form}")
    if found["dtype"] not in DTYPES - {"string"}:
        raise InputError(f"{found['dtype']!r} in {text!r} is no type; expected one of {', '.join(sorted(DTYPES))}")
    shape: list[Dimension] = []
    sizes: dict[str, DimensionSpec] = {}
    for part in found["shape"].split(",") if found["shape"].strip() else ():
        part = part.strip()
        if part.isdecimal():
            shape.append(int(part))
            continue
        dimension = _DIMENSION.fullmatch(part)
        if dimension is None:
            raise InputError(
                f"{part!r} in {text!r} is no dimension; expected a number, a name, or a name with sizes, T=1..512"
            )
        shape.append(dimension["name"])
        if dimension["low"] is not None:
            high = None if dimension["high"] is None else int(dimension["high"])
            limits = DimensionSpec(int(dimension["low"]), high, int(dimension["multiple"] or 1))
            if (high is not None and high < limits.min) or limits.multiple < 1:
                raise InputError(f"{part!r} in {text!r} holds no size")
            sizes[dimension["name"]] = limits
    return found["name"], found["dtype"], tuple(shape), sizes, found["rest"]
