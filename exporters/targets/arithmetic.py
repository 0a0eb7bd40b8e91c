"""What a target's arithmetic may add to a tolerance, derived before anything is replayed there.

Processors round Add, Mul and what is made of them alike. Some only estimate a division: 32-bit ARM has no division of
vectors, and ONNX Runtime's is off by 8e-6 there, 130 times the rounding of float32. Three steps make a number of this.

1. *Probes.* Graphs of one operator answer thousands of numbers there. The worst relative error against float64 is what
   the operator is off by. Operators that are nearly as exact as here need no term.
2. *Effect.* On this machine each such operator of a model is made wrong by that much, upwards, downwards and at random
   for each number, and the model answers the recorded cases. The term is twice the largest change of an output.
3. *Limit.* The tolerance with the term stays below the effect of the weakest mutant, else there is no term and the
   tolerance stays as it is.

The answers of the target to the recorded cases play no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporters.targets.base import Target, TargetError
from runtime.compare import distance
from runtime.engine import Engine
from runtime.golden import GoldenCase
from runtime.manifest import ModelSpec, OutputParity

if TYPE_CHECKING:
    import onnx

Arrays = tuple[NDArray[np.float32], ...]

EXACT_ENOUGH = 4e-7
"""Relative error, a few units in the last place of float32, below which no operator needs a term."""

WORSE = 4.0
"""So many times less exact than here an operator has to be."""

SAFETY = 2.0
"""Terms are so many times the largest change that was seen."""

RANDOM = 6
"""So many times the errors are drawn at random."""


@dataclass(frozen=True, slots=True)
class Term:
    """What is added to the tolerance of an output.

    Attributes:
        output: Its name.
        size: The term.
        allowed: The tolerance without it.
        mutant: The effect of the weakest mutant; None where no weight reaches the output.
    """

    output: str
    size: float
    allowed: float
    mutant: float | None

    @property
    def holds(self) -> bool:
        """Whether the tolerance stays below the weakest mutant."""
        return self.mutant is None or self.allowed + self.size < self.mutant


def probe(target: Target) -> dict[str, float]:
    """The operators that a target only estimates, and by how much they are off there relative to the true value.

    Raises:
        ImportError: onnx is not installed.
    """
    found = {}
    for operator, (inputs, truth) in _probes().items():
        graph = _one_node(operator, len(inputs))
        feed = {f"x{place}": array for place, array in enumerate(inputs)}
        try:
            with target.session(graph) as session:
                (answer,) = session.run(["y"], feed)
        except TargetError:
            continue  # it does not run there; a model that needs it will say so
        with Engine(graph, threads=1, name=operator) as engine:
            here = _off(engine.run(feed)["y"], truth)
        there = _off(answer, truth)
        if there > max(EXACT_ENOUGH, WORSE * here):
            found[operator] = there
    return found


def terms(
    graph: bytes, spec: ModelSpec, variant: str, cases: Sequence[GoldenCase], errors: Mapping[str, float]
) -> tuple[Term, ...]:
    """The term of each output of a model that has a tolerance.

    Args:
        graph: The model's graph.
        spec: Its signature and tolerances.
        variant: Which form it is.
        cases: Recorded cases.
        errors: What `probe` found.

    Raises:
        ImportError: onnx is not installed.
    """
    parity = spec.parity_of(variant)
    outputs = {name: rule for name, rule in (parity.outputs if parity else {}).items() if rule.atol or rule.rtol}
    if not errors or not outputs or not cases:
        return ()
    wrong = [estimating(graph, errors, way) for way in ("up", "down", *range(RANDOM))]
    if wrong[0] is None:
        return ()
    moved = dict.fromkeys(outputs, 0.0)
    exact = _answers(graph, spec, cases)
    for one in wrong:
        assert one is not None  # noqa: S101 - all ways change the same nodes
        for answers, others in zip(exact, _answers(one, spec, cases), strict=True):
            for name in moved:
                moved[name] = max(moved[name], distance(others[name], answers[name]))
    return tuple(Term(name, SAFETY * size, outputs[name].atol, outputs[name].mutant) for name, size in moved.items())


def with_terms(spec: ModelSpec, variant: str, found: Sequence[Term]) -> ModelSpec:
    """The signature with those terms in its tolerances that leave the weakest mutant caught."""
    parity = spec.parity_of(variant)
    if parity is None:
        return spec
    sizes = {term.output: term.size for term in found if term.holds}

    def wider(name: str, rule: OutputParity) -> OutputParity:
        return replace(rule, atol=rule.atol + sizes.get(name, 0.0))

    changed = replace(parity, outputs={name: wider(name, rule) for name, rule in parity.outputs.items()})
    form = replace(spec.variants[variant], parity=changed)
    return replace(spec, variants={**spec.variants, variant: form})


def estimating(graph: bytes, errors: Mapping[str, float], way: str | int) -> bytes | None:
    """A graph whose operators are off by what was found; None where it has none of them.

    Args:
        graph: The graph.
        errors: For each operator its relative error.
        way: ``up``, ``down``, or the seed of errors that are drawn for each number.
    """
    import onnx
    from onnx import TensorProto

    from exporters.graphs import graphs

    model = onnx.load_from_string(graph)
    typed = onnx.shape_inference.infer_shapes(model)
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for part in graphs(typed.graph)
        for value in (*part.value_info, *part.input, *part.output)
    }
    kinds |= {one.name: one.data_type for part in graphs(typed.graph) for one in part.initializer}
    count = 0
    for part in graphs(model.graph):
        nodes = []
        for node in part.node:
            nodes.append(node)
            # An input's kind is that of the result: none of the operators that are probed changes it.
            kind = kinds.get(node.input[0], kinds.get(node.output[0])) if node.op_type in errors else None
            if kind == TensorProto.FLOAT and not node.domain:
                nodes += _wrong(node, errors[node.op_type], way, count)
                count += 1
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del part.node[:]
        part.node.extend(copies)
    if not count:
        return None
    changed: bytes = model.SerializeToString(deterministic=True)
    return changed


def _wrong(node: onnx.NodeProto, error: float, way: str | int, place: int) -> list[onnx.NodeProto]:
    """Nodes that make the result of a node wrong by a relative error; the node gets another name for its own."""
    from onnx import helper, numpy_helper

    result = node.output[0]
    exact, factor = f"{result}.exact", f"{result}.factor"
    node.output[0] = exact
    if isinstance(way, str):
        value = np.array(1 + error if way == "up" else 1 - error, np.float32)
        chosen = helper.make_node("Constant", [], [factor], value=numpy_helper.from_array(value))
    else:
        seed = float(1 + place + 1000 * way)
        chosen = helper.make_node("RandomUniformLike", [exact], [factor], low=1 - error, high=1 + error, seed=seed)
    return [chosen, helper.make_node("Mul", [exact, factor], [result])]


def _answers(graph: bytes, spec: ModelSpec, cases: Sequence[GoldenCase]) -> list[dict[str, NDArray[Any]]]:
    with Engine(graph, spec=spec, threads=1, name="arithmetic") as engine:
        return [engine.run(case.inputs) for case in cases]


def _probes() -> dict[str, tuple[Arrays, NDArray[np.float64]]]:
    """For each operator its inputs, and what it should give."""
    rng = np.random.default_rng(0)

    def wide() -> NDArray[np.float32]:
        return (rng.uniform(1, 2, 4096) * 2.0 ** rng.integers(-8, 8, 4096)).astype(np.float32)

    a, b = wide(), wide()
    small = rng.uniform(-8, 8, (64, 64)).astype(np.float32)

    def of(function: Callable[..., Any], *inputs: NDArray[np.float32]) -> tuple[Arrays, NDArray[np.float64]]:
        return inputs, np.asarray(function(*(array.astype(np.float64) for array in inputs)))

    def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(x) / np.exp(x).sum(-1, keepdims=True))

    return {
        "Div": of(np.divide, a, b),
        "Reciprocal": of(np.reciprocal, b),
        "Sqrt": of(np.sqrt, b),
        "Exp": of(np.exp, small),
        "Log": of(np.log, b[np.abs(np.log2(b)) > 1]),
        "Pow": of(np.power, a, np.full_like(a, 1.5)),
        "Softmax": of(softmax, small),
        "Tanh": of(np.tanh, small),
    }


def _one_node(operator: str, inputs: int) -> bytes:
    from onnx import TensorProto, helper

    names = [f"x{place}" for place in range(inputs)]
    shape = ["N", "M"] if operator in _TABLES else ["N"]
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["y"])],
        operator,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


_TABLES = frozenset(("Exp", "Softmax", "Tanh"))
"""Operators that are probed on a table of numbers, the others on a list."""


def _off(answer: NDArray[Any], truth: NDArray[np.float64]) -> float:
    return float(np.max(np.abs(answer - truth) / np.abs(truth)))
