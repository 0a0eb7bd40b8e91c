"""Faults planted in the exporter itself: whatever part of it goes wrong, another part refuses the export.

Each fault replaces one function by a wrong one. The network is sound and exports without the fault, which is tested,
or it is one that the part at fault is there to refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnxscript import opset18 as op
from torch import Tensor, nn

from exporters import convert, export, gather, lowerings, parity, recurrent_operators, source, sweep
from exporters.errors import ExportError
from exporters.lowerings.constants import like
from exporters.spec import Input, Output, Signature
from runtime.manifest import DimensionSpec, StateSpec

aten = torch.ops.aten
Patch = pytest.MonkeyPatch

FAULTS: dict[str, Callable[[Patch], Network]] = {}
UNSOUND = set()
"""Faults that hide an unsound network; the others are planted under a sound one."""


@dataclass
class Network:
    """A network with its declaration; networks that were made of the same are the same."""

    module: nn.Module
    inputs: Sequence[Input]
    outputs: Sequence[Output]
    options: dict[str, Any] = field(default_factory=dict)
    made_of: tuple[Any, ...] = ()

    def export(self) -> None:
        export.export_model(self.module, inputs=self.inputs, outputs=self.outputs, **self.options)


def fault(plant: Callable[[Patch], Network]) -> Callable[[Patch], Network]:
    FAULTS[plant.__name__] = plant
    return plant


def unsound(plant: Callable[[Patch], Network]) -> Callable[[Patch], Network]:
    UNSOUND.add(plant.__name__)
    return fault(plant)


def of_rows(function: Callable[[Tensor], Tensor], width: int = 4, **more: Any) -> Network:
    """A linear layer and a function behind it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return function(self.a(x))

    outputs = [Output("y", "float32", ("N", width))]
    made_of = (of_rows, function, width, *more.items())
    return Network(Net().eval(), [Input("x", "float32", ("N", 6))], outputs, more, made_of)


def of_steps(function: Callable[[Tensor], Tensor], dimensions: dict[str, DimensionSpec] | None = None) -> Network:
    """A linear layer over the steps of a series and a function behind it."""
    rows = of_rows(function)
    more = {"dimensions": dimensions} if dimensions else {}
    return Network(rows.module, [Input("x", "float32", ("N", "T", 6))], [Output("y", "float32", ("N", "T", 4))], more)


def recurrent(layer: type[nn.RNNBase]) -> Network:
    """A layer whose state goes in and comes out."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = layer(6, 5, batch_first=True)

        def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            y, after = self.rnn(x, state if len(state) > 1 else state[0])
            return (y, *after) if len(state) > 1 else (y, after)

    names = ("h", "c") if layer is nn.LSTM else ("h",)
    shape = (1, "N", 5)
    return Network(
        Net().eval(),
        [Input("x", "float32", ("N", "T", 6)), *(Input(name, "float32", shape) for name in names)],
        [Output("y", "float32", ("N", "T", 5)), *(Output(f"{name}n", "float32", shape) for name in names)],
        {"state": [StateSpec(name, f"{name}n", shape, "float32") for name in names]},
        (recurrent, layer),
    )


def own_loop() -> Network:
    """A loop of one's own, which becomes a Scan."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(x.shape[0], 4)
            seen = []
            for t in range(x.shape[1]):
                h = 0.5 * h + torch.sin(self.a(x[:, t]) + self.b(h))
                seen.append(h)
            return torch.stack(seen, 1)

    inputs, outputs = [Input("x", "float32", ("N", "T", 6))], [Output("y", "float32", ("N", "T", 4))]
    return Network(Net().eval(), inputs, outputs, made_of=(own_loop,))


def floored(x: Tensor) -> Tensor:
    """A logarithm with a floor that float32 holds, and a hasty optimiser does not."""
    return (x.relu() + 1e-30).log()


def translate(patch: Patch, operator: Any, wrong: Callable[..., Any]) -> None:
    """Gives an operator another translation."""
    right = lowerings.onnx_translations
    patch.setattr(lowerings, "onnx_translations", lambda: right() | {operator: wrong})


def spoil(patch: Patch, change: Callable[[onnx.ModelProto], None]) -> None:
    """Changes the graph that the conversion gives."""
    right = convert.convert

    def wrong(*args: Any) -> Any:
        converted = right(*args)
        change(converted.model)
        return converted

    patch.setattr(export, "convert", wrong)


# --- translations of operators ---------------------------------------------------------------------------------------


@fault
def gelu_by_its_approximation(patch: Patch) -> Network:
    translate(patch, aten.gelu.default, lambda x, approximate="none": lowerings.activations.gelu(x, "tanh"))
    return of_rows(F.gelu)


