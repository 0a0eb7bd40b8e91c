"""A caption bundle whose answers can be worked out by hand: how bright the clip is, said in three ways.

The first word is that of the mean red level of the frames that count, in quarters of 0..255; the second is fixed for
each of the three hypotheses.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle, GoldenCase, golden_to_npz, write_bundle
from runtime.manifest import (
    CRITERION,
    FileRef,
    GoldenRef,
    Manifest,
    ModelSpec,
    OutputParity,
    Parity,
    TensorSpec,
    Variant,
)
from runtime.vocabulary import Vocabulary

BRIGHTNESS = ("dark", "dim", "light", "bright")
THINGS = ("picture", "scene", "view")
VOCABULARY = Vocabulary(("</s>", "<unk>", *BRIGHTNESS, *THINGS))
SCORES = (-0.25, -0.5, -1.125)
SETTINGS = {"frames": {"kind": "even", "n": 4}, "shorter": 96}


def caption_of(level: float, thing: int = 0) -> str:
    """What the bundle says about a clip of that mean red level."""
    return f"{BRIGHTNESS[min(3, int(level // 64))]} {THINGS[thing]}"


def caption_graph() -> bytes:
    """clips [B, T, H, W, 3], counts [B] -> tokens [B, 3, 4], lengths [B, 3], scores [B, 3]."""
    constants: dict[str, np.ndarray] = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "starts": np.array([0], np.int64),
        "ends": np.array([1], np.int64),
        "channel": np.array([4], np.int64),
        "pixels": np.array([2, 3, 4], np.int64),
        "time": np.array([1], np.int64),
        "row": np.array([0], np.int64),
        "ones_behind": np.array([1, 2], np.int64),
        "quarter": np.array(64, np.float32),
        "first_word": np.array(2, np.int64),
        "hypotheses": np.array([1, 3, 1], np.int64),
        "rest": np.array([[[6, 0, 0], [7, 0, 0], [8, 0, 0]]], np.int64),
        "two": np.array([[2, 2, 2]], np.int64),
        "fixed_scores": np.array([SCORES], np.float32),
        "batch_axis": np.array([0], np.int64),
        "three_one": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Slice", ["clips", "starts", "ends", "channel"], ["red"]),
        node("Cast", ["red"], ["levels"], to=TensorProto.FLOAT),
        node("ReduceMean", ["levels", "pixels"], ["of_frame"], keepdims=0),  # (B, T)
        node("Shape", ["of_frame"], ["size"]),
        node("Gather", ["size", "one"], ["frames"]),
        node("Range", ["zero", "frames", "one"], ["numbers"]),
        node("Unsqueeze", ["counts", "time"], ["count"]),  # (B, 1)
        node("Less", ["numbers", "count"], ["counts_in"]),
        node("Cast", ["counts_in"], ["weight"], to=TensorProto.FLOAT),
        node("Mul", ["of_frame", "weight"], ["weighted"]),
        node("ReduceSum", ["weighted", "time"], ["sum"], keepdims=0),
        node("Cast", ["counts"], ["divisor"], to=TensorProto.FLOAT),
        node("Div", ["sum", "divisor"], ["level"]),
        node("Div", ["level", "quarter"], ["quarters"]),
        node("Floor", ["quarters"], ["floored"]),
        node("Cast", ["floored"], ["step"], to=TensorProto.INT64),
        node("Add", ["step", "first_word"], ["word"]),
        node("Unsqueeze", ["word", "ones_behind"], ["word_3"]),  # (B, 1, 1)
        node("Expand", ["word_3", "hypotheses"], ["words"]),  # (B, 3, 1)
        node("Slice", ["size", "starts", "ends", "batch_axis"], ["batch"]),
        node("Concat", ["batch", "three_one", "three_one"], ["rows_3"], axis=0),
        node("Concat", ["batch", "three_one"], ["rows_2"], axis=0),
        node("Expand", ["rest", "rows_3"], ["rests"]),
        node("Concat", ["words", "rests"], ["tokens"], axis=2),
        node("Expand", ["two", "rows_2"], ["lengths"]),
        node("Expand", ["fixed_scores", "rows_2"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "caption",
        [
            helper.make_tensor_value_info("clips", TensorProto.UINT8, ["B", "T", "H", "W", 3]),
            helper.make_tensor_value_info("counts", TensorProto.INT64, ["B"]),
        ],
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["B", 3, 4]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B", 3]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", 3]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


INPUTS = (TensorSpec("clips", "uint8", ("B", "T", "H", "W", 3)), TensorSpec("counts", "int64", ("B",)))
OUTPUTS = (
    TensorSpec("tokens", "int64", ("B", 3, 4)),
    TensorSpec("lengths", "int64", ("B", 3)),
    TensorSpec("scores", "float32", ("B", 3)),
)


def write_caption_bundle(
    path: Path,
    *,
    settings: dict[str, Any] | None = None,
    vocabulary: Vocabulary | None = VOCABULARY,
    graph: bytes | None = None,
    model: str = "caption",
    inputs: tuple[TensorSpec, ...] = INPUTS,
    outputs: tuple[TensorSpec, ...] = OUTPUTS,
) -> Bundle:
    """Writes the bundle; what is given replaces a part of it."""
    graph = graph or caption_graph()
    clips = np.full((2, 3, 8, 10, 3), 200, np.uint8)
    clips[0, 2:] = 0
    case = GoldenCase(
        "two clips",
        {"clips": clips, "counts": np.array([2, 3], np.int64)},
        {
            "tokens": np.array([[[5, 6, 0, 0], [5, 7, 0, 0], [5, 8, 0, 0]]] * 2, np.int64),
            "lengths": np.full((2, 3), 2, np.int64),
            "scores": np.array([SCORES] * 2, np.float64),
        },
    )
    golden = golden_to_npz([case])
    files = {"caption.onnx": graph, "caption.golden.npz": golden}
    refs = {}
    if vocabulary is not None:
        files["vocabulary.txt"] = vocabulary.to_bytes()
        refs["vocabulary"] = FileRef("vocabulary.txt", hashlib.sha256(files["vocabulary.txt"]).hexdigest())
    exact = OutputParity(1e-5, 0.0, max_abs=0.0, noise=0.0, mutant=1.0)
    spec = ModelSpec(
        variants={"fp32": Variant("caption.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
        inputs=inputs,
        outputs=outputs,
        golden=GoldenRef("caption.golden.npz", hashlib.sha256(golden).hexdigest(), 1),
        parity=Parity(CRITERION, "worked out by hand", {tensor.name: exact for tensor in outputs}),
    )
    manifest = Manifest(
        name="caption",
        version="1.0.0",
        task="caption",
        license="CC0-1.0",
        description="How bright a clip is.",
        models={model: spec},
        pipeline=SETTINGS if settings is None else settings,
        files=refs,
        provenance={"tool": "tests"},
    )
    return write_bundle(path, manifest, files)
