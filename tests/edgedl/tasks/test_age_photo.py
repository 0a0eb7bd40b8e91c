"""One graph from a photo to ages: the steps against those of `runtime`, the whole against the pipeline, and mutants.

The pipeline is the oracle. Nothing here depends on how fast or how loaded the machine is.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgedl.cli import main
from edgedl.data import synthetic_faces
from edgedl.data.portrait import portrait
from edgedl.tasks.age.photo import crops, graph, looks, pixels
from edgedl.tasks.age.photo.graph import photo_graph
from edgedl.tasks.age.photo.model import TOLERANCES, photo_outputs, pipeline_answers, telling_photos, with_photo
from exporters.errors import GuardError
from exporters.execute import LEVELS, open_graph
from exporters.graphs import all_nodes
from exporters.spec import Case
from exporters.writer import Value, Writer
from runtime import faces
from runtime.bundle import Bundle
from runtime.compare import compare
from runtime.intervals import Coverage, Interval, Measured
from runtime.manifest import OutputParity
from runtime.pipelines.age import AgePipeline, AgeSettings
from runtime.rewriting import rewritten
from tests.public_bundle import public_age_bundle

pytestmark = pytest.mark.xdist_group("public age bundle")

HOPPER = portrait()
CHANCE = np.random.default_rng(4).integers(0, 256, (301, 405, 3), dtype=np.uint8)


def written(build: Callable[..., list[Value]], **feeds: np.ndarray) -> list[np.ndarray]:
    """Runs steps alone; each feed becomes an input."""
    writer = Writer()
    inputs = {
        name: writer.input(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in feeds.items()
    }
    for place, value in enumerate(build(writer, **inputs)):
        writer.output(f"answer{place}", value, [None] * {TensorProto.UINT8: 3}.get(value.dtype, 4))
    return open_graph(writer.model("steps").SerializeToString(), LEVELS[1]).run(None, feeds)


def image_of(plane: np.ndarray) -> np.ndarray:
    return plane[0].transpose(1, 2, 0)


@pytest.mark.parametrize("size", [(64, 64), (63, 65), (2, 16), (31, 1), (1, 40), (299, 403)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 7])
def test_halving_is_exact(size, factor):
    image = np.ascontiguousarray(CHANCE[: size[0], : size[1]])
    half, done = faces.halved(image, factor)
    found = written(
        lambda writer, image, size: [pixels.halved(image, pixels.halvings(size, 1))[0]],
        image=image, size=np.array([factor]),
    )  # fmt: skip
    np.testing.assert_array_equal(found[0], half)
    assert done in (1, 2, 4)


@pytest.mark.parametrize("shape", [(300, 400), (301, 201), (96, 120), (50, 20), (1, 70)], ids=str)
@pytest.mark.parametrize("longest", [64, 192])
def test_a_photo_is_brought_to_its_size_to_the_last_level(shape, longest):
    image = np.ascontiguousarray(CHANCE[: shape[0], : shape[1]])
    (found,) = written(lambda _, image, s: [pixels.fitted(image, s)], image=image, s=np.array([longest]))
    expected = faces.fitted(image, longest)
    assert found.shape[2:] == expected.shape[:2]
    # OpenCV computes the last few columns of a row apart, and not alike on every processor.
    assert (image_of(found) != expected).mean() < 0.002


@pytest.mark.parametrize("side", [20, 56, 64, 65, 96, 112, 128, 200, 299])
@pytest.mark.parametrize("wanted", [56, 64])
def test_squares_are_brought_to_their_side_to_the_last_level(side, wanted):
    image = np.ascontiguousarray(CHANCE[:side, 3 : 3 + side])
    (found,) = written(
        lambda _, image, s: [pixels.brought_to(image, s, pixels.halvings(pixels.sides(image)[0], s))],
        image=image, s=np.array([wanted]),
    )  # fmt: skip
    expected = faces.brought_to(image, wanted)
    assert np.abs(image_of(found) - expected).max() <= 1
    assert (image_of(found) != expected).mean() < 0.004


@pytest.mark.parametrize(
    "box",
    [(10, 20, 30, 40), (-5, -7, 50, 40), (380, 290, 420, 330), (-50, -60, -20, -10), (500, 5, 510, 9), (7, 7, 7, 7)],
    ids=["inside", "top left", "bottom right", "before", "behind", "one pixel"],
)
def test_what_lies_outside_repeats_the_border(box):
    (found,) = written(
        lambda writer, image, first, last: [pixels.cut(image, pixels.regions(image, first, last), writer.whole(0))],
        image=CHANCE, first=np.array([box[:2]]), last=np.array([box[2:]]),
    )  # fmt: skip
    np.testing.assert_array_equal(found, faces.cut(CHANCE, *box))


def detection(x: float, y: float, side: float, turn: float) -> faces.Detection:
    shape = np.array([[-0.2, -0.2], [0.2, -0.18], [0.01, 0.05], [0, 0.3], [-0.4, 0], [0.4, 0]])
    cosine, sine = np.cos(turn), np.sin(turn)
    keypoints = shape @ np.array([[cosine, sine], [-sine, cosine]]) * side + [x, y]
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)
    return faces.Detection(box, 0.9, keypoints.astype(np.float32))


CROPS = {
    "aligned": faces.AlignedCrop(64, ((0.3052, 0.3010), (0.6806, 0.3009), (0.494, 0.534)), (1.0, 1.0, 0.5)),
    "margin": faces.MarginCrop(0.4),
}


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
@pytest.mark.parametrize(
    "face",
    [
        (200, 150, 30, 0.1),
        (200, 150, 80, -0.4),
        (250, 300, 300, 0.2),
        (20, 10, 60, 0),
        (256, 300, 560, 0.05),
        (5, 5, 2, 0),
    ],
    ids=["few pixels", "turned", "large", "at the corner", "larger than the photo", "two pixels"],
)
def test_a_face_is_cut_out_as_the_pipeline_does(crop, face):
    found = detection(*face)
    row = np.concatenate([found.box, [found.score], found.keypoints.reshape(-1)]).astype(np.float32)[None]
    (crop_found,) = written(
        lambda _, image, rows: [crops.crops(image, rows, crop, lambda plane: plane)], image=HOPPER, rows=row
    )
    expected = crop(HOPPER, found)
    assert crop_found.shape[2:] == expected.shape[:2]
    difference = np.abs(image_of(crop_found) - expected)
    assert difference.max() <= (1 if isinstance(crop, faces.AlignedCrop) else 0)
    assert (difference > 0).mean() < 0.002


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The bundle that `edgedl pull age --one-graph` makes, its networks and settings, and what it recorded."""
    public_age_bundle()
    path = tmp_path_factory.mktemp("photo") / "one.edge"
    assert main(["pull", "age", "--one-graph", "-o", str(path), "--json"]) == 0
    bundle = Bundle.open(path)
    networks = [onnx.load_from_string(bundle.graph(name)) for name in ("faces", "crowd", "age")]
    settings = AgeSettings.from_json(bundle.manifest.pipeline)
    with AgePipeline(bundle, threads=1) as pipeline:
        yield SimpleNamespace(
            bundle=bundle, pipeline=pipeline, golden=bundle.golden("photo"), settings=settings,
            outputs=photo_outputs(len(settings.years)),
            graph=lambda settings=settings: photo_graph(*networks, settings),
        )  # fmt: skip