@fault
def elu_without_its_slope(patch: Patch) -> Network:
    translate(patch, aten.elu.default, lambda x, alpha=1.0, scale=1.0, input_scale=1.0: lowerings.activations.elu(x))
    return of_rows(lambda x: F.elu(x, 0.9))


@fault
def softplus_without_its_threshold(patch: Patch) -> Network:
    translate(patch, aten.softplus.default, lambda x, beta=1.0, threshold=20.0: lowerings.activations.softplus(x, beta))
    return of_rows(lambda x: F.softplus(x, 2.0, 3.0))


@fault
def logarithm_of_a_sigmoid_that_underflows(patch: Patch) -> Network:
    """Right where inputs are usual, minus infinity at -110: only the extremes tell."""
    translate(patch, aten.log_sigmoid.default, lambda x: op.Log(op.Sigmoid(x)))
    return of_rows(F.logsigmoid)


@fault
def remainder_with_the_sign_of_the_dividend(patch: Patch) -> Network:
    translate(patch, aten.remainder.Scalar, lambda x, y: op.Mod(x, like(x, y), fmod=1))
    return of_rows(lambda x: x % 0.75)


@fault
def clamp_that_forgets_a_bound(patch: Patch) -> Network:
    translate(patch, aten.clamp.default, lambda x, low=None, high=None: op.Max(x, like(x, low)))
    return of_rows(lambda x: x.clamp(-0.5, 0.5))


@fault
def variance_without_its_correction(patch: Patch) -> Network:
    right = lowerings.reductions.variance
    translate(patch, torch.ops.prims.var.default, lambda x, dims, correction=1, *, output_dtype=None: right(x, dims, 0))
    return of_rows(lambda x: x - x.var(-1, keepdim=True))


@fault
def normalisation_with_another_floor(patch: Patch) -> Network:
    """1e-6 for 1e-5: usual rows hardly show it."""
    right = lowerings.reductions.layer_norm

    def wrong(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn: bool = True) -> Any:
        return right(x, shape, weight, bias, eps / 10)

    translate(patch, aten.layer_norm.default, wrong)
    return of_rows(lambda x: F.layer_norm(x, (4,)))


@fault
def sorted_the_other_way(patch: Patch) -> Network:
    right = lowerings.ordering.sort

    def wrong(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        return right(x, stable=stable, dim=dim, descending=not descending)

    translate(patch, aten.sort.stable, wrong)
    translate(patch, aten.sort.default, lambda x, dim=-1, descending=False: wrong(x, None, dim, descending))
    return of_rows(lambda x: x.sort(-1).values)


@fault
def resized_with_other_corners(patch: Patch) -> Network:
    def wrong(x: Any, sizes: Any, align: bool, high: Any = None, wide: Any = None) -> Any:
        return lowerings.resampling.linear(x, sizes, [None, None], not align)

    translate(patch, aten.upsample_bilinear2d.default, wrong)
    translate(patch, aten.upsample_bilinear2d.vec, lambda x, sizes, align, scales: wrong(x, sizes, align))
    module = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Upsample(size=(9, 11), mode="bilinear")).eval()
    return Network(module, [Input("x", "float32", ("N", 2, "H", "W"))], [Output("y", "float32", ("N", 3, 9, 11))])


# --- the conversion --------------------------------------------------------------------------------------------------


@fault
def small_constants_taken_for_zero(patch: Patch) -> Network:
    """What onnxscript's own rules do."""
    from exporters import simplify

    right = simplify.pattern.Constant
    patch.setattr(simplify.pattern, "Constant", lambda value, rel_tol, abs_tol: right(value))
    return of_rows(floored)


@fault
def weights_in_half_precision(patch: Patch) -> Network:
    def change(model: onnx.ModelProto) -> None:
        for weight in model.graph.initializer:
            rounded = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(rounded, weight.name))

    spoil(patch, change)
    return of_rows(torch.tanh)


@fault
def a_size_of_the_example_in_a_reshape(patch: Patch) -> Network:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 2, 4]), "baked"))
        model.graph.node[-1].output[0] = "flat"
        model.graph.node.append(onnx.helper.make_node("Reshape", ["flat", "baked"], [model.graph.output[0].name]))

    spoil(patch, change)
    return of_steps(torch.tanh)


@fault
def an_axis_frozen(patch: Patch) -> Network:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7

    spoil(patch, change)
    return of_rows(torch.tanh)


@fault
def traced_without_dynamic_axes(patch: Patch) -> Network:
    right = torch.export.export
    patch.setattr(torch.export, "export", lambda module, args, dynamic_shapes, strict: right(module, args))
    return of_rows(torch.tanh)


@fault
def an_answer_of_another_type(patch: Patch) -> Network:
    def change(model: onnx.ModelProto) -> None:
        name = model.graph.output[0].name
        model.graph.node[-1].output[0] = "narrow"
        model.graph.node.append(onnx.helper.make_node("Cast", ["narrow"], [name], to=onnx.TensorProto.DOUBLE))
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    spoil(patch, change)
    return of_rows(torch.tanh)


