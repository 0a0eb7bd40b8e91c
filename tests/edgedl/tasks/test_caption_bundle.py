"""The caption bundle: what is in it, parity with torch and a plain search token for token, and every mutant caught."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper

import edgedl
from edgedl.nn.efficientnet_lite import LITE2, EfficientNetLite
from edgedl.tasks.caption import bundle as caption_module
from edgedl.tasks.caption.bundle import (
    CLIP_INPUTS,
    ENCODED_AT_ONCE,
    REMEMBERED_AT_ONCE,
    SLOTS,
    caption_bundle,
    caption_outputs,
    clip_cases,
)
from edgedl.tasks.caption.network.attention import SpatialDecoder
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.captioning import Decoder
from edgedl.weights.catalogue import EFFICIENTNET_LITE0, EFFICIENTNET_LITE2
from edgedl.weights.efficientnet_lite import load_efficientnet_lite
from edgedl.weights.fetch import WeightsError
from exporters.convert import convert
from exporters.errors import GuardError
from exporters.execute import LEVELS, open_graph
from exporters.explain import explain
from exporters.graphs import all_nodes
from exporters.spec import Signature
from runtime.bundle import Bundle
from runtime.media.frames import FrameSampling
from runtime.pipelines.caption import CaptionSettings
from runtime.verify import verify
from runtime.vocabulary import Vocabulary
from tests.edgedl.tasks.captioners import VOCABULARY, captioner
from tests.edgedl.tasks.test_age_mutants import attribute, bundle_with, change, of_type, to_float16, worst
from tests.exporters.searches import Rule, as_arrays, reference_search
from tests.frozen_bundles import MINIMA, least_sizes

pytestmark = pytest.mark.xdist_group("caption_bundle")

SETTINGS = CaptionSettings(FrameSampling.even(4), 64)
ABOUT = {
    "settings": SETTINGS,
    "name": "small",
    "version": "1.2.0",
    "description": "Two lines for tests.",
    "license": "Apache-2.0",
    "provenance": {"seed": 3, "data": "none"},
}


@pytest.fixture(scope="module")
def network() -> CaptionNetwork:
    return captioner()


@pytest.fixture(scope="module")
def bundle(network: CaptionNetwork, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("caption") / "small.edge"
    return caption_bundle(path, network, VOCABULARY, weights=[EFFICIENTNET_LITE0], **ABOUT)  # type: ignore[arg-type]


def test_what_the_bundle_says(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.task, manifest.name, manifest.version, manifest.license) == (
        "caption", "small", "1.2.0", "Apache-2.0"
    )  # fmt: skip
    assert manifest.pipeline == {"frames": {"kind": "even", "n": 4}, "shorter": 64}
    assert manifest.provenance["seed"] == 3
    assert manifest.provenance["weights"][0]["sha256"] == EFFICIENTNET_LITE0.member_sha256
    assert bundle.read("NOTICE").decode() == EFFICIENTNET_LITE0.notice + "\n"
    assert Vocabulary.from_bytes(bundle.read("vocabulary.txt")) == VOCABULARY
    spec = bundle.model("caption")
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in (*spec.inputs, *spec.outputs)] == [
        ("clips", "uint8", ("B", "T", "H", "W", 3)),
        ("counts", "int64", ("B",)),
        ("tokens", "int64", ("B", 3, 8)),
        ("lengths", "int64", ("B", 3)),
        ("scores", "float32", ("B", 3)),
    ]
    assert least_sizes(spec) == MINIMA["caption"]
    assert spec.parity is not None
    assert spec.parity.outputs["tokens"].decision == spec.parity.outputs["lengths"].decision == "exact"


def test_the_recorded_cases_span_what_is_asked_for(bundle: Bundle) -> None:
    cases = {case.name: case for case in bundle.golden("caption")}
    assert set(cases) == {slot.name for slot in SLOTS}
    shapes = [case.inputs["clips"].shape for case in cases.values()]
    assert {shape[0] for shape in shapes} >= {1, 3, 8}
    assert {shape[1] for shape in shapes} >= {1, 2, 7, 30}
    assert len({shape[2:4] for shape in shapes}) == 6
    assert (57, 43) in {shape[2:4] for shape in shapes}
    assert any((case.inputs["counts"] < case.inputs["clips"].shape[1]).any() for case in cases.values())
    assert not cases["black"].inputs["clips"].any()
    assert cases["white"].inputs["clips"].min() == 255
    sentences = {VOCABULARY.decode(row) for case in cases.values() for row in case.outputs["tokens"][:, 0]}
    assert len(sentences) >= 8, "cases that all answer alike would show little"
    assert len({int(length) for case in cases.values() for length in case.outputs["lengths"][:, 0]}) >= 4


def test_clips_are_judged_few_at_a_time(network: CaptionNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clips may be taken, little of them is held: at 352 pixels all at once took gigabytes."""
    pictures, frames = [], []
    kind = type(network.decoder)
    encode, remember = CaptionNetwork.frame_features, kind.remember

    def encoding(self: CaptionNetwork, few: torch.Tensor) -> torch.Tensor:
        pictures.append(len(few))
        return encode(self, few)

    def remembering(self: Decoder, features: torch.Tensor, counts: torch.Tensor) -> Any:
        frames.append(features.shape[:2])
        return remember(self, features, counts)

    monkeypatch.setattr(CaptionNetwork, "frame_features", encoding)
    monkeypatch.setattr(kind, "remember", remembering)
    few = clip_cases(network)
    assert max(pictures) == ENCODED_AT_ONCE
    assert max(clips * length for clips, length in frames) <= REMEMBERED_AT_ONCE
    monkeypatch.setattr(caption_module, "ENCODED_AT_ONCE", 1000)
    monkeypatch.setattr(caption_module, "REMEMBERED_AT_ONCE", 1000)
    for one, other in zip(few, clip_cases(network), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.inputs["clips"], other.inputs["clips"])