def first_wrong(whole: SimpleNamespace, model: onnx.ModelProto) -> str | None:
    """The first photo of which the criterion says no."""
    session = open_graph(model.SerializeToString(), LEVELS[1])
    names = [output.name for output in whole.outputs]
    for case in sorted(whole.golden, key=lambda case: case.inputs["image"].size):
        answers = dict(zip(names, session.run(names, dict(case.inputs)), strict=True))
        for output in whole.outputs:
            rule = OutputParity(TOLERANCES[output.name], 0.0, decision=output.decision)
            if not compare(output.name, answers[output.name], case.outputs[output.name], rule):
                return case.name
    return None


def test_the_bundle_has_the_model_with_its_proof_and_the_pipeline_leaves_it_alone(whole):
    spec = whole.bundle.model("photo")
    assert list(whole.bundle.manifest.models) == ["faces", "crowd", "age", "photo"]
    assert [tensor.name for tensor in spec.outputs] == list(TOLERANCES)
    assert spec.parity.reference == "runtime.pipelines.age"
    assert {name: rule.atol for name, rule in spec.parity.outputs.items()} == TOLERANCES
    assert spec.parity.outputs["boxes"].max_abs < 0.01
    assert spec.parity.outputs["ages"].max_abs < TOLERANCES["ages"]
    assert set(whole.pipeline.engines) == {"faces", "crowd", "age"}


