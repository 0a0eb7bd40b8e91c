"""The gate can fail: every mutant of the age bundle's two graphs is told by replaying its recorded answers.

Each mutant is a fault that a conversion, an optimiser or a careless hand could really make; the bundle's hashes are
those of the mutated graph, so that only the answers can tell.

How large the float32 noise is depends on the processor, and the tolerances of a bundle with it. So most mutants are
judged by the tolerances that the noise of one processor gives, the same everywhere. What the bundle's own tolerances
tell is asked of coarser faults, which leave room for four times the noise and more.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper

from exporters.explain import explain
from exporters.mutants import FORMATS
from exporters.parity import NOISE_MARGIN
from runtime.bundle import Bundle, write_bundle
from runtime.manifest import ModelSpec, Variant
from runtime.verify import VerifyReport, verify

Mutate = Callable[[ModelProto], None]

NOISE = {
    "age": {"age": 6.6e-5, "low": 1.1e-5, "high": 1.4e-4, "probabilities": 3.0e-6},
    "faces": {"boxes": 1.2e-4, "scores": 2.0e-6, "keypoints": 1.8e-4},
    "crowd": {"boxes": 3.6e-5, "scores": 4.2e-7, "keypoints": 3.1e-5},
}
"""Of torch on one processor with AVX-512; in years, pixels and shares. Others have 0.6 to 4.8 times as much."""

FAINTEST = (
    "network.decoder12.blocks.0.depthwise2.conv.weight",
    "network.encoder.12.depthwise2.conv.weight",
    "network.encoder.9.depthwise2.conv.weight",
)
"""Of the detector's 97 layers, those whose rounding moves the recorded answers least: 50 to 65 times the noise."""


def node(model: ModelProto, name: str) -> NodeProto:
    (found,) = [n for n in model.graph.node if n.name == name]
    return found


def of_type(model: ModelProto, kind: str) -> list[NodeProto]:
    return [n for n in model.graph.node if n.op_type == kind]


def change(model: ModelProto, name: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes an initializer; it must really change."""
    (tensor,) = [i for i in model.graph.initializer if i.name == name]
    before = numpy_helper.to_array(tensor)
    after = np.ascontiguousarray(function(before.copy())).astype(before.dtype)
    assert not np.array_equal(before, after)
    tensor.CopyFrom(numpy_helper.from_array(after, name))


def attribute(model: ModelProto, name: str, value: int | bytes) -> None:
    """Changes an attribute of the graph's only Resize of the input, the first one."""
    resize = of_type(model, "Resize")[0]
    (found,) = [a for a in resize.attribute if a.name == name]
    if isinstance(value, bytes):
        assert found.s != value
        found.s = value
    else:
        assert found.i != value
        found.i = value


def to_float16(weight: np.ndarray) -> np.ndarray:
    return weight.astype(np.float16).astype(np.float32)


def to_bfloat16(weight: np.ndarray) -> np.ndarray:
    """The detector's weights lie on the float16 grid, so rounding them there would change nothing."""
    np.testing.assert_array_equal(weight, to_float16(weight))
    return torch.from_numpy(weight).bfloat16().float().numpy()


def rounded(weight: str, function: Callable[[np.ndarray], np.ndarray]) -> Mutate:
    return lambda model: change(model, weight, function)


def layers(path: Path) -> list[str]:
    """The weights of convolutions and of the head, in the order of computation."""
    model = onnx.load(path)
    return [n.input[1] for n in model.graph.node if n.op_type in ("Conv", "Gemm")]


def channels_swapped(model: ModelProto) -> None:
    """Blue, green, red pixels."""
    change(model, "backbone.conv.weight", lambda w: w[:, ::-1])
    change(model, "backbone.means", lambda m: m[:, ::-1])


def years_swapped(model: ModelProto) -> None:
    def swap(years: np.ndarray) -> np.ndarray:
        years[[30, 31]] = years[[31, 30]]
        return years

    change(model, "years", swap)


def interval(low: float, high: float) -> Mutate:
    """The shares below which `low` and `high` lie."""

    def mutate(model: ModelProto) -> None:
        shares = [n.input[1] for n in of_type(model, "Less")]
        assert len(shares) == 2
        for name, share, old in zip(shares, (low, high), (0.1, 0.9), strict=True):
            if share != old:
                change(model, name, lambda _, share=share: np.float32(share))

    return mutate


def outputs_exchanged(first: str, second: str) -> Mutate:
    def mutate(model: ModelProto) -> None:
        names = {first: second, second: first}
        for n in model.graph.node:
            n.output[:] = [names.get(name, name) for name in n.output]
            n.input[:] = [names.get(name, name) for name in n.input]

    return mutate


def softmax_over_the_batch(model: ModelProto) -> None:
    (softmax,) = of_type(model, "Softmax")
    (axis,) = [a for a in softmax.attribute if a.name == "axis"]
    axis.i = 0


AGE_MUTANTS: dict[str, Mutate] = {
    "channels swapped": channels_swapped,
    "resize asymmetric": lambda m: attribute(m, "coordinate_transformation_mode", b"asymmetric"),
    "resize align corners": lambda m: attribute(m, "coordinate_transformation_mode", b"align_corners"),
    "antialias off": lambda m: (attribute(m, "exclude_outside", 0), attribute(m, "antialias", 0)),
    "border counted in": lambda m: attribute(m, "exclude_outside", 0),
    "mean missing": lambda m: change(m, "backbone.means", np.zeros_like),
    "means in reverse": lambda m: change(m, "backbone.means", lambda means: means[:, ::-1]),
    "two years swapped": years_swapped,
    "years off by one": lambda m: change(m, "years", lambda years: years + 1),
    "youngest at zero": lambda m: change(m, "years", np.floor),
    "interval of 90 %": interval(0.05, 0.95),
    "low at 11 %": interval(0.11, 0.9),
    "high at 89 %": interval(0.1, 0.89),
    "low and high exchanged": outputs_exchanged("low", "high"),
    "soft-max over the batch": softmax_over_the_batch,
    "head's bias to float16": lambda m: change(m, "head.bias", to_float16),
}
AGE_LAYERS = (
    "backbone.conv.weight",
    *(f"backbone.blocks.{block}.conv{half}.weight" for block in range(5) for half in (1, 2)),
    "head.weight",
)


def keypoints_turned(model: ModelProto) -> None:
    """y x instead of x y."""
    last = next(n for n in model.graph.node if "keypoints" in n.output)
    last.output[:] = ["x_y"]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0], np.int64), "turned"))
    model.graph.node.append(helper.make_node("Gather", ["x_y", "turned"], ["keypoints"], axis=2))