def test_the_bundle_describes_clips(bundle: Bundle) -> None:
    case = next(case for case in bundle.golden("caption") if case.name == "two frames")
    with edgedl.load(bundle.path, threads=1) as pipeline:
        answer = pipeline.predict(case.inputs["clips"][0])
    assert answer["caption"] == VOCABULARY.decode(case.outputs["tokens"][0, 0])
    assert answer["score"] == pytest.approx(case.outputs["scores"][0, 0], abs=1e-4)
    assert [other["caption"] for other in answer["alternatives"]] == [
        VOCABULARY.decode(row) for row in case.outputs["tokens"][0, 1:]
    ]


def noise_clips(batch: int, frames: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Coarse noise, and counts from 1 to all."""
    chance = np.random.default_rng(batch + 100 * frames)
    coarse = chance.integers(0, 256, (batch, frames, 4, 3, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 3 // width
    counts = 1 + np.arange(batch) * max(frames - 1, 0) // max(batch - 1, 1)
    return {"clips": coarse[:, :, rows][:, :, :, columns], "counts": counts if batch > 1 else np.array([frames])}


def by_plain_search(network: CaptionNetwork, clips: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """The search of the numpy reference over torch's decoder in float64, every clip and every sentence by itself."""
    rule = Rule(network.beam, network.max_length, network.length_penalty)
    answers = []
    for clip, count in zip(clips, counts, strict=True):
        features = network.frame_features(torch.from_numpy(clip[:count]))  # padding does not even go in
        memory = network.decoder.remember(features[None], torch.tensor([count]))

        @cache  # a sentence goes on from the state of its beginning
        def said(words: tuple[int, ...], memory: tuple[torch.Tensor, ...] = memory) -> tuple[torch.Tensor, Any]:
            before = said(words[:-1])[1] if len(words) > 1 else network.decoder.begin(memory, 1)
            return network.decoder.step(torch.tensor([words[-1:]]), before, memory)

        answers.append(reference_search(lambda words, said=said: said((0, *words))[0][0, 0].numpy(), rule))
    return as_arrays(answers, rule)


@pytest.mark.parametrize(
    ("kind", "beam"),
    [
        pytest.param("mean", 3, id="beam 3"),
        pytest.param("mean", 1, id="greedy", marks=pytest.mark.slow),
        pytest.param("attention", 5, id="attention, beam 5", marks=pytest.mark.slow),
        pytest.param("spatial", 3, id="spatial, beam 3"),
        pytest.param("spatial", 1, id="spatial, greedy", marks=pytest.mark.slow),
        pytest.param("top", 3, id="top, beam 3"),
    ],
)
def test_every_token_is_that_of_a_plain_search(bundle: Bundle, network: CaptionNetwork, kind: str, beam: int) -> None:
    if (kind, beam) == ("mean", 3):
        graph = bundle.graph("caption")
    else:
        network = captioner(kind, beam=beam)
        example = noise_clips(2, 4, 37, 41)
        signature = Signature(CLIP_INPUTS, caption_outputs(network))
        graph = convert(network, example, signature, 18).model.SerializeToString()
    double = copy.deepcopy(network).double()
    session = open_graph(graph, LEVELS[1])
    looked_at = 0
    for batch, frames, height, width in [
        (1, 1, 97, 131), (1, 2, 32, 32), (1, 7, 23, 61), (1, 30, 35, 19), (3, 2, 101, 33), (3, 7, 5, 7), (8, 1, 45, 64),
        (8, 4, 31, 29), (2, 3, 1, 1),
    ]:  # fmt: skip
        inputs = noise_clips(batch, frames, height, width)
        clips, counts = inputs["clips"], inputs["counts"]
        with torch.no_grad():
            features = double.frame_features(torch.from_numpy(clips.reshape(-1, height, width, 3)))
            memory = double.decoder.remember(features.unflatten(0, (batch, frames)), torch.from_numpy(counts))
            decided = double.margins(memory).numpy() > 1e-4
            torch_says = [tensor.numpy() for tensor in double.search(memory)]
            expected = by_plain_search(double, clips, counts)
        answers = session.run(None, inputs)
        for answer, theirs, reference in zip(answers[:2], torch_says[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(answer[decided], reference[decided])
            np.testing.assert_array_equal(theirs[decided], reference[decided])
        np.testing.assert_allclose(answers[2][decided], expected[2][decided], rtol=0, atol=2e-5)
        looked_at += int(decided.sum())
    assert looked_at >= 20, f"only {looked_at} of 28 clips are decided"


def loop(model: ModelProto) -> NodeProto:
    (found,) = of_type(model, "Loop")
    return found


def in_loop(model: ModelProto, kind: str) -> list[NodeProto]:
    (body,) = [a.g for a in loop(model).attribute]
    return [node for node in body.node if node.op_type == kind]


def gates_swapped(layer: int) -> Callable[[ModelProto], None]:
    """Input gate for forget gate in one of the two layers."""

    def mutate(model: ModelProto) -> None:
        split = in_loop(model, "Split")[layer]
        split.output[0], split.output[1] = split.output[1], split.output[0]

    return mutate


def constant(model: ModelProto, name: str, value: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def divisor(model: ModelProto) -> NodeProto:
    """The division of a frame's weight by how many frames count."""
    (found,) = [node for node in of_type(model, "Div") if node.input[1].startswith("sum")]
    return found


def mean_not_divided(model: ModelProto) -> None:
    divisor(model).input[1] = constant(model, "one", np.ones((1, 1), np.float32))


def counts_ignored(model: ModelProto) -> None:
    (less,) = of_type(model, "Less")
    less.input[1] = constant(model, "many", np.full((1, 1), 1000, np.int64))


def state_begins_at(value: float) -> Callable[[ModelProto], None]:
    def mutate(model: ModelProto) -> None:
        (begin,) = of_type(model, "ConstantOfShape")
        del begin.attribute[:]
        begin.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.array([value], np.float32))))

    return mutate


def state_not_carried(model: ModelProto) -> None:
    """The first layer forgets its hidden state at every word."""
    first = in_loop(model, "Concat")[0]
    carried = first.input[1]
    (body,) = [a.g for a in loop(model).attribute]
    body.node.insert(0, helper.make_node("Sub", [carried, carried], ["forgotten"], "forgotten"))
    first.input[1] = "forgotten"


def penalties(model: ModelProto, power: float) -> None:
    """Another exponent of the length, in the search and at its end."""
    table = in_loop(model, "Gather")[1].input[0]
    last = next(node.input[1] for node in of_type(model, "Div") if any("select" in name for name in node.input))
    lengths = np.arange(1, 9, dtype=np.float32) ** power
    change(model, table, lambda _: lengths)
    change(model, last, lambda _: lengths[-1])


def unknown_word_allowed(model: ModelProto) -> None:
    (mask,) = [
        i.name
        for i in model.graph.initializer
        if list(i.dims) == [len(VOCABULARY)] and np.isinf(numpy_helper.to_array(i)).any()
    ]
    change(model, mask, np.zeros_like)


def hypotheses_not_followed(model: ModelProto) -> None:
    """A word is appended to whatever stood at its place, not to the sentence that it continues."""
    (body,) = [a.g for a in loop(model).attribute]
    (history,) = [node for node in body.node if node.output[0] == body.output[2].name]
    assert history.op_type == "Where"
    history.input[2] = body.input[3].name


def stops_with_the_first(model: ModelProto) -> None:
    """The loop ends when any hypothesis of any clip has ended."""
    (every,) = in_loop(model, "ReduceMin")
    every.op_type = "ReduceMax"


def words_cut(model: ModelProto) -> None:
    (less,) = in_loop(model, "Less")
    change(model, less.input[1], lambda length: length - 1)


MUTANTS: dict[str, Callable[[ModelProto], object]] = {
    "channels swapped": lambda m: change(m, "encoder.first.weight", lambda w: w[:, ::-1]),
    "resize asymmetric": lambda m: attribute(m, "coordinate_transformation_mode", b"asymmetric"),
    "resize align corners": lambda m: attribute(m, "coordinate_transformation_mode", b"align_corners"),
    "antialias off": lambda m: (attribute(m, "exclude_outside", 0), attribute(m, "antialias", 0)),
    "first layer's gates swapped": gates_swapped(0),
    "second layer's gates swapped": gates_swapped(1),
    "mean not divided by counts": mean_not_divided,
    "counts ignored": counts_ignored,
    "state begins at 0.05": state_begins_at(0.05),
    "state not carried": state_not_carried,
    "length penalty ignored": lambda m: penalties(m, 0),
    "length penalty 1": lambda m: penalties(m, 1),
    "unknown word allowed": unknown_word_allowed,
    "hypotheses not followed": hypotheses_not_followed,
    "stops with the first": stops_with_the_first,
    "one word less": words_cut,
    "clip ignored": lambda m: change(m, "decoder.from_clip.weight", np.zeros_like),
}

WORKED_OUT = {
    "word matrix": [16, len(VOCABULARY)],
    "word table": [len(VOCABULARY), 64],
    "first.gates without words": [16, 64],
}
"""Shapes of what `Decoder.word_matrix` and `Decoder.word_tables` give: torch works so small ones out as it exports."""

WEIGHTS = (
    "encoder.first.weight",
    "encoder.second.weight",
    "decoder.second.gates.weight.T",
    "decoder.project.weight",
    "decoder.from_clip.weight",
    *WORKED_OUT,
)


def matrices(model: ModelProto) -> dict[str, str]:
    """The names in the graph of what is multiplied or looked up, by the names of `WEIGHTS`."""
    held = {i.name: list(i.dims) for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and i.dims}
    wide = {name: dims for name, dims in held.items() if len(dims) > 1}
    own = {said: name for said, dims in WORKED_OUT.items() for name in wide if wide[name] == dims}
    return {name: name for name in wide if name not in own.values()} | own


def mutated(bundle: Bundle, mutate: Callable[[ModelProto], object], folder: Path) -> Bundle:
    model = onnx.load_from_string(bundle.graph("caption"))
    mutate(model)
    return bundle_with(bundle, "caption", model.SerializeToString(), folder / "mutant.edge")


def test_the_unchanged_graph_passes_with_room(bundle: Bundle, tmp_path: Path) -> None:
    same = mutated(bundle, lambda model: None, tmp_path)
    report = verify(same, threads=1)
    assert report, report
    scores = [check for check in report.checks if check.output == "scores"]
    assert scores[0].max_abs < 0.2 * scores[0].allowed
    assert explain(same, "caption") is None


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_told(bundle: Bundle, tmp_path: Path, name: str) -> None:
    report = verify(mutated(bundle, MUTANTS[name], tmp_path), threads=1)
    assert not report, f"{name} went unnoticed:\n{report}"


def test_every_weight_is_listed(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.graph("caption"))
    held = matrices(model)
    assert set(held) == set(WEIGHTS)
    used = {name for node in all_nodes(model) for name in node.input}
    assert used.issuperset(held.values())


@pytest.mark.parametrize("weight", WEIGHTS)
def test_any_one_weight_rounded_to_float16_is_told(bundle: Bundle, tmp_path: Path, weight: str) -> None:
    report = verify(mutated(bundle, lambda m: change(m, matrices(m)[weight], to_float16), tmp_path), threads=1)
    assert not report, f"{weight} went unnoticed:\n{report}"
    assert worst(report) > 1.5


@pytest.mark.parametrize(
    ("mutate", "named"),
    [
        (MUTANTS["resize asymmetric"], "Resize"),
        (MUTANTS["first layer's gates swapped"], "Loop/Split"),
        (lambda m: change(m, matrices(m)["word matrix"], to_float16), "Loop/MatMul_3"),
    ],
    ids=["resize", "gates swapped", "float16"],
)
def test_the_faulty_node_is_named(
    bundle: Bundle, tmp_path: Path, mutate: Callable[[ModelProto], object], named: str
) -> None:
    difference = explain(mutated(bundle, mutate, tmp_path), "caption")
    assert difference is not None
    assert difference.node == named, str(difference)


def test_a_foreign_vocabulary_is_refused(network: CaptionNetwork, tmp_path: Path) -> None:
    short = Vocabulary(VOCABULARY.words[:-1])
    with pytest.raises(GuardError, match="the vocabulary has 18 words and the network 19"):
        caption_bundle(tmp_path / "b.edge", network, short, weights=[], **ABOUT)  # type: ignore[arg-type]
    assert not (tmp_path / "b.edge").exists()


def test_an_undecided_network_is_refused(network: CaptionNetwork) -> None:
    undecided = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in undecided.decoder.parameters():
            parameter *= 1e-4
    with pytest.raises(GuardError, match=r"case 'photo' needs 1 clips whose captions are clear by .*, found are 0"):
        clip_cases(undecided)


def test_a_clip_like_those_that_were_learnt_from_is_the_first_case(network: CaptionNetwork) -> None:
    """Of several clips, the first one whose search is clear; the other cases stay what they are without it."""
    chance = np.random.default_rng(3)
    clips = [chance.integers(0, 256, (3, 20 + size, 24, 3), dtype=np.uint8) for size in range(6)]
    first, *others = clip_cases(network, decided=1.0, shown=clips)
    assert first.name == "example"
    assert any(np.array_equal(first.inputs["clips"][0], clip) for clip in clips)
    assert first.inputs["counts"].tolist() == [3]
    assert "example" not in {case.name for case in others}, "one is enough"
    assert [case.name for case in others] == [case.name for case in clip_cases(network, decided=1.0)]


def test_cases_are_the_same_every_time(network: CaptionNetwork, bundle: Bundle) -> None:
    for case, recorded in zip(clip_cases(network), bundle.golden("caption"), strict=True):
        assert case.name == recorded.name
        assert all((case.inputs[name] == recorded.inputs[name]).all() for name in case.inputs)
    assert dataclasses.is_dataclass(SLOTS[0])


@pytest.mark.network
@pytest.mark.slow
def test_the_larger_published_encoder_passes_the_gate(tmp_path: Path) -> None:
    """With its real weights, looking at few pixels, and a decoder that has learnt nothing."""
    encoder = EfficientNetLite(LITE2, 64)
    try:
        encoder.load_state_dict(load_efficientnet_lite(LITE2).state_dict())
    except WeightsError as error:
        pytest.skip(str(error))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = SpatialDecoder(encoder.features, len(VOCABULARY), embedding=10, hidden=16, spread=3.0)
    network = CaptionNetwork(encoder, decoder, max_length=6).eval()
    bundle = caption_bundle(
        tmp_path / "b.edge",
        network,
        VOCABULARY,
        weights=[EFFICIENTNET_LITE2],
        untrained=True,
        **ABOUT,  # type: ignore[arg-type]
    )
    assert verify(bundle).ok
    assert bundle.read("NOTICE").decode() == EFFICIENTNET_LITE2.notice + "\n"