def test_the_recorded_answers_are_those_of_the_pipeline(whole):
    for case in whole.golden[:4]:
        expected = pipeline_answers(whole.pipeline, Case(case.name, dict(case.inputs)))
        for name, values in case.outputs.items():
            np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-3)


def test_it_has_standard_operators_only_and_every_weight_once(whole):
    model = onnx.load_from_string(whole.bundle.graph("photo"))
    onnx.checker.check_model(model)
    assert {node.domain for node in all_nodes(model)} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.ir_version <= 10
    networks = sum(len(whole.bundle.graph(name)) for name in ("faces", "age"))
    assert len(model.SerializeToString()) < networks + 400_000
    assert Counter(node.op_type for node in all_nodes(model))["NonMaxSuppression"] == 2  # one detector, and the crowd


def test_the_telling_photos_need_every_look(whole, monkeypatch):
    finder = whole.pipeline.finder
    seen, detect = Counter(), finder.detect
    monkeypatch.setattr(
        finder, "detect", lambda image, model="faces": seen.update([(model, image.shape[:2])]) or detect(image, model)
    )
    counts = {}
    for case in telling_photos():
        seen.clear()
        found = whole.pipeline.find(case.inputs["image"])
        counts[case.name] = (len(found), set(seen))
    looked = set().union(*(shapes for _, shapes in counts.values()))
    assert {("faces", (64, 64)), ("faces", (192, 192)), ("crowd", (288, 288)), ("crowd", (56, 56))} <= looked
    assert ("faces", (384, 384)) in counts["framed"][1]
    assert counts["framed"][0] == 1
    assert counts["crowd"][0] > whole.pipeline.settings.looks.crowd.sheet.most, "more than one sheet"
    assert [name for name, (count, _) in counts.items() if not count] == ["a line", "noise", "black", "one pixel"]


def without(**changes: object) -> Callable[[AgeSettings], AgeSettings]:
    return lambda settings: dataclasses.replace(settings, looks=dataclasses.replace(settings.looks, **changes))


def in_crowd(**changes: float) -> Callable[[AgeSettings], AgeSettings]:
    return lambda settings: without(crowd=dataclasses.replace(settings.looks.crowd, **changes))(settings)


def shifted(settings: AgeSettings) -> AgeSettings:
    """The face a tenth larger in its crop."""
    template = tuple((0.5 + (x - 0.5) * 1.1, 0.5 + (y - 0.5) * 1.1) for x, y in settings.crop.template)
    return dataclasses.replace(settings, crop=dataclasses.replace(settings.crop, template=template))


SETTINGS = {
    "crop margin": shifted,
    "second look left out": without(close_enough=1e-6),
    "frame left out": without(frame=0.0),
    "crowd left out": in_crowd(smallest=1.0, least=1e6),
}

MORE_SETTINGS = {
    "closer second look": without(look_again=1.5),
    "narrower frame": without(frame=0.25),
    "coarser first look": without(overview=160),
    "crowd never missed": in_crowd(below=0.0, doubt=0.0),
    "crowd too sure": in_crowd(sure=0.05),
    "smaller crowd": in_crowd(shown=10.0),
}


def each(faults: Mapping[str, object], others: Mapping[str, object]) -> list[object]:
    """All faults; of those that take longest together most are slow."""
    quick = [pytest.param(fault, id=name) for name, fault in faults.items()]
    return quick + [pytest.param(fault, id=name, marks=pytest.mark.slow) for name, fault in others.items()]


@pytest.mark.parametrize("change", each(SETTINGS, MORE_SETTINGS))
def test_a_change_of_a_setting_changes_the_graph_and_is_caught(whole, change):
    assert first_wrong(whole, whole.graph(change(whole.settings))) is not None


def planted(monkeypatch: pytest.MonkeyPatch, module: object, name: str, fault: object) -> None:
    assert hasattr(module, name)
    monkeypatch.setattr(module, name, fault)


