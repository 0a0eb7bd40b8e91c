"""The cases that an exported graph is held against, the example it is traced with, and what is recorded of them.

A graph that is right at the size it was exported with proves little: the usual faults (a frozen axis, a constant
computed from the example's shape, an unrolled loop) show at other sizes only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import GuardError
from exporters.spec import Case, Input, Signature, bind_sizes
from runtime.engine import BATCH_NAMES
from runtime.manifest import DimensionSpec

BATCH_SIZES = (1, 2, 7, 32)
OTHER_SIZES = (1, 7, 33, 128)
"""One, odd, long: what a dimension is swept over when nothing is said about it."""

FURTHER_GUESSES = ((2, 4, 8, 16), (32, 64, 96, 128), (224, 448, 672))
"""Where torch refuses those: multiples of two, of thirty-two, and of the size of many classifiers."""

EXTREMES = (1e-6, 10.0, 30.0, 1e4)
"""Scales of normally distributed values: tiny ones, logits that saturate, and what nobody has scaled."""

MIN_GOLDEN = 8
MAX_GOLDEN = 12


def dimension_names(inputs: Iterable[Input]) -> tuple[str, ...]:
    """The named dimensions of the inputs, in the order in which they appear."""
    return tuple(dict.fromkeys(size for tensor in inputs for size in tensor.shape if isinstance(size, str)))


def default_sizes(
    inputs: Sequence[Input], given: Mapping[str, Sequence[int]], guess: Sequence[int] = OTHER_SIZES
) -> dict[str, tuple[int, ...]]:
    """The sizes of every named dimension: those given, else a guess in which no two dimensions agree.

    Raises:
        GuardError: sizes for a dimension that no input has.
    """
    names = dimension_names(inputs)
    strangers = sorted(set(given) - set(names))
    if strangers:
        raise GuardError(f"sizes are given for {', '.join(strangers)}; the inputs' dimensions are {', '.join(names)}")
    sizes: dict[str, tuple[int, ...]] = {}
    for name in names:
        if name in given:
            sizes[name] = tuple(int(size) for size in given[name])
        elif name in BATCH_NAMES:
            sizes[name] = BATCH_SIZES
        else:
            before = sum(other not in BATCH_NAMES for other in sizes)  # H and W must not be swapped unnoticed
            shifted = tuple(size + before * (2 if guess is OTHER_SIZES else guess[0]) for size in guess[1:])
            sizes[name] = (guess[0], *shifted)
    return sizes


def generate_cases(inputs: Sequence[Input], sizes: Mapping[str, Sequence[int]], seed: int = 0) -> tuple[Case, ...]:
    """Cases over ``sizes``: each dimension through all its sizes, then all small, all large, and the edge values.

    The values depend on the seed and the case's name only, so a case stays the same when others come or go.
    """
    base = {name: _middle(values) for name, values in sizes.items()}
    combinations = [base | {name: size} for name, values in sizes.items() for size in values]
    # All large, but for the batch: two long items show what thirty-two would.
    large = {name: base[name] if name in BATCH_NAMES else max(values) for name, values in sizes.items()}
    combinations += [{name: min(values) for name, values in sizes.items()}, large]
    cases: dict[str, Case] = {}
    for index, bound in enumerate(combinations):
        where = " ".join(f"{name}={size}" for name, size in bound.items()) or "fixed sizes"
        cases.setdefault(where, Case(where, _draw(inputs, bound, f"{seed} {where}", narrow=index % 2 == 1)))
    # However few dimensions there are, there must be enough to record.
    for index in range(max(0, MIN_GOLDEN - 2 - len(cases))):
        name = f"random {index + 1}"
        cases[name] = Case(name, _draw(inputs, base, f"{seed} {name}", narrow=index % 2 == 1))
    edges = [Case(name, {t.name: _constant(t, base, top) for t in inputs}) for name, top in (("low", 0), ("high", 1))]
    return (*cases.values(), *edges)


def case_at(inputs: Sequence[Input], sizes: Mapping[str, int], seed: int, name: str = "", mild: int = 0) -> Case:
    """One case of given sizes. A mild one has few true values, and numbers from a part of their range."""
    where = name or " ".join(f"{key}={size}" for key, size in sizes.items()) or "fixed sizes"
    drawn = _draw(inputs, sizes, f"{seed} {where} {mild or ''}", narrow=mild > 0)
    if mild:
        for tensor in inputs:
            if tensor.dtype == "bool":
                rng = np.random.default_rng(seed + mild)
                drawn[tensor.name] = (rng.random(drawn[tensor.name].shape) < 0.2) & (mild < 2)
    return Case(where, drawn)


def extreme_cases(inputs: Sequence[Input], sizes: Mapping[str, int], seed: int) -> tuple[Case, ...]:
    """Cases of large and tiny values, for inputs of a float type without limits; none where there is no such input."""
    free = [tensor.name for tensor in inputs if np.dtype(tensor.dtype).kind == "f" and tensor.limits is None]
    cases = []
    for scale in EXTREMES if free else ():
        drawn = case_at(inputs, sizes, seed, name=f"scale {scale:g}").inputs
        arrays = {name: array * scale if name in free else array for name, array in drawn.items()}
        cases.append(Case(f"scale {scale:g}", {k: np.asarray(v, drawn[k].dtype) for k, v in arrays.items()}))
    return tuple(cases)


def within(sizes: Sequence[int], limits: DimensionSpec | None) -> Sequence[int]:
    """Those of the sizes that are in a declared range, else its ends."""
    if limits is None:
        return sizes
    return [size for size in sizes if size in limits] or sorted(ends_of(limits))


def usual_sizes(signature: Signature, cases: Sequence[Case]) -> dict[str, int]:
    """Of each dimension a size in the middle of those that the cases have."""
    bound = [signature.sizes(case) for case in cases]
    return {name: sorted(sizes[name] for sizes in bound)[len(bound) // 2] for name in (bound[0] if bound else {})}


def ends_of(limits: DimensionSpec | None) -> set[int]:
    """The ends of a declared range, and a size between them."""
    if limits is None:
        return set()
    low = max(limits.min, limits.multiple, 1)
    low += -low % limits.multiple
    if limits.max is None:
        return {low, low + limits.multiple}
    high = limits.max - limits.max % limits.multiple
    middle = (low + high) // 2
    return {low, middle - middle % limits.multiple or low, high}


def choose_example(inputs: Sequence[Input], cases: Sequence[Case], *, largest: bool = False) -> dict[str, NDArray[Any]]:
    """The arrays that the module is traced with: every named size at least 2, all different, fixed sizes avoided.

    torch freezes an axis whose example size is 1, and may take two axes of one size for the same axis. If no case will
    do, sizes of several cases are put together, and the values of one are repeated that has no larger size.

    Args:
        inputs: As declared.
        cases: What sizes are taken from.
        largest: Take large sizes, not small ones: torch also freezes what it computes from a size and finds to be 1.

    Raises:
        GuardError: the cases do not offer such sizes.
    """
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    names = dimension_names(inputs)
    fixed = {size for tensor in inputs for size in tensor.shape if isinstance(size, int)}
    bound = [bind_sizes(shapes, case.inputs) for case in cases]
    candidates = {name: sorted({sizes[name] for sizes in bound if sizes[name] >= 2}) for name in names}
    for name, found in candidates.items():
        if not found:
            raise GuardError(f"dimension {name} is never larger than 1 in the cases; torch would freeze it: add a size")
    if largest:
        candidates = {name: found[::-1] for name, found in candidates.items()}
    chosen = _distinct(candidates, fixed) or _distinct(candidates, set())
    if chosen is None:
        text = "; ".join(f"{name}: {', '.join(map(str, found))}" for name, found in candidates.items())
        raise GuardError(f"no example with all sizes different can be made of the cases ({text}): add sizes")
    # Values may speak of sizes (a row's length, an index): they stay right where arrays are repeated, not where cut.
    cut = [sum(max(0, sizes[name] - size) for name, size in chosen.items()) for sizes in bound]
    short = [sum(max(0, size - sizes[name]) for name, size in chosen.items()) for sizes in bound]
    template = min(zip(cut, short, range(len(cases)), cases, strict=True))[-1]
    return {
        tensor.name: np.resize(
            template.inputs[tensor.name], [chosen[size] if isinstance(size, str) else size for size in tensor.shape]
        ).copy()
        for tensor in inputs
    }


def choose_golden(
    inputs: Sequence[Input], cases: Sequence[Case], answers: Sequence[Mapping[str, NDArray[Any]]], count: int | None
) -> tuple[int, ...]:
    """Indices of the cases to record: few, yet every size and edge of the sweep that fits among them.

    Sizes of the answers count as well (no detection, one, several). Among cases that add the same, the earlier goes
    first: whoever lists cases puts the telling ones in front.

    Raises:
        GuardError: fewer than eight cases, or fewer asked for.
    """
    count = MAX_GOLDEN if count is None else count
    if count < MIN_GOLDEN or len(cases) < MIN_GOLDEN:
        raise GuardError(
            f"a model records at least {MIN_GOLDEN} golden cases; asked for are {count} and the sweep has {len(cases)}"
        )
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    features = []
    for case, answer in zip(cases, answers, strict=True):
        seen = {f"{name}={size}" for name, size in bind_sizes(shapes, case.inputs).items()}
        seen |= {f"{name} has {array.size} values" for name, array in answer.items()}
        for tensor in inputs:
            array = case.inputs[tensor.name]
            if array.size and array.min() == array.max():
                seen.add(f"{tensor.name} is all {array.flat[0]}")
        features.append(seen)
    chosen: list[int] = []
    covered: set[str] = set()
    while len(chosen) < min(count, len(cases)):
        left = [index for index in range(len(cases)) if index not in chosen]
        best = min(left, key=lambda index: (-len(features[index] - covered), index))
        chosen.append(best)
        covered |= features[best]
    return tuple(sorted(chosen))


def _middle(values: Sequence[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2] if len(values) > 1 else values[0]


def _distinct(candidates: Mapping[str, Sequence[int]], taken: set[int]) -> dict[str, int] | None:
    """One candidate per name, no two equal and none in ``taken``; small ones first. None if there is no such choice."""
    if not candidates:
        return {}
    (name, sizes), *rest = candidates.items()
    for size in sizes:
        if size not in taken and (others := _distinct(dict(rest), taken | {size})) is not None:
            return {name: size, **others}
    return None


def _draw(inputs: Sequence[Input], sizes: Mapping[str, int], key: str, *, narrow: bool) -> dict[str, NDArray[Any]]:
    """Random arrays; ``narrow`` ones keep to a part of the range, as a dark photo does."""
    arrays = {}
    for tensor in inputs:
        rng = np.random.default_rng(zlib.crc32(f"{key} {tensor.name}".encode()))
        shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
        dtype = np.dtype(tensor.dtype)
        if dtype.kind == "f" and tensor.limits is None:
            arrays[tensor.name] = np.asarray(rng.standard_normal(shape) * (0.3 if narrow else 1), dtype)
            continue
        low, high = _limits(tensor)
        if narrow and high - low > 8:
            third = (high - low) / 3
            low = low + rng.random() * 2 * third
            high = low + third
        if dtype.kind == "f":
            arrays[tensor.name] = np.asarray(rng.uniform(low, high, shape), dtype)
        else:
            arrays[tensor.name] = np.asarray(rng.integers(int(low), int(high), shape, endpoint=True), dtype)
    return arrays


def _constant(tensor: Input, sizes: Mapping[str, int], top: int) -> NDArray[Any]:
    shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
    return np.full(shape, _limits(tensor)[top], dtype=tensor.dtype)


def _limits(tensor: Input) -> tuple[float, float]:
    if tensor.limits is not None:
        return tensor.limits
    kind = np.dtype(tensor.dtype).kind
    if kind == "f":
        return 0.0, 1.0
    # Only bytes are levels; wider integers are mostly indices, and 0 and 1 are always in range.
    return (0, 255) if tensor.dtype == "uint8" else (0, 1)
