"""A chars bundle whose probabilities are known: the two characters before decide, one of them out of the state."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle, GoldenCase, golden_to_npz, write_bundle
from runtime.characters import Characters
from runtime.manifest import (
    CRITERION,
    FileRef,
    GoldenRef,
    Manifest,
    ModelSpec,
    OutputParity,
    Parity,
    StateSpec,
    TensorSpec,
    Variant,
)

CHARACTERS = Characters(("\n", " ", "a", "b", "é"))
SIZE = len(CHARACTERS)


def probabilities() -> NDArray[np.float64]:
    """(V, V, V): of what follows after the last but one and the last; the unknown one has its share, too."""
    return np.random.default_rng(5).dirichlet(np.full(SIZE, 0.7), (SIZE, SIZE))


def text_graph() -> bytes:
    """log_probabilities [B, T, V] of tokens [B, T]; the state [1, B, 1] is the last token."""
    table = np.log(probabilities()).astype(np.float32).reshape(-1, SIZE)
    numbers = {"size": SIZE, "axis": [0], "first": [0], "end": [-1], "beyond": [2**31], "last": [-1], "steps": [1]}
    nodes = [
        helper.make_node("Squeeze", ["h0", "axis"], ["h"]),
        helper.make_node("Cast", ["h"], ["before"], to=TensorProto.INT64),
        helper.make_node("Concat", ["before", "tokens"], ["all"], axis=1),
        helper.make_node("Slice", ["all", "first", "end", "steps"], ["previous"]),
        helper.make_node("Mul", ["previous", "size"], ["row"]),
        helper.make_node("Add", ["row", "tokens"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["log_probabilities"]),
        helper.make_node("Slice", ["all", "last", "beyond", "steps"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["number", "axis"], ["hn"]),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["B", "T"]),
            helper.make_tensor_value_info("h0", TensorProto.FLOAT, [1, "B", 1]),
        ],
        [
            helper.make_tensor_value_info("log_probabilities", TensorProto.FLOAT, ["B", "T", SIZE]),
            helper.make_tensor_value_info("hn", TensorProto.FLOAT, [1, "B", 1]),
        ],
        [
            numpy_helper.from_array(table, "table"),
            *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def write_chars_bundle(
    path: Path,
    *,
    characters: bytes | None = CHARACTERS.to_bytes(),
    pipeline: dict[str, object] | None = None,
    state: bool = True,
) -> Bundle:
    """The bundle; with other contents for what a pipeline has to refuse."""
    graph = text_graph()
    tokens, h0 = np.array([[2, 3]], np.int64), np.zeros((1, 1, 1), np.float32)
    table = np.log(probabilities())
    answers = {"log_probabilities": np.array([[table[0, 2], table[2, 3]]]), "hn": np.array([[[3.0]]])}
    golden = golden_to_npz([GoldenCase("ab", {"tokens": tokens, "h0": h0}, answers)])
    model = ModelSpec(
        variants={"fp32": Variant("chars.onnx", hashlib.sha256(graph).hexdigest(), len(graph))},
        inputs=(TensorSpec("tokens", "int64", ("B", "T")), TensorSpec("h0", "float32", (1, "B", 1))),
        outputs=(
            TensorSpec("log_probabilities", "float32", ("B", "T", SIZE), unit="nat"),
            TensorSpec("hn", "float32", (1, "B", 1)),
        ),
        state=(StateSpec("h0", "hn", (1, "B", 1), "float32"),) if state else (),
        golden=GoldenRef("chars.golden.npz", hashlib.sha256(golden).hexdigest(), 1),
        parity=Parity(
            CRITERION,
            "numpy float64",
            {name: OutputParity(1e-4, 0.0, max_abs=1e-6, noise=1e-7, mutant=1e-2) for name in answers},
        ),
    )
    files = {"chars.onnx": graph, "chars.golden.npz": golden}
    if characters is not None:
        files["characters.json"] = characters
    manifest = Manifest(
        name="chars",
        version="1.0.0",
        task="chars",
        license="CC0-1.0",
        description="two characters decide",
        models={"chars": model},
        pipeline={"beginning": "\n"} if pipeline is None else pipeline,
        files={}
        if characters is None
        else {"characters": FileRef("characters.json", hashlib.sha256(characters).hexdigest())},
        provenance={"tool": "tests"},
    )
    return write_bundle(path, manifest, files)