def shift_of(model: ModelProto) -> tuple[list[NodeProto], str]:
    """The two subtractions of the letterbox's offset from the answers, and the name of the offset."""
    slices = {n.output[0] for n in of_type(model, "Slice")}
    users = [n for n in of_type(model, "Sub") if n.input[1] in slices]
    (shift,) = {n.input[1] for n in users}
    assert len(users) == 2
    return users, shift


def offset_missing(model: ModelProto) -> None:
    users, _ = shift_of(model)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.float32), "none"))
    for user in users:
        user.input[1] = "none"


def offset_turned(model: ModelProto) -> None:
    """The border above taken for the one on the left."""
    users, shift = shift_of(model)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0], np.int64), "turned"))
    index = list(model.graph.node).index(users[0])
    model.graph.node.insert(index, helper.make_node("Gather", [shift, "turned"], ["turned_shift"], axis=0))
    for user in users:
        user.input[1] = "turned_shift"


def nms_input(position: int, value: float) -> Mutate:
    def mutate(model: ModelProto) -> None:
        (suppression,) = of_type(model, "NonMaxSuppression")
        change(model, suppression.input[position], lambda old: np.full_like(old, value))

    return mutate


def blending(threshold: int, value: float) -> Mutate:
    """What a candidate must score (0) or overlap (1) to be averaged in."""

    def mutate(model: ModelProto) -> None:
        name = of_type(model, "Greater")[threshold].input[1]
        change(model, name, lambda old: np.full_like(old, value))

    return mutate


def levels_to_one(model: ModelProto) -> None:
    """0 … 1 instead of -1 … 1."""
    scale = next(n for n in of_type(model, "Mul") if "div" in n.output)
    subtract = next(n for n in of_type(model, "Sub") if n.output[0] == scale.input[0])
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 / 255, np.float32), "whole"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    scale.input[1], subtract.input[1] = "whole", "zero"


def cells_moved(model: ModelProto) -> None:
    """By half a cell: their places are whole numbers and a half, times the stride."""
    add = next(n for n in of_type(model, "Add") if is_constant(model, n.input[1], 0.5))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "corner"))
    add.input[1] = "corner"