@fault
def an_operator_of_one_runtime(patch: Patch) -> Network:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].domain = "com.microsoft"
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))

    spoil(patch, change)
    return of_rows(F.gelu)


@fault
def another_opset(patch: Patch) -> Network:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 19

    spoil(patch, change)
    return of_rows(torch.tanh)


@fault
def two_inputs_exchanged(patch: Patch) -> Network:
    """Of one shape and type, so that nothing but the answers tells."""
    right = source.flatten

    def wrong(module: nn.Module, signature: Signature, call: Any) -> nn.Module:
        return right(module, replace(signature, inputs=signature.inputs[::-1]), call)

    patch.setattr(source, "flatten", wrong)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 4)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return self.a(first - 2 * second)

    return Network(
        Net().eval(),
        [Input("second", "float32", ("N", 6)), Input("first", "float32", ("N", 6))],
        [Output("y", "float32", ("N", 4))],
    )


@fault
def two_outputs_exchanged(patch: Patch) -> Network:
    def change(model: onnx.ModelProto) -> None:
        first, second = (value.name for value in model.graph.output)
        for node in model.graph.node:
            node.output[:] = [{first: second, second: first}.get(name, name) for name in node.output]

    spoil(patch, change)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(x), self.b(x)

    outputs = [Output("y", "float32", ("N", 4)), Output("z", "float32", ("N", 4))]
    return Network(Net().eval(), [Input("x", "float32", ("N", 6))], outputs)


@fault
def wrong_only_when_optimised(patch: Patch) -> Network:
    right = parity.open_graph

    def wrong(graph: bytes, level: str) -> Any:
        model = onnx.load_from_string(graph)
        if level == "optimised":
            model.graph.node[-1].op_type = "Sin"
        return right(model.SerializeToString(), level)

    patch.setattr(parity, "open_graph", wrong)
    return of_rows(torch.tanh)


@fault
def denormals_flushed_whatever_comes_of_it(patch: Patch) -> Network:
    """A floor of 1e-30 is lost, and the logarithm is infinite."""
    from exporters.optimize import flush_graph

    def flushed(model: onnx.ModelProto, *rest: Any) -> tuple[bytes, int]:
        lighter = onnx.ModelProto.FromString(model.SerializeToString())
        count = flush_graph(lighter)
        return lighter.SerializeToString(), count

    patch.setattr(export, "_flushed", flushed)
    return of_rows(floored)


# --- recurrence ------------------------------------------------------------------------------------------------------


@fault
def gates_of_an_lstm_in_torchs_order(patch: Patch) -> Network:
    patch.setitem(recurrent_operators.ONNX_GATES, "LSTM", (0, 1, 2, 3))
    return recurrent(nn.LSTM)


@fault
def an_lstm_that_begins_anew(patch: Patch) -> Network:
    """The state is read by no node."""

    def change(model: onnx.ModelProto) -> None:
        (layer,) = [node for node in model.graph.node if node.op_type == "LSTM"]
        layer.input[5] = layer.input[6] = ""

    spoil(patch, change)
    return recurrent(nn.LSTM)


@fault
def a_gru_reset_before_its_product(patch: Patch) -> Network:
    def change(model: onnx.ModelProto) -> None:
        (layer,) = [node for node in model.graph.node if node.op_type == "GRU"]
        kept = [attribute for attribute in layer.attribute if attribute.name != "linear_before_reset"]
        del layer.attribute[:]
        layer.attribute.extend(kept)

    spoil(patch, change)
    return recurrent(nn.GRU)


def _scan_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type in ("Scan", "Loop"))


@fault
def a_loop_that_carries_no_state(patch: Patch) -> Network:
    """The body hands on the state that it was given."""

    def change(model: onnx.ModelProto) -> None:
        node = _scan_of(model)
        (body,) = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        first = 2 if node.op_type == "Loop" else 0
        given = body.input[first].name
        body.node.append(onnx.helper.make_node("Identity", [given], ["stale"]))
        body.output[1 if node.op_type == "Loop" else 0].name = "stale"

    spoil(patch, change)
    return own_loop()


@fault
def a_loop_that_runs_backwards(patch: Patch) -> Network:
    from exporters.loops import replay

    right = replay.run

    def wrong(program: Any, module: nn.Module, shapes: Any, *inputs: Tensor) -> Any:
        return right(program, module, shapes, *(tensor.flip(1) for tensor in inputs))

    patch.setattr(replay, "run", wrong)
    return own_loop()


# --- guards, sweep and gate ------------------------------------------------------------------------------------------


