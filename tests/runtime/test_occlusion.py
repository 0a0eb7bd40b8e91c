"""Occlusion maps: graphs whose answer is known to come from one place light exactly there."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle, write_bundle
from runtime.errors import InputError
from runtime.manifest import Manifest, ModelSpec, TensorSpec, Variant
from runtime.occlusion import Probe, occlude
from runtime.pipelines import load

BLACK = (0, 0, 0)
REGION = (slice(4, 8), slice(8, 12))


def bright_sum(pictures):
    """The sum of the levels of REGION, all three colours."""
    return pictures[:, REGION[0], REGION[1]].astype(np.float64).sum(axis=(1, 2, 3))


def photo(height=16, width=24, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3)).astype(np.uint8)


def test_the_map_lights_exactly_where_the_answer_comes_from():
    pixels = photo()
    found = occlude(Probe(pixels, bright_sum, "sum"), patch=4, stride=4, fill=BLACK)
    assert found.whole == pixels[REGION].sum()
    expected = np.zeros((4, 6))
    expected[1, 2] = pixels[REGION].sum()
    np.testing.assert_array_equal(found.effect, expected)
    lit = found.per_pixel() > 0
    assert lit[REGION].all()
    assert lit.sum() == 16


def test_patches_of_one_pixel_give_back_the_weights_of_a_linear_answer():
    pixels, weights = photo(5, 7), np.random.default_rng(1).normal(size=(5, 7, 3))
    answer = lambda pictures: np.einsum("nhwc,hwc->n", pictures.astype(np.float64), weights)  # noqa: E731
    found = occlude(Probe(pixels, answer, "sum"), patch=1, fill=BLACK)
    np.testing.assert_allclose(found.per_pixel(), (pixels * weights).sum(axis=2), atol=1e-9)


@settings(max_examples=40)
@given(st.integers(5, 24), st.integers(5, 24), st.integers(1, 5), st.data())
def test_every_pixel_is_hidden_and_none_twice_by_one_patch(height, width, patch, data):
    stride = data.draw(st.integers(1, patch))
    hidden = []

    def answer(pictures):
        hidden.extend((pictures == 0).all(axis=3))
        return np.zeros(len(pictures))

    found = occlude(
        Probe(np.full((height, width, 3), 9, np.uint8), answer, "nothing"), patch=patch, stride=stride, fill=BLACK
    )
    masks = np.stack(hidden[1:])
    assert not hidden[0].any()
    assert masks.any(axis=0).all()
    assert (masks.sum(axis=(1, 2)) == patch * patch).all()
    assert len(masks) == len(found.tops) * len(found.lefts)
    assert not found.per_pixel().any()


def test_the_default_colour_is_the_mean_and_changes_nothing_on_a_plain_picture():
    plain = np.full((16, 16, 3), (10, 200, 30), np.uint8)
    assert not occlude(Probe(plain, lambda p: p.astype(np.float64).sum(axis=(1, 2, 3)), "sum")).effect.any()


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"patch": 17}, "patch of 17 pixels does not fit"),
        ({"patch": 0}, "patch of 0 pixels does not fit"),
        ({"patch": 4, "stride": 5}, "move on by 1 to 4 pixels, not by 5"),
    ],
    ids=["large", "none", "gaps"],
)
def test_patches_that_do_not_fit_are_refused(given_settings, message):
    with pytest.raises(InputError, match=message):
        occlude(Probe(photo(), bright_sum, "sum"), **given_settings)


def test_too_many_patches_and_answers_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="more than 4096"):
        occlude(Probe(photo(100, 100), bright_sum, "sum"), patch=1)
    with pytest.raises(InputError, match="not finite"):
        occlude(Probe(photo(), lambda p: np.full(len(p), np.nan), "nothing"))


def region_bundle(path: Path, shape: tuple[int | str, ...], dtype=TensorProto.UINT8, outputs: int = 1) -> Bundle:
    """A graph that sums the levels of REGION; with several outputs, the k-th value is k times that."""
    batched = len(shape) == 4
    axes = [1, 2] if batched else [0, 1]
    last = [2, 3] if batched else [1, 2]
    ints = lambda name, values: numpy_helper.from_array(np.array(values, np.int64), name)  # noqa: E731
    nodes = [
        helper.make_node("Cast", ["picture"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["levels", "starts", "ends", "axes"], ["region"]),
        helper.make_node("ReduceSum", ["region", "all"], ["total"], keepdims=0),
        helper.make_node("Unsqueeze", ["total", "behind"], ["column"]),
        helper.make_node("Mul", ["column", "factors"], ["sums"]),
    ]
    weights = [
        ints("starts", [4, 8]), ints("ends", [8, 12]), ints("axes", axes), ints("all", [axes[0], *last]),
        ints("behind", [-1]), numpy_helper.from_array(np.arange(1, outputs + 1, dtype=np.float32), "factors"),
    ]  # fmt: skip
    answer = [shape[0], outputs] if batched else [outputs]
    graph = helper.make_graph(
        nodes,
        "region",
        [helper.make_tensor_value_info("picture", dtype, list(shape))],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, answer)],
        weights,
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    name = "uint8" if dtype == TensorProto.UINT8 else "float32"
    model = ModelSpec(
        variants={"fp32": Variant("region.onnx", hashlib.sha256(data).hexdigest(), len(data))},
        inputs=(TensorSpec("picture", name, tuple(shape)),),
        outputs=(TensorSpec("sums", "float32", tuple(answer), unit="level"),),
    )
    manifest = Manifest(
        name="region", version="1.0.0", task="generic", license="CC0-1.0", description="", models={"region": model}
    )
    return write_bundle(path, manifest, {"region.onnx": data})


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        (("N", "H", "W", 3), 1),
        (("N", 16, 24, 3), 3),
        (("H", "W", 3), 1),
        ((1, "H", "W", 3), 2),
        (("N", "H", "W", 1), 1),
    ],
    ids=["any size", "fixed size", "one picture", "batch of one", "grey"],
)
def test_a_bundle_that_sums_a_region_lights_there(tmp_path, shape, outputs):
    pixels = photo()
    with load(region_bundle(tmp_path / "region.edge", shape, outputs=outputs)) as pipeline:
        probe = pipeline.probe(pixels)
        found = occlude(probe, patch=4, stride=4, fill=BLACK)
    grey = shape[-1] == 1
    levels = (pixels @ np.array((0.299, 0.587, 0.114))).round() if grey else pixels
    assert found.whole == levels[REGION].sum() * outputs  # the largest of the values
    assert (probe.meaning, probe.unit) == ("sums" if outputs == 1 else f"sums[{outputs - 1}]", "level")
    assert np.flatnonzero(found.effect).tolist() == [8]  # row 1, column 2 of 6


def test_bundles_that_take_no_picture_or_another_size_say_so(tmp_path):
    floats = region_bundle(tmp_path / "float.edge", ("N", "H", "W", 3), TensorProto.FLOAT)
    fixed = region_bundle(tmp_path / "fixed.edge", ("N", 16, 24, 3))
    for bundle, message in (
        (floats, r"takes float32 \[N, H, W, 3\]; a picture can be hidden in"),
        (fixed, "takes pictures of width 24, this one has 30"),
    ):
        with load(bundle) as pipeline, pytest.raises(InputError, match=message):
            pipeline.probe(photo(16, 30))


def test_torch_is_not_needed(tmp_path):
    bundle = region_bundle(tmp_path / "region.edge", ("N", "H", "W", 3))
    np.save(tmp_path / "photo.npy", photo())
    code = (
        "import sys\nfrom runtime.occlusion import occlude\nfrom runtime.pipelines import load\n"
        f"with load({str(bundle.path)!r}) as pipeline:\n"
        f"    print(occlude(pipeline.probe({str(tmp_path / 'photo.npy')!r}), patch=4, stride=4).effect.argmax())\n"
        "print(sorted({'torch', 'onnx', 'matplotlib', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[1] == "[]"