def is_constant(model: ModelProto, name: str, value: float) -> bool:
    return any(i.name == name and (numpy_helper.to_array(i) == value).all() for i in model.graph.initializer)


FACES_MUTANTS: dict[str, Mutate] = {
    "channels swapped": lambda m: change(m, "network.stem.weight", lambda w: w[:, ::-1]),
    "resize asymmetric": lambda m: attribute(m, "coordinate_transformation_mode", b"asymmetric"),
    "antialias off": lambda m: (attribute(m, "exclude_outside", 0), attribute(m, "antialias", 0)),
    "levels 0 to 1": levels_to_one,
    "keypoints y x": keypoints_turned,
    "letterbox offset missing": offset_missing,
    "letterbox offset turned": offset_turned,
    "anchors at the cells' corners": cells_moved,
    "suppression at 0.2": nms_input(3, 0.2),
    "suppression at 0.4": nms_input(3, 0.4),
    "suppression at 0.5": nms_input(3, 0.5),
    "scores from 0.6": nms_input(4, 0.6),
    "at most one face": nms_input(2, 1),
    "blends what overlaps 0.5": blending(1, 0.5),
    "blends scores from 0.3": blending(0, 0.3),
    "offsets one further": lambda m: change(m, "network.regressor.bias", lambda b: np.roll(b, 1)),
}


def rows_and_columns_exchanged(model: ModelProto) -> None:
    """The cell's row taken for its column: of a picture that is not square they differ."""
    (stack,) = [n for n in of_type(model, "Concat") if any("stack" in name for name in n.output)]
    stack.input[:] = list(reversed(stack.input))


CROWD_MUTANTS: dict[str, Mutate] = {
    name: FACES_MUTANTS[name]
    for name in (
        "channels swapped",
        "levels 0 to 1",
        "keypoints y x",
        "suppression at 0.2",
        "suppression at 0.5",
        "at most one face",
        "blends what overlaps 0.5",
        "offsets one further",
    )
} | {
    "scores from 0.1": nms_input(4, 0.1),
    "blends scores from 0.1": blending(0, 0.1),
    "rows and columns exchanged": rows_and_columns_exchanged,
}


def with_fixed_tolerances(spec: ModelSpec, noise: dict[str, float]) -> ModelSpec:
    """What the gate allows at least, with another noise than that of this processor."""
    assert spec.parity is not None
    assert noise.keys() == spec.parity.outputs.keys()
    outputs = {
        name: dataclasses.replace(output, atol=NOISE_MARGIN * noise[name])
        for name, output in spec.parity.outputs.items()
    }
    return dataclasses.replace(spec, parity=dataclasses.replace(spec.parity, outputs=outputs))


def bundle_with(bundle: Bundle, model: str, graph: bytes, path: Path, *, own: bool = True) -> Bundle:
    """A bundle of that model alone, with this graph and the recorded answers of the true one; every hash is right.

    Its tolerances are the bundle's ``own``, or those by `NOISE`.
    """
    spec = bundle.manifest.models[model]
    spec = spec if own else with_fixed_tolerances(spec, NOISE[model])
    variant = Variant(spec.variants["fp32"].file, hashlib.sha256(graph).hexdigest(), len(graph))
    assert spec.golden is not None
    assert spec.trace is not None
    kept = {file: bundle.read(file) for file in (spec.golden.file, spec.trace.file)}
    spec = dataclasses.replace(spec, variants={"fp32": variant})
    manifest = dataclasses.replace(bundle.manifest, models={model: spec}, files={})
    return write_bundle(path, manifest, {variant.file: graph, **kept})


def mutated(age_bundle: Path, model: str, mutate: Mutate, path: Path, *, own: bool = True) -> Bundle:
    bundle = Bundle.open(age_bundle)
    proto = onnx.load_from_string(bundle.graph(model))
    mutate(proto)
    return bundle_with(bundle, model, proto.SerializeToString(), path / "mutant.edge", own=own)


def verdict(age_bundle: Path, model: str, mutate: Mutate, path: Path, *, own: bool = False) -> VerifyReport:
    return verify(mutated(age_bundle, model, mutate, path, own=own), threads=1)


