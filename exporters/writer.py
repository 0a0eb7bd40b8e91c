"""Writing an ONNX graph by hand: values with Python's operators, conditions, loops, and parts of other graphs.

Everything is of one opset. A constant and the weights of a part lie in the graph, or in the branch or body, that uses
them: ONNX Runtime lays out weights for its fast convolutions only where they belong to the same graph as the node, and
a detector in a loop takes three times as long without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.graphs import VARYING

Number = int | float | bool
Attribute = int | float | str | Sequence[int]

_DTYPES = {
    "Shape": TensorProto.INT64, "NonZero": TensorProto.INT64, "ArgMax": TensorProto.INT64,
    "Less": TensorProto.BOOL, "Greater": TensorProto.BOOL, "LessOrEqual": TensorProto.BOOL,
    "GreaterOrEqual": TensorProto.BOOL, "Equal": TensorProto.BOOL,
}  # fmt: skip
"""Types of answers that are not those of the first input."""


class Value:
    """A tensor of a graph that is being written."""

    __slots__ = ("dtype", "name", "scope", "writer")

    def __init__(self, writer: Writer, name: str, dtype: int, scope: int) -> None:
        self.writer, self.name, self.dtype, self.scope = writer, name, dtype, scope

    def __add__(self, other: Value | Number) -> Value:
        return self.writer.op("Add", self, other)

    def __radd__(self, other: Number) -> Value:
        return self.writer.like(self, other) + self

    def __sub__(self, other: Value | Number) -> Value:
        return self.writer.op("Sub", self, other)

    def __rsub__(self, other: Number) -> Value:
        return self.writer.like(self, other) - self

    def __mul__(self, other: Value | Number) -> Value:
        return self.writer.op("Mul", self, other)

    def __rmul__(self, other: Number) -> Value:
        return self * other

    def __truediv__(self, other: Value | Number) -> Value:
        """Of whole numbers, ONNX rounds towards zero."""
        return self.writer.op("Div", self, other)

    def __rtruediv__(self, other: Number) -> Value:
        return self.writer.like(self, other) / self

    def __neg__(self) -> Value:
        return self.writer.op("Neg", self)

    def __lt__(self, other: Value | Number) -> Value:
        return self.writer.op("Less", self, other)

    def __le__(self, other: Value | Number) -> Value:
        return self.writer.op("LessOrEqual", self, other)

    def __gt__(self, other: Value | Number) -> Value:
        return self.writer.op("Greater", self, other)

    def __ge__(self, other: Value | Number) -> Value:
        return self.writer.op("GreaterOrEqual", self, other)

    def __and__(self, other: Value) -> Value:
        return self.writer.op("And", self, other)

    def __or__(self, other: Value) -> Value:
        return self.writer.op("Or", self, other)

    def __invert__(self) -> Value:
        return self.writer.op("Not", self)

    def __matmul__(self, other: Value) -> Value:
        return self.writer.op("MatMul", self, other)

    def equals(self, other: Value | Number) -> Value:
        """Whether each element equals the other's."""
        return self.writer.op("Equal", self, other)

    def cast(self, dtype: int) -> Value:
        """The same numbers in another type of `onnx.TensorProto`."""
        return self if dtype == self.dtype else self.writer.op("Cast", self, dtype=dtype, to=dtype)

    def cut(self, first: Value | int, last: Value | int, axis: int = 0) -> Value:
        """Elements from the first up to, and without, the last along an axis; both are numbers or of shape (1,)."""
        whole = self.writer.whole
        return self.writer.op("Slice", self, whole(first), whole(last), whole(axis))

    def take(self, places: Value | int, axis: int = 0) -> Value:
        """What lies at some places of an axis. A number takes the axis away."""
        if isinstance(places, int):
            places = self.writer.constant(np.int64(places))
        return self.writer.op("Gather", self, places, axis=axis)

    def parts(self, number: int, axis: int) -> list[Value]:
        """So many equal parts along an axis."""
        return self.writer.ops("Split", [None] * number, self, axis=axis, num_outputs=number)

    def reshaped(self, *shape: int) -> Value:
        """The same elements in another shape; 0 keeps a size, -1 is worked out."""
        return self.writer.op("Reshape", self, self.writer.whole(*shape))

    def turned(self, *axes: int) -> Value:
        """The axes in another order."""
        return self.writer.op("Transpose", self, perm=axes)

    def unsqueezed(self, axis: int = 0) -> Value:
        """With one more axis, of size 1."""
        return self.writer.op("Unsqueeze", self, self.writer.whole(axis))

    def least(self, other: Value | Number) -> Value:
        """The smaller one of each two elements."""
        return self.writer.op("Min", self, other)

    def most(self, other: Value | Number) -> Value:
        """The larger one of each two elements."""
        return self.writer.op("Max", self, other)

    def over(self, kind: str, *axes: int, keep: bool = False) -> Value:
        """A reduction, e.g. ``ReduceSum``, over some axes."""
        return self.writer.op(kind, self, self.writer.whole(*axes), keepdims=int(keep))