def half_without_rounding(image: Value) -> Value:
    """Every other pixel instead of a mean."""
    writer = image.writer
    return writer.op("Slice", image, writer.whole(0, 0), writer.whole(1 << 30, 1 << 30), writer.whole(0, 1),
                     writer.whole(2, 2))  # fmt: skip


STEPS = {
    "halving": lambda patch: planted(patch, pixels, "_half", half_without_rounding),
}

MORE_STEPS = {
    "darker pixels": lambda patch: planted(
        patch, pixels, "to_float", lambda value: value.cast(TensorProto.FLOAT) * (0.9 if value.dtype == 2 else 1)
    ),
    "nobody is shown alone": lambda patch: planted(patch, looks, "POSSIBLE", 0.7),
    "first look is not moved by the frame": lambda patch: planted(
        patch, looks.Looker, "_frame", lambda self: (self.overview, None, None)
    ),
    "the crowd's faces are not merged": lambda patch: planted(
        patch, looks.Looker, "_with_added", lambda self, end: end.faces
    ),
}


@pytest.mark.parametrize("plant", each(STEPS, MORE_STEPS))
def test_a_fault_in_a_step_is_caught(whole, plant, monkeypatch):
    plant(monkeypatch)
    assert first_wrong(whole, whole.graph()) is not None


def test_calibrated_ends_are_those_of_the_interval():
    measured = Measured("faces", "val", Coverage(0.8, 20.0, 100), {})
    interval = Interval(0.8, (2.0, 30.0, 80.0), (-1.0, 20.0, 55.0), (9.0, 41.0, 83.0), measured)
    ages = np.array([-3.0, 0.0, 9.5, 41.0, 77.7, 99.0], np.float32)
    found = written(lambda _, ages: [value.reshaped(1, 1, 1, -1) for value in graph._ends(ages, interval)], ages=ages)
    for end, expected, bound in zip(found, interval.ends(ages), (np.minimum, np.maximum), strict=True):
        np.testing.assert_allclose(bound(end.reshape(-1), ages), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_another_interval_makes_the_model_anew(whole, tmp_path):
    measured = Measured("faces", "val", Coverage(0.8, 20.0, 100), {})
    interval = Interval(0.8, (2.0, 30.0, 90.0), (-1.0, 20.0, 55.0), (9.0, 41.0, 93.0), measured)
    settings = {**whole.bundle.manifest.pipeline, "interval": interval.to_json()}
    made = with_photo(rewritten(whole.bundle, dataclasses.replace(whole.bundle.manifest, pipeline=settings)))
    recorded = {case.name: case.outputs for case in made.golden("photo")}
    before = {case.name: case.outputs for case in whole.golden}
    low, high = interval.ends(recorded["portrait"]["ages"])
    np.testing.assert_allclose(recorded["portrait"]["low"], low, rtol=0, atol=1e-4)
    np.testing.assert_allclose(recorded["portrait"]["high"], high, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(recorded["portrait"]["ages"], before["portrait"]["ages"])


def test_drawn_scenes_that_chose_nothing_are_answered_alike(whole):
    session = open_graph(whole.bundle.graph("photo"), LEVELS[1])
    names = [output.name for output in whole.outputs]
    for seed, count, size in ((11, 1, 240), (12, 2, 530), (13, 4, 771)):
        image, _, _ = synthetic_faces.scene(seed=seed, faces=count, size=size)
        expected = pipeline_answers(whole.pipeline, Case("scene", {"image": image}))
        answers = dict(zip(names, session.run(names, {"image": image}), strict=True))
        for output in whole.outputs:
            rule = OutputParity(TOLERANCES[output.name], 0.0, decision=output.decision)
            check = compare(output.name, answers[output.name], expected[output.name], rule)
            assert check, (seed, check)


@pytest.mark.parametrize("setting", ["sheet", "fitted", "crowd"])
def test_a_bundle_that_leaves_a_step_out_is_refused(whole, setting):
    old = without(**{setting: {"sheet": 0, "fitted": False, "crowd": None}[setting]})(whole.settings)
    with pytest.raises(GuardError, match=f"leave out {setting}"):
        whole.graph(old)


def test_a_network_of_ones_own_has_no_photo_to_be_made_of(capsys):
    assert main(["export", "tests.small_cnn:factory", "--one-graph"]) == 2
    assert "--one-graph composes the networks of an age run" in capsys.readouterr().err