def worst(report: VerifyReport) -> float:
    """The largest error as a multiple of what is allowed; of outputs that must be equal, infinite if they are not."""
    return max(
        check.max_abs / check.allowed if check.allowed else np.inf if check.max_abs else 0.0 for check in report.checks
    )


@pytest.mark.parametrize("model", ["age", "faces", "crowd"])
def test_the_unchanged_graph_passes(age_bundle, tmp_path, model):
    report = verdict(age_bundle, model, lambda proto: None, tmp_path, own=True)
    assert report, report
    bundle = Bundle.open(age_bundle)
    assert len(bundle.golden(model)) >= 8
    batches = {case.inputs["face"].shape[0] for case in bundle.golden("age")}
    assert batches >= {1, 2, 7, 32}


@pytest.mark.parametrize("name", AGE_MUTANTS)
def test_every_mutant_of_the_age_graph_is_told(age_bundle, tmp_path, name):
    report = verdict(age_bundle, "age", AGE_MUTANTS[name], tmp_path)
    assert not report, f"{name} went unnoticed:\n{report}"


def test_every_layer_of_the_age_graph_is_listed(age_bundle):
    assert tuple(layers(age_bundle / "age.onnx")) == AGE_LAYERS


@pytest.mark.parametrize("weight", AGE_LAYERS)
def test_any_one_layer_rounded_to_float16_is_told(age_bundle, tmp_path, weight):
    report = verdict(age_bundle, "age", rounded(weight, to_float16), tmp_path)
    assert not report, f"{weight} went unnoticed:\n{report}"
    assert worst(report) > 2


@pytest.mark.parametrize("weight", AGE_LAYERS)
def test_any_one_layer_rounded_to_bfloat16_is_told_by_the_bundle_itself(age_bundle, tmp_path, weight):
    mutate = rounded(weight, lambda w: FORMATS["bfloat16"](torch.from_numpy(w)).numpy())
    assert worst(verdict(age_bundle, "age", mutate, tmp_path, own=True)) > 4


@pytest.mark.parametrize("name", FACES_MUTANTS)
def test_every_mutant_of_the_detector_is_told(age_bundle, tmp_path, name):
    report = verdict(age_bundle, "faces", FACES_MUTANTS[name], tmp_path)
    assert not report, f"{name} went unnoticed:\n{report}"


@pytest.mark.parametrize("name", CROWD_MUTANTS)
def test_mutants_of_the_crowd_detector_are_told(age_bundle, tmp_path, name):
    report = verdict(age_bundle, "crowd", CROWD_MUTANTS[name], tmp_path)
    assert not report, f"{name} went unnoticed:\n{report}"


@pytest.mark.parametrize("weight", FAINTEST)
def test_the_faintest_layers_of_the_detector_rounded_are_told(age_bundle, tmp_path, weight):
    report = verdict(age_bundle, "faces", rounded(weight, to_bfloat16), tmp_path)
    assert not report, f"{weight} went unnoticed:\n{report}"
    assert worst(report) > 1.3


@pytest.mark.parametrize("weight", FAINTEST)
def test_the_faintest_layers_in_8_bits_are_told_by_the_bundle_itself(age_bundle, tmp_path, weight):
    mutate = rounded(weight, lambda w: FORMATS["8 bits"](torch.from_numpy(w)).numpy())
    assert worst(verdict(age_bundle, "faces", mutate, tmp_path, own=True)) > 2


@pytest.mark.slow
def test_any_one_layer_of_the_detector_rounded_is_told(age_bundle, tmp_path):
    weights = layers(age_bundle / "faces.onnx")
    assert len(weights) == 89
    unnoticed = [w for w in weights if verdict(age_bundle, "faces", rounded(w, to_bfloat16), tmp_path)]
    assert unnoticed == []


@pytest.mark.parametrize(
    ("model", "mutate", "named"),
    [
        ("age", rounded("backbone.blocks.3.conv1.weight", to_float16), "backbone.blocks.3.norm1/Conv"),
        ("age", AGE_MUTANTS["antialias off"], "Resize"),
        ("faces", rounded(FAINTEST[0], to_bfloat16), FAINTEST[0].replace(".weight", "/Conv")),
    ],
    ids=["float16", "antialias off", "bfloat16"],
)
def test_the_faulty_node_is_named(age_bundle, tmp_path, model, mutate, named):
    difference = explain(mutated(age_bundle, model, mutate, tmp_path), model)
    assert difference is not None
    assert difference.node == named, str(difference)
