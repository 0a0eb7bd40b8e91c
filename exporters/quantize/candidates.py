"""Graphs in int8 that are made from one in float32.

Static candidates hold QuantizeLinear and DequantizeLinear around each layer (QDQ): unsigned activations, signed weights
with a scale for each channel. Their weights have 7 bits. x86 processors without VNNI sum pairs of products in 16 bits,
and 255·127 twice does not fit: of the age network's whole years 70 in 100 changed there, and the MAE rose by three
years. 255·64 twice does fit, and the answers are the same. 8 bits come later, where 7 miss the budget.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from exporters.graphs import all_nodes
from exporters.quantize.calibration import activation_ranges
from exporters.quantize.inputs import Feed
from exporters.quantize.layers import CARRYING, WEIGHTED, Layers, find_layers, name_nodes
from exporters.quantize.resizing import write_all_sizes
from exporters.quantize.toolkit import quantization, quiet


@dataclass(frozen=True, slots=True)
class Form:
    """A way to compute a graph in int8.

    Attributes:
        name: For people.
        bits: Of a weight.
        dynamic: Ranges of activations are found in each call; no calibration is needed.
    """

    name: str
    bits: int = 7
    dynamic: bool = False


STATIC = Form("static, weights of 7 bits")
WIDE = Form("static, weights of 8 bits", bits=8)
DYNAMIC = Form("dynamic", dynamic=True)
FORMS = (STATIC, WIDE, DYNAMIC)
"""In the order in which they are tried."""

_DYNAMIC = frozenset(("MatMul", "LSTM"))
"""Convolutions are left out: a dynamic one takes two to eight times what a static one does."""


@dataclass(slots=True)
class Candidates:
    """Makes candidates from one graph. Ranges are found once for each calibration.

    Args:
        graph: The model in float32.
        feeds: Real inputs for the calibration.
    """

    graph: bytes
    feeds: Sequence[Feed]
    model: onnx.ModelProto = field(init=False)
    layers: Layers = field(init=False)
    _ranges: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        model = onnx.load_from_string(self.graph)
        write_all_sizes(model)
        name_nodes(model)
        self.model = onnx.shape_inference.infer_shapes(model)
        self.layers = find_layers(self.model)

    def weighted(self, form: Form) -> tuple[str, ...]:
        """The layers that a form computes in int8; of a dynamic one also those inside of loops."""
        if form.dynamic:
            return tuple(node.name for node in all_nodes(self.model) if node.op_type in _DYNAMIC)
        return self.layers.weighted

    def build(self, form: Form, calibration: str, layers: Collection[str]) -> bytes:
        """The graph with some of its layers in int8."""
        copy = onnx.ModelProto.FromString(self.model.SerializeToString())
        if form.dynamic:
            return _dynamic(copy)
        if calibration not in self._ranges:
            operators = sorted(WEIGHTED | CARRYING)
            self._ranges[calibration] = activation_ranges(self.model, operators, calibration, self.feeds)
        nodes = [*layers, *(self.layers.carrying if len(layers) > 1 else ())]
        with quiet():
            toolkit = quantization()
            quantizer = toolkit.QDQQuantizer(
                copy,
                per_channel=True,
                reduce_range=form.bits < 8,
                weight_qType=toolkit.QuantType.QInt8,
                activation_qType=toolkit.QuantType.QUInt8,
                tensors_range=self._ranges[calibration],
                nodes_to_quantize=nodes,
                nodes_to_exclude=[],
                op_types_to_quantize=sorted(WEIGHTED | CARRYING),
                extra_options={},
            )
            quantizer.quantize_model()
        data: bytes = quantizer.model.model.SerializeToString()
        return data


def _dynamic(model: onnx.ModelProto) -> bytes:
    with tempfile.TemporaryDirectory(prefix="edgedl-") as folder, quiet():
        file = Path(folder, "graph.onnx")
        toolkit = quantization()
        toolkit.quantize_dynamic(
            model,
            file,
            op_types_to_quantize=sorted(_DYNAMIC),
            per_channel=True,
            reduce_range=True,
            weight_type=toolkit.QuantType.QInt8,
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )
        return file.read_bytes()