@dataclass(slots=True)
class _Scope:
    """A graph, a branch or a body that is being written."""

    number: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    constants: dict[tuple[str, tuple[int, ...], bytes], Value] = field(default_factory=dict)


class Writer:
    """Writes one graph. Values of an outer graph may be used inside of its branches and bodies, not the other way."""

    def __init__(self, opset: int = 18, ir_version: int = 8) -> None:
        self.opset, self.ir_version = opset, ir_version
        self._scopes = [_Scope(0)]
        self._count = 0
        self._label: list[str] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    @property
    def _scope(self) -> _Scope:
        return self._scopes[-1]

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Nodes that are written inside carry the name, so that one that differs tells which step it is of."""
        self._label.append(name)
        yield
        self._label.pop()

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> Value:
        """An input of the graph."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return Value(self, name, dtype, 0)

    def output(self, name: str, value: Value, shape: Sequence[int | str]) -> None:
        """Gives a value under a name."""
        self._scope.nodes.append(helper.make_node("Identity", [value.name], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, value.dtype, shape))

    def model(self, name: str) -> onnx.ModelProto:
        """All that was written."""
        (scope,) = self._scopes
        graph = helper.make_graph(scope.nodes, name, self._inputs, self._outputs, scope.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version, producer_name="edgedl")

    def constant(self, array: NDArray[np.generic] | np.generic) -> Value:
        """Numbers that are known. Equal ones are written once."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._scope.constants:
            value = self._named("constant", helper.np_dtype_to_tensor_dtype(array.dtype))
            self._scope.weights.append(numpy_helper.from_array(array, value.name))
            self._scope.constants[key] = value
        return self._scope.constants[key]

    def like(self, value: Value, number: Number) -> Value:
        """A number of a value's type, of shape (1,)."""
        return self.constant(np.array([number], helper.tensor_dtype_to_np_dtype(value.dtype)))

    def whole(self, *numbers: Value | int) -> Value:
        """Whole numbers (n,) of numbers and values of shape (1,)."""
        if len(numbers) == 1 and isinstance(numbers[0], Value):
            return numbers[0]
        if all(isinstance(number, int) for number in numbers):
            return self.constant(np.array(numbers, np.int64))
        return self.joined([self.whole(number) for number in numbers])

    def joined(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Values one after the other along an axis."""
        return self.op("Concat", *values, axis=axis)

    def where(self, condition: Value, yes: Value, no: Value | Number) -> Value:
        """Of each two elements the one that a condition chooses."""
        return self.op("Where", condition, yes, no if isinstance(no, Value) else self.like(yes, no), dtype=yes.dtype)

    def op(self, kind: str, *inputs: Value | Number | None, dtype: int | None = None, **attributes: Attribute) -> Value:
        """One node with one output.

        Args:
            kind: the operator.
            *inputs: None leaves one out; a number has the type of the first one and the shape (1,).
            dtype: of the answer, where it is neither that of the first input nor one that the operator always has.
            **attributes: of the node.
        """
        return self.ops(kind, [dtype], *inputs, **attributes)[0]

    def ops(
        self, kind: str, dtypes: Sequence[int | None], *inputs: Value | Number | None, **attributes: Attribute
    ) -> list[Value]:
        """One node with several outputs, see `op`; a type for each."""
        first = next(value for value in inputs if isinstance(value, Value))
        usual = _DTYPES.get(kind, first.dtype)
        answers = [self._named(kind, usual if dtype is None else dtype) for dtype in dtypes]
        names = [
            "" if value is None else value.name if isinstance(value, Value) else self.like(first, value).name
            for value in inputs
        ]
        given = [answer.name for answer in answers]
        node = helper.make_node(kind, names, given, name=given[0])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._scope.nodes.append(node)
        return answers

    def choose(
        self, condition: Value, yes: Callable[[], Sequence[Value]], no: Callable[[], Sequence[Value]]
    ) -> list[Value]:
        """What one of two branches gives; the other one is not computed."""
        branches = {}
        for key, branch in (("then_branch", yes), ("else_branch", no)):
            self._open()
            given = branch()
            branches[key], dtypes = self._close(key, [], given)
        answers = [self._named("If", dtype) for dtype in dtypes]
        names = [answer.name for answer in answers]
        self._scope.nodes.append(helper.make_node("If", [condition.name], names, name=names[0], **branches))
        return answers

    def repeat(
        self,
        times: Value | None,
        goes_on: Value | None,
        carried: Sequence[Value],
        body: Callable[[Value, Sequence[Value]], tuple[Value | None, Sequence[Value], Sequence[Value]]],
        ranks: Sequence[int] = (),
    ) -> list[Value]:
        """A loop.

        Args:
            times: how often at most, of shape (1,); None leaves it to the condition.
            goes_on: whether it begins at all; None: it does.
            carried: values of the first turn.
            body: takes the number of the turn, of shape (1,), and what is carried; gives whether it goes on (None: it
                does), what is carried into the next turn, and what each turn adds to the answer.
            ranks: how many axes each carried value has. ONNX Runtime lays out a convolution well only where it knows.

        Returns:
            What was carried at the end, then what the turns gave, one after the other along a new first axis.
        """
        self._open()
        turn, before = self._named("turn", TensorProto.INT64), self._named("goes_on", TensorProto.BOOL)
        held = [self._named("carried", value.dtype) for value in carried]
        number = self.op("Reshape", turn, self.whole(1))
        keep, after, added = body(number, held)
        keep = before if keep is None else self.op("Reshape", keep, self.constant(np.zeros(0, np.int64)))
        infos = [
            helper.make_tensor_value_info(turn.name, TensorProto.INT64, []),
            helper.make_tensor_value_info(before.name, TensorProto.BOOL, []),
            *(
                helper.make_tensor_value_info(value.name, value.dtype, [None] * ranks[place] if ranks else None)
                for place, value in enumerate(held)
            ),
        ]
        graph, dtypes = self._close("body", infos, [keep, *after, *added])
        answers = [self._named("Loop", dtype) for dtype in dtypes[1:]]
        names = [answer.name for answer in answers]
        given = [
            "" if value is None else self.op("Reshape", value, self.constant(np.zeros(0, np.int64))).name
            for value in (times, goes_on)
        ]
        given += [value.name for value in carried]
        node = helper.make_node("Loop", given, names, name=names[0], doc_string=VARYING, body=graph)
        self._scope.nodes.append(node)
        return answers

    def insert(self, part: onnx.ModelProto, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """Writes a part of another graph here, its weights included.

        Args:
            part: of this opset.
            feeds: what stands for its inputs, by name.

        Returns:
            Its outputs by name.
        """
        part_graph = part.graph
        names = {"": "", **{name: value.name for name, value in feeds.items()}}
        for tensor in part_graph.initializer:
            kept = onnx.TensorProto()
            kept.CopyFrom(tensor)
            kept.name = names[tensor.name] = self._named(tensor.name, tensor.data_type).name
            self._scope.weights.append(kept)
        for node in part_graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for place, name in enumerate(node.input):
                copy.input[place] = names[name]
            for place, name in enumerate(node.output):
                names.setdefault(name, self._named(name, 0).name)
                copy.output[place] = names[name]
            copy.name = self._named(node.name or node.op_type, 0).name
            self._scope.nodes.append(copy)
        return {
            output.name: Value(self, names[output.name], output.type.tensor_type.elem_type, self._scope.number)
            for output in part_graph.output
        }

    def _named(self, kind: str, dtype: int) -> Value:
        self._count += 1
        return Value(self, "/".join([*self._label, f"{kind}_{self._count}"]), dtype, self._scope.number)

    def _open(self) -> None:
        self._count += 1
        self._scopes.append(_Scope(self._count))

    def _close(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], given: Sequence[Value]
    ) -> tuple[onnx.GraphProto, list[int]]:
        """Ends the innermost branch or body, which gives some values, each under a name of its own."""
        infos, seen = [], {info.name for info in inputs}
        for value in given:
            if value.scope != self._scope.number or value.name in seen:
                value = self.op("Identity", value)
            seen.add(value.name)
            infos.append(helper.make_tensor_value_info(value.name, value.dtype, None))
        scope = self._scopes.pop()
        graph = helper.make_graph(scope.nodes, name, inputs, infos, scope.weights)
        return graph, [value.dtype for value in given]
