"""A bundle of a small convolutional network with chance weights, and a judge of it, for tests of `edgedl quantize`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.quantize.judge import Judge, Part
from runtime.bundle import Bundle, GoldenCase, golden_to_npz, write_bundle
from runtime.engine import Engine
from runtime.manifest import CRITERION, GoldenRef, Manifest, ModelSpec, OutputParity, Parity, TensorSpec, Variant
from runtime.pipelines.tensors import TensorPipeline

SIDE, CHANNELS, CLASSES = 12, 16, 5
LAYERS = ("first", "second", "third", "fourth")
SIZES: dict[Part, int] = {"calibrate": 8, "choose": 24, "judge": 40}


def cnn_graph(*, loud: str | None = None) -> bytes:
    """probabilities [N, 5] of pixels [N, H, W, 3] uint8: resized to 12×12, four convolutions, their mean, soft-max.

    Args:
        loud: a convolution one of whose channels is a thousand times as strong as the others; the next one hears
            nothing of that channel. In int8 the others then have no levels left.
    """
    rng = np.random.default_rng(5)
    constants: dict[str, NDArray[Any]] = {
        "side": np.array([SIDE, SIDE]),
        "white": np.float32(255),
        "head": rng.normal(size=(CHANNELS, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Resize", ["levels", "", "", "side"], ["small"], axes=[2, 3], mode="linear", antialias=1),
        helper.make_node("Div", ["small", "white"], ["x"]),
    ]
    before, channels = "x", 3
    for name in LAYERS:
        weight = (rng.normal(size=(CHANNELS, channels, 3, 3)) * np.sqrt(2 / (9 * channels))).astype(np.float32)
        if loud is not None and LAYERS.index(name) == LAYERS.index(loud) + 1:
            weight[:, 0] = 0
        if name == loud:
            weight[0] *= 1000
        constants[f"{name}.weight"] = weight
        nodes.append(helper.make_node("Conv", [before, f"{name}.weight"], [f"{name}.sums"], name=name, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"{name}.sums"], [name]))
        before, channels = name, CHANNELS
    nodes += [
        helper.make_node("GlobalAveragePool", [before], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head"], ["logits"], name="head"),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_cnn_bundle(path: Path, graph: bytes | None = None) -> Bundle:
    """The bundle, with recorded answers of its own graph and the decision of the likeliest class."""
    graph = graph or cnn_graph()
    engine = Engine(graph, threads=1)
    inputs = [pictures(seed, rows) for seed, rows in ((1, 1), (2, 7), (3, 16))]
    cases = [GoldenCase(f"batch {len(x)}", {"pixels": x}, engine.run({"pixels": x})) for x in inputs]
    golden = golden_to_npz(cases)
    model = ModelSpec(
        variants={"fp32": Variant("cnn.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
        inputs=(TensorSpec("pixels", "uint8", ("N", "H", "W", 3), layout="NHWC"),),
        outputs=(TensorSpec("probabilities", "float32", ("N", CLASSES)),),
        golden=GoldenRef("cnn.golden.npz", hashlib.sha256(golden).hexdigest(), len(cases)),
        parity=Parity(
            CRITERION,
            "ONNX Runtime",
            {"probabilities": OutputParity(1e-4, 0.0, max_abs=1e-6, noise=1e-6, mutant=1e-2, decision="argmax")},
        ),
    )
    manifest = Manifest("cnn", "1.0.0", "classes", "CC0-1.0", "chance weights", {"cnn": model})
    return write_bundle(path, manifest, {"cnn.onnx": graph, "cnn.golden.npz": golden})


def pictures(seed: int, rows: int) -> NDArray[np.uint8]:
    """Blots of chance colours (rows, 24, 20, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (rows, 6, 5, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


Measure = Callable[[TensorPipeline, Part, float], float]


def cnn_judge(bundle: Bundle, told: Measure = lambda pipeline, part, value: value) -> Judge[TensorPipeline]:
    """Judges by the share of pictures of which the likeliest class is that of float32.

    Args:
        bundle: whose float32 answers are taken for right.
        told: may tell another value than was measured, to plant a fault.
    """
    data = {part: pictures(10 + place, rows) for place, (part, rows) in enumerate(SIZES.items())}
    with TensorPipeline.open(bundle, threads=1) as exact:
        right = {part: _classes(exact, x) for part, x in data.items()}

    def measure(pipeline: TensorPipeline, part: Part, first: int | None) -> float:
        found = _classes(pipeline, data[part][:first])
        return told(pipeline, part, float((found == right[part][:first]).mean()))

    return Judge("blots", "accuracy", "fraction", False, SIZES, TensorPipeline, measure)


def _classes(pipeline: TensorPipeline, x: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.array([np.argmax(pipeline.engine.run({"pixels": row[None]})["probabilities"]) for row in x])
