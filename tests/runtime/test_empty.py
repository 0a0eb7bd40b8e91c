"""Empty dimensions: every bundle that a task makes, by every way in, gets what mathematics says or a refusal.

ONNX Runtime would abort this process on some of these calls, and answer others out of memory that nobody wrote.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime.axes import input_dimensions
from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.errors import InputError, TooLargeError
from runtime.golden import RecordedInputs
from runtime.manifest import DimensionSpec, ModelSpec, StateSpec, TensorSpec
from runtime.pipelines import load
from runtime.pipelines.tensors import TensorPipeline
from tests.frozen_bundles import ARRAYS, MINIMA, NAMES, RECURRENT, unpack
from tests.runtime.conftest import graph_bytes

Feed = dict[str, np.ndarray]


def emptied(bundle: Bundle, model: str, names: tuple[str, ...]) -> Feed:
    """A recorded case, its largest, with some of its dimensions cut to nothing."""
    cases = [dict(case.inputs) for case in bundle.golden(model)]
    largest = max(cases, key=lambda inputs: sum(array.size for array in inputs.values()))
    shapes = {tensor.name: tensor.shape for tensor in bundle.model(model).inputs}
    return {
        name: array[tuple(slice(0) if size in names else slice(None) for size in shapes[name])]
        for name, array in largest.items()
    }


def sizes_of(spec: ModelSpec, feed: Feed) -> dict[int | str, int]:
    return {s: n for t in spec.inputs if t.name in feed for s, n in zip(t.shape, feed[t.name].shape, strict=True)}


def held_to_signature(spec: ModelSpec, feed: Feed, answers: Feed) -> None:
    """An answer to an empty call has the declared shape, and a state in it is the one that came in."""
    sizes = sizes_of(spec, feed)
    before = {state.output: state.input for state in spec.state}
    for tensor in spec.outputs:
        array = answers[tensor.name]
        assert array.shape == tuple(sizes.get(size, size) for size in tensor.shape)
        assert array.dtype == tensor.dtype
        if array.size:
            came_in = feed.get(before[tensor.name], np.zeros_like(array))
            np.testing.assert_array_equal(array, came_in)


@pytest.fixture(params=[False, True], ids=["as it was", "with ranges"])
def bundles(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Bundle]:
    """Unpacks a bundle, with and without ranges in its manifest."""
    return lambda name: unpack(name, tmp_path, declared=request.param)


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for count in range(1, len(names) + 1):
        yield from itertools.combinations(names, count)


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_of_every_bundle(name: str, bundles: Callable[[str], Bundle]) -> None:
    bundle = bundles(name)
    for model, spec in bundle.manifest.models.items():
        engine = Engine(bundle.graph(model), spec=spec, threads=1, name=model)
        for names in subsets(input_dimensions(spec)):
            feed = emptied(bundle, model, names)
            least = {size: MINIMA[model][size] for size in names}
            if not spec.dimensions:
                least = {size: 0 if size in "NB" else 1 for size in names}
            ways: list[Callable[[], Feed]] = [lambda: engine.run(feed), lambda: engine.batch([feed, feed])[1]]  # noqa: B023
            for way in ways:
                if any(least.values()):
                    with pytest.raises(InputError, match=" is 0, the bundle takes 1 or more"):
                        way()
                else:
                    held_to_signature(spec, feed, way())


@pytest.mark.parametrize("name", RECURRENT)
def test_the_stream_of_every_recurrent_bundle(name: str, bundles: Callable[[str], Bundle]) -> None:
    bundle = bundles(name)
    ((model, spec),) = bundle.manifest.models.items()
    engine = Engine(bundle.graph(model), spec=spec, threads=1, name=model)
    carried = {state.input for state in spec.state}
    for names in subsets(input_dimensions(spec)):
        feed = emptied(bundle, model, names)
        given = {key: array for key, array in feed.items() if key not in carried}
        begun = {key: array for key, array in feed.items() if key in carried}
        for stream in (engine.stream(), engine.stream(begun)):
            was = stream.state
            if "T" in names and not spec.dimensions:
                with pytest.raises(InputError, match="T is 0, the bundle takes 1 or more"):
                    stream.step(given)
                assert stream.state.keys() == was.keys()
                continue
            answers = stream.step(given)
            after = {state.output: stream.state[state.input] for state in spec.state}
            held_to_signature(spec, given | was, answers | after)


def test_steps_of_nothing_change_nothing(tmp_path: Path) -> None:
    """Between two steps, any number of empty pieces: the answers are those without them."""
    bundle = unpack("timer-lstm", tmp_path, declared=True)
    engine = Engine(bundle.graph("timer"), spec=bundle.model("timer"), threads=1, name="timer")
    steps = np.random.default_rng(0).random((3, 4, 2), dtype=np.float32)
    straight, interrupted = engine.stream(), engine.stream()
    for step in range(4):
        expected = straight(steps[:, step : step + 1])
        assert interrupted(steps[:, :0])["answer"].shape == (3, 0)
        np.testing.assert_array_equal(interrupted(steps[:, step : step + 1])["answer"], expected["answer"])


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("name", ARRAYS)
def test_the_pipeline_of_every_bundle_of_arrays(name: str, bundles: Callable[[str], Bundle]) -> None:
    bundle = bundles(name)
    ((model, spec),) = bundle.manifest.models.items()
    carried = {state.input for state in spec.state}
    with load(bundle, threads=1) as pipeline:
        for names in subsets(input_dimensions(spec)):
            feed = emptied(bundle, model, names)
            given = {key: array for key, array in feed.items() if key not in carried}
            for asked in (given, feed):
                if any((MINIMA[model] if spec.dimensions else {"T": 1}).get(size) for size in names):
                    with pytest.raises(InputError, match=" is 0, the bundle takes 1 or more"):
                        pipeline.predict(asked)
                    continue
                found = pipeline.predict(asked)["outputs"]
                sizes = sizes_of(spec, asked)
                arrays = {
                    t.name: np.array(found[t.name], t.dtype).reshape([sizes.get(size, size) for size in t.shape])
                    for t in spec.outputs
                }
                held_to_signature(spec, asked, arrays)


PICTURES: dict[str, tuple[int, ...]] = {
    "no rows": (0, 5, 3),
    "no columns": (5, 0, 3),
    "nothing": (0, 0, 3),
    "no colours": (5, 5, 0),
    "no pictures": (0, 5, 5, 3),
    "pictures of no rows": (2, 0, 5, 3),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("age", "digits", "caption"))])
def test_a_picture_of_nothing_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    picture = np.zeros(PICTURES[kind], np.uint8)
    with load(unpack(name, tmp_path), threads=1) as pipeline:
        ways: list[Callable[[Any], Any]] = [pipeline.predict, lambda array: pipeline.predict(npy(array))]
        if name == "age":
            ways += [pipeline.find, lambda array: pipeline.ages([array]), pipeline.probe]
        elif name.startswith("digits"):
            ways += [lambda array: pipeline.read([array]), lambda array: pipeline.draw(array, {})]
        else:
            ways += [lambda array: pipeline.captions([array]), pipeline.probe]
        for way in ways:
            with pytest.raises(InputError):
                way(picture)


def test_no_pictures_have_no_answers(tmp_path: Path) -> None:
    for name, method in (("age", "ages"), ("digits-dbn", "read"), ("caption-mean", "captions")):
        with load(unpack(name, tmp_path), threads=1) as pipeline:
            assert getattr(pipeline, method)([]) == []


@pytest.mark.parametrize("prompt", [b"", b"\xef\xbb\xbf"], ids=["empty", "a mark alone"])
def test_an_empty_prompt_begins_a_text(prompt: bytes, tmp_path: Path) -> None:
    with load(unpack("chars", tmp_path), threads=1) as pipeline:
        assert pipeline.predict(prompt, length=4) == pipeline.predict(b"\n", length=4)


# --- the rule itself, on graphs of one node ------------------------------------------------------------------------


def total(**ranges: DimensionSpec) -> Engine:
    """all [N] = the sum of x [N, K] over K: of no elements it is 0, which its signature does not say."""
    graph = graph_bytes(
        [helper.make_node("ReduceSum", ["x", "axes"], ["all"], keepdims=0)],
        [("x", TensorProto.FLOAT, ["N", "K"])],
        [("all", TensorProto.FLOAT, ["N"])],
        [("axes", np.array([1], np.int64))],
    )
    inputs, outputs = (TensorSpec("x", "float32", ("N", "K")),), (TensorSpec("all", "float32", ("N",)),)
    spec = ModelSpec(variants={}, inputs=inputs, outputs=outputs, dimensions=ranges)
    return Engine(graph, spec=spec, threads=1, name="total")


def test_what_the_export_has_tried_is_asked_of_the_graph() -> None:
    tried = total(K=DimensionSpec(0))
    np.testing.assert_array_equal(tried.run(np.ones((2, 0), np.float32))["all"], [0, 0])
    assert tried.run(np.ones((0, 0), np.float32))["all"].shape == (0,)


def test_what_nobody_has_tried_is_refused() -> None:
    with pytest.raises(InputError, match="total: K is 0, the bundle takes 1 or more"):
        total().run(np.ones((2, 0), np.float32))
    # Recorded, it was proven.
    found = total().run(RecordedInputs(x=np.ones((2, 0), np.float32)))
    np.testing.assert_array_equal(found["all"], [0, 0])


def test_a_batch_that_the_outputs_lack_is_refused() -> None:
    graph = graph_bytes(
        [helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0), helper.make_node("Neg", ["x"], ["minus"])],
        [("x", TensorProto.FLOAT, ["N", 3])],
        [("top", TensorProto.FLOAT, []), ("minus", TensorProto.FLOAT, ["N", 3])],
    )
    engine = Engine(graph, threads=1, name="max")
    nothing = np.ones((0, 3), np.float32)
    with pytest.raises(InputError, match="max: N is 0, and what the model answers then does not follow"):
        engine.run(nothing)
    assert engine.run(nothing, outputs=["minus"])["minus"].shape == (0, 3)


def test_two_dimensions_that_were_tried_apart_are_not_asked_together() -> None:
    graph = graph_bytes(
        [helper.make_node("ReduceSum", ["x"], ["all"], keepdims=0)],
        [("x", TensorProto.FLOAT, ["K", "M"])],
        [("all", TensorProto.FLOAT, [])],
    )
    spec = Engine(graph, threads=1).spec
    ranges = {"K": DimensionSpec(0), "M": DimensionSpec(0)}
    engine = Engine(graph, spec=ModelSpec({}, spec.inputs, spec.outputs, dimensions=ranges), threads=1)
    assert engine.run(np.ones((0, 2), np.float32))["all"] == 0
    with pytest.raises(InputError, match="K and M are 0"):
        engine.run(np.ones((0, 0), np.float32))


def test_a_fixed_size_of_0_never_reaches_the_graph() -> None:
    graph = graph_bytes(
        [helper.make_node("Concat", ["x", "more"], ["both"], axis=1)],
        [("x", TensorProto.FLOAT, ["N", 2]), ("more", TensorProto.FLOAT, ["N", 0])],
        [("both", TensorProto.FLOAT, ["N", 2])],
    )
    engine = Engine(graph, threads=1, name="both")
    with pytest.raises(InputError, match="both: an input holds nothing"):
        engine.run(np.ones((3, 2), np.float32), np.ones((3, 0), np.float32))


def test_an_empty_input_that_is_not_the_steps_does_not_keep_the_state() -> None:
    """sn = s0 + the sum of x over T and K: with no K it is s0 by chance, and with no T by definition."""
    graph = graph_bytes(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["all"], keepdims=0),
            helper.make_node("ReduceSum", ["key"], ["one"], keepdims=0),
            helper.make_node("Add", ["all", "s0"], ["some"]),
            helper.make_node("Add", ["some", "one"], ["sn"]),
        ],
        [
            ("x", TensorProto.FLOAT, ["B", "T"]),
            ("key", TensorProto.FLOAT, ["T", "K"]),
            ("s0", TensorProto.FLOAT, ["B"]),
        ],
        [("sn", TensorProto.FLOAT, ["B"])],
        [("axes", np.array([1], np.int64))],
    )
    spec = Engine(graph, threads=1).spec
    ranges = {name: DimensionSpec(0) for name in "TKB"}
    spec = ModelSpec({}, spec.inputs, spec.outputs, (StateSpec("s0", "sn", ("B",), "float32"),), ranges)
    engine = Engine(graph, spec=spec, threads=1)
    s0 = np.array([5.0], np.float32)
    x, key = np.ones((1, 3), np.float32), np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(engine.run(x[:, :0], key[:0], s0)["sn"], s0)
    asked: list[Any] = []
    session = engine._session
    engine._session = type("Asked", (), {"run": lambda _, *a: asked.append(1) or session.run(*a)})()
    np.testing.assert_array_equal(engine.run(x, key[:, :0], s0)["sn"], [8.0])
    assert asked, "the graph itself answers"


def test_a_header_alone_asks_for_no_memory(tmp_path: Path) -> None:
    """Ten billion rows of no steps are eighty bytes; their state would be 120 gigabytes."""
    with load(unpack("timer-lstm", tmp_path, declared=True), threads=1) as pipeline:
        with pytest.raises(TooLargeError, match="the answer has 60,000,000,000 numbers"):
            pipeline.predict(npy(np.zeros((10**10, 0, 2), np.float32)))
        assert pipeline.predict(npy(np.zeros((0, 10**18, 2), np.float32)))["outputs"]["hn"] == [[]]
        assert isinstance(pipeline, TensorPipeline)