def _branch(limit: int, axis: int = 1) -> Callable[[Tensor], Tensor]:
    return lambda x: x if x.shape[axis] < limit else -x


@unsound
def guards_on_sizes_not_read(patch: Patch) -> Network:
    """The ends of the declared range tell."""
    patch.setattr(export, "size_guards", lambda program, inputs: [])
    return of_steps(_branch(200), {"T": DimensionSpec(1, 512)})


@unsound
def ends_of_ranges_not_swept(patch: Patch) -> Network:
    """The guards tell."""
    patch.setattr(export, "ends_of", lambda limits: set())
    return of_steps(_branch(200), {"T": DimensionSpec(1, 512)})


@unsound
def a_batch_of_one_left_out_of_the_sweep(patch: Patch) -> Network:
    patch.setattr(sweep, "BATCH_SIZES", (2, 7, 32))
    return of_rows(lambda x: x if x.shape[0] != 1 else -x)


@unsound
def one_never_added_to_the_sweep(patch: Patch) -> Network:
    right = gather.extend

    def wrong(source: Any, found: Any, sizes: Any, base: Any, seed: int) -> None:
        right(source, found, {name: set(more) - {1} for name, more in sizes.items()}, base, seed)

    patch.setattr(export, "extend", wrong)
    return of_rows(lambda x: x if x.shape[0] != 1 else -x)


@unsound
def odd_sizes_left_out_of_the_sweep(patch: Patch) -> Network:
    patch.setattr(sweep, "OTHER_SIZES", (2, 4, 8, 16))
    return of_steps(lambda x: -x if x.shape[1] % 2 else x)


@fault
def an_example_of_one_row(patch: Patch) -> Network:
    """torch freezes an axis of size 1."""
    right = export.choose_example

    def wrong(inputs: Any, cases: Any, largest: bool = False) -> Any:
        return {name: array[:1] for name, array in right(inputs, cases, largest=largest).items()}

    patch.setattr(export, "choose_example", wrong)
    return of_rows(torch.tanh)


@unsound
def purity_not_looked_at(patch: Patch) -> Network:
    patch.setattr(source.ModuleSource, "check_function", lambda self, cases: None)
    return of_rows(lambda x: F.dropout(x, 0.5))


@unsound
def copies_that_are_not_fresh(patch: Patch) -> Network:
    """The first call decides for all that follow."""
    kept: dict[torch.dtype, nn.Module] = {}
    right = source.ModuleSource.copied

    def wrong(self: source.ModuleSource, dtype: torch.dtype = torch.float32) -> nn.Module:
        return kept.setdefault(dtype, right(self, dtype))

    patch.setattr(source.ModuleSource, "copied", wrong)
    network = of_rows(torch.tanh)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.scale = nn.Linear(6, 4), None

        def forward(self, x: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = x.abs().max()
            return self.a(x) / self.scale

    network.module = Net().eval()
    return network


@unsound
def training_mode_not_looked_at(patch: Patch) -> Network:
    patch.setattr(export, "check_module", lambda module: None)
    network = of_rows(torch.tanh)
    network.module = nn.Sequential(nn.Linear(6, 4), nn.Dropout())
    return network


@fault
def a_tolerance_widened(patch: Patch) -> Network:
    patch.setattr(parity, "NOISE_MARGIN", 3e6)
    return of_rows(torch.tanh)


@fault
def a_noise_overstated(patch: Patch) -> Network:
    right = export.measure_noise
    patch.setattr(export, "measure_noise", lambda *args: {name: 1e4 * value for name, value in right(*args).items()})
    return of_rows(torch.tanh)


@fault
def truth_of_another_copy(patch: Patch) -> Network:
    """The reference computes with other weights than the module."""
    right = source.in_dtype

    def wrong(module: nn.Module, dtype: torch.dtype, own: torch.dtype) -> nn.Module:
        module = right(module, dtype, own)
        if dtype == torch.float64:
            next(module.parameters()).data *= 1.001
        return module

    patch.setattr(source, "in_dtype", wrong)
    return of_rows(torch.tanh)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_caught(name: str, monkeypatch: Patch) -> None:
    torch.manual_seed(3)
    network = FAULTS[name](monkeypatch)
    with pytest.raises(ExportError):
        network.export()


def sound() -> list[str]:
    """Faults that stand for all others of the same network."""
    lowerings.onnx_translations()  # imports its parts, which faults name
    found: dict[tuple[Any, ...], str] = {}
    for name in FAULTS:
        if name not in UNSOUND:
            with pytest.MonkeyPatch.context() as patch:
                found.setdefault(FAULTS[name](patch).made_of or (name,), name)
    return list(found.values())


@pytest.mark.parametrize("name", sound())
def test_without_the_fault_the_network_exports(name: str) -> None:
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        network = FAULTS[name](patch)
    network.export()
