"""int8 within a budget: what is taken, what is refused, and what is left behind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.quantize import search
from exporters.quantize.calibration import activation_ranges
from exporters.quantize.candidates import DYNAMIC, STATIC, WIDE, Candidates
from exporters.quantize.emulation import EmulatedSession
from exporters.quantize.inputs import each_row, recorded_calls, single_rows
from exporters.quantize.quantize import UNDECIDED, quantize_bundle
from exporters.quantize.ranking import rank_layers
from exporters.quantize.resizing import write_all_sizes
from exporters.quantize.speed import is_gain
from runtime.bundle import Bundle, pack, record_proof, write_bundle
from runtime.engine import Engine
from runtime.errors import BundleError, DeviceError, InputError
from runtime.processor import processor_class
from runtime.proofs import Proof
from runtime.turns import Ratio
from runtime.verify import verify
from tests.small_cnn import LAYERS, SIZES, cnn_graph, cnn_judge, pictures, write_cnn_bundle

FAST, SLOW = Ratio(2.0, 1.9, 2.1), Ratio(0.9, 0.8, 1.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_cnn_bundle(tmp_path / "cnn.edge")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast this machine is decides nothing in a test."""
    monkeypatch.setattr(search, "compare_speed", lambda *_: FAST)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}


def int8_layers(bundle: Bundle, variant: str | None) -> int:
    """How many convolutions of a variant take what was dequantised, weights aside."""
    model = onnx.load_from_string(bundle.graph("cnn", variant or "fp32"))
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return sum(node.op_type == "Conv" and node.input[1] in dequantised for node in model.graph.node)


def test_a_variant_within_the_budget_is_written(bundle: Bundle):
    report = quantize_bundle(bundle, cnn_judge(bundle), allowed=0.2)
    written = Bundle.open(bundle.path)
    variant = written.model("cnn").variants["int8"]
    assert report.written is not None
    assert report.models == ("cnn",)
    assert written.digest == report.written.digest != bundle.digest
    budget = variant.budget
    assert budget is not None
    assert (budget.metric, budget.allowed, budget.n, budget.dataset) == ("accuracy", 0.2, SIZES["judge"], "blots")
    # float32 is what it is compared with, so here the share that changed is the drop.
    assert budget.decisions_changed == {processor_class(): pytest.approx(budget.fp32 - budget.value)}
    assert budget.recorded_changed[processor_class()].of == 1 + 7 + 16
    assert variant.bytes < 0.6 * written.model("cnn").variants["fp32"].bytes
    assert int8_layers(written, "int8") == len(LAYERS)


def test_the_answers_are_near_those_of_float32(bundle: Bundle):
    quantize_bundle(bundle, cnn_judge(bundle), allowed=0.2)
    spec = bundle.model("cnn")
    written = Bundle.open(bundle.path)
    exact, int8 = (Engine(written.graph("cnn", v), spec=spec, threads=1) for v in ("fp32", "int8"))
    x = {"pixels": pictures(4, 20)}
    error = np.abs(exact.run(x)["probabilities"] - int8.run(x)["probabilities"])
    assert 0 < error.mean() < 0.03


def test_a_budget_that_is_missed_leaves_the_bundle_as_it_was(bundle: Bundle):
    before = contents(bundle.path)
    judge = cnn_judge(bundle, lambda pipeline, part, value: value - 0.5 * (pipeline.variant == "int8"))
    report = quantize_bundle(bundle, judge, allowed=0.2)
    assert report.written is None
    assert report.judgements == ()
    assert "miss the budget" in report.reason
    assert contents(bundle.path) == before
    forms = {(attempt.form, attempt.calibration) for attempt in report.attempts}
    assert {(STATIC.name, "min-max"), (STATIC.name, "entropy"), (WIDE.name, "min-max")} <= forms


def test_the_part_that_judges_has_the_last_word(bundle: Bundle):
    before = contents(bundle.path)
    judge = cnn_judge(
        bundle, lambda pipeline, part, value: value - 0.5 * (pipeline.variant == "int8" and part == "judge")
    )
    report = quantize_bundle(bundle, judge, allowed=0.2)
    assert [attempt.verdict for attempt in report.attempts] == ["taken"]
    assert [judgement.within for judgement in report.judgements] == [False]
    assert report.written is None
    assert contents(bundle.path) == before


def test_a_budget_that_nothing_could_miss_is_refused(bundle: Bundle):
    before = contents(bundle.path)
    report = quantize_bundle(bundle, cnn_judge(bundle, lambda pipeline, part, value: 0.1 * value), allowed=0.2)
    assert report.written is None
    assert "the budget is vacuous: accuracy is 0.1 in float32" in report.reason
    assert report.attempts == ()
    assert contents(bundle.path) == before


@pytest.mark.parametrize(
    ("speed", "gain"),
    [(Ratio(1.3, 1.1, 1.5), True), (Ratio(1.19, 1.1, 1.3), False), (Ratio(1.3, 0.99, 1.5), False)],
    ids=["faster", "too little", "not in three of four turns"],
)
def test_a_gain_is_more_than_the_spread_and_worth_it(speed: Ratio, gain: bool):
    assert is_gain(speed) is gain


def test_a_slower_candidate_is_not_written(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search, "compare_speed", lambda *_: SLOW)
    before = contents(bundle.path)
    report = quantize_bundle(bundle, cnn_judge(bundle), allowed=0.9)
    assert report.written is None
    assert "0.90 times as fast" in report.reason
    assert {attempt.value for attempt in report.attempts} == {None}  # no metric was measured for nothing
    assert contents(bundle.path) == before


def test_a_model_without_a_decision_is_not_written(bundle: Bundle, tmp_path: Path):
    """A detector's boxes: whether they are right on another processor nothing that is recorded could tell."""
    model = bundle.model("cnn")
    assert model.parity is not None
    outputs = {name: replace(parity, decision=None) for name, parity in model.parity.outputs.items()}
    manifest = replace(bundle.manifest, models={"cnn": replace(model, parity=replace(model.parity, outputs=outputs))})
    files = {file.name: file.read_bytes() for file in bundle.path.iterdir() if file.name != "manifest.json"}
    undecided = write_bundle(tmp_path / "undecided.edge", manifest, files)
    report = quantize_bundle(undecided, cnn_judge(undecided), allowed=0.2)
    assert report.written is None
    assert report.reason == f"cnn: {UNDECIDED}"


def test_the_worst_layers_go_back_to_float32_one_by_one(bundle: Bundle):
    def told(pipeline, part, value):
        return 1 - 0.1 * int8_layers(pipeline.bundle, pipeline.variant)

    report = quantize_bundle(bundle, cnn_judge(bundle, told), allowed=0.25)
    taken = report.attempts[-1]
    assert [len(attempt.reverted) for attempt in report.attempts] == [0, 1, 2]
    assert (taken.verdict, taken.layers) == ("taken", 2)
    assert int8_layers(Bundle.open(bundle.path), "int8") == 2


def test_the_layer_that_int8_harms_is_ranked_first(tmp_path: Path):
    # The third convolution reads what the second one shouts: of a range of thousands its other channels have nothing.
    bundle = write_cnn_bundle(tmp_path / "loud.edge", cnn_graph(loud="second"))
    calls, _ = recorded_calls(cnn_judge(bundle), bundle, "calibrate", ["cnn"])
    feeds = [call.feed for call in calls["cnn"]]
    rows = single_rows(bundle.model("cnn"), feeds, 8)
    ranked = rank_layers(Candidates(bundle.graph("cnn"), feeds), STATIC, "min-max", rows)
    assert set(ranked) == set(LAYERS)
    worst, *others = ranked.values()
    assert next(iter(ranked)) in ("second", "third")
    assert min(others) < 0.1 * worst


def test_ranges_of_rows_are_those_of_their_batches(bundle: Bundle):
    spec = bundle.model("cnn")
    feeds = [{"pixels": pictures(count, count)} for count in (3, 1, 4)]
    rows = each_row(spec, feeds)
    assert [row["pixels"].shape[0] for row in rows] == [1] * 8
    np.testing.assert_array_equal(
        np.concatenate([row["pixels"] for row in rows]), np.concatenate([feed["pixels"] for feed in feeds])
    )
    assert (
        each_row(replace(spec, inputs=(replace(spec.inputs[0], shape=(8, *spec.inputs[0].shape[1:])),)), feeds) == feeds
    )
    model = onnx.load_from_string(bundle.graph("cnn"))
    of_batches, of_rows = (activation_ranges(model, ["Conv"], "min-max", calls).data for calls in (feeds, rows))
    assert of_rows.keys() == of_batches.keys()
    for name, found in of_rows.items():
        np.testing.assert_allclose(found.range_value, of_batches[name].range_value, rtol=1e-5)


def test_weights_of_7_bits_cannot_saturate(bundle: Bundle):
    candidates = Candidates(bundle.graph("cnn"), [{"pixels": pictures(9, 4)}])
    largest = {}
    for form in (STATIC, WIDE):
        model = onnx.load_from_string(candidates.build(form, "min-max", candidates.weighted(form)))
        arrays = [numpy_helper.to_array(value) for value in model.graph.initializer]
        largest[form.bits] = max(int(np.abs(a.astype(int)).max()) for a in arrays if a.dtype == np.int8 and a.size > 64)
    assert 2 * 255 * largest[7] <= 32767 < 2 * 255 * largest[8]


def test_an_interrupted_run_leaves_the_bundle_as_it_was(bundle: Bundle):
    def told(pipeline, part, value):
        if part == "judge":
            raise KeyboardInterrupt
        return value

    before = contents(bundle.path)
    with pytest.raises(KeyboardInterrupt):
        quantize_bundle(bundle, cnn_judge(bundle, told), allowed=0.2)
    assert contents(bundle.path) == before


def test_a_packed_bundle_stays_packed_and_its_proofs_keep_their_digest(bundle: Bundle, tmp_path: Path):
    proven = record_proof(
        bundle.path, Proof(bundle.digest, "here", "1.32.0", "some", "fp32", ok=True, date="2026-11-29")
    )
    packed = pack(proven, tmp_path / "packed.edge")
    for one in (packed, proven):
        report = quantize_bundle(one, cnn_judge(one), allowed=0.2)
        assert report.written is not None
        written = Bundle.open(one.path)
        assert written.path.is_dir() == one.path.is_dir()
        assert "int8" in written.model("cnn").variants
        assert [proof.digest for proof in written.proofs] == [bundle.digest] != [written.digest]


def test_the_result_can_go_elsewhere(bundle: Bundle, tmp_path: Path):
    before = (bundle.path / "manifest.json").read_bytes()
    report = quantize_bundle(bundle, cnn_judge(bundle), allowed=0.2, output=tmp_path / "other.edge")
    assert report.written is not None
    assert report.written.path == tmp_path / "other.edge"
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_a_signed_bundle_is_not_written_over(bundle: Bundle, tmp_path: Path):
    (bundle.path / "manifest.json.minisig").write_text("untrusted comment: of a test\n")
    signed = Bundle.open(bundle.path)
    with pytest.raises(BundleError, match=r"is signed .* write it elsewhere with -o"):
        quantize_bundle(signed, cnn_judge(signed), allowed=0.2)
    report = quantize_bundle(signed, cnn_judge(signed), allowed=0.2, output=tmp_path / "other.edge")
    assert report.written is not None
    assert not report.written.signatures


def test_a_model_that_is_not_there_is_refused(bundle: Bundle):
    with pytest.raises(InputError, match="no model 'faces'"):
        quantize_bundle(bundle, cnn_judge(bundle), allowed=0.2, models=["faces"])


def test_a_second_run_replaces_the_variant(bundle: Bundle):
    for allowed in (0.3, 0.2):
        quantize_bundle(Bundle.open(bundle.path), cnn_judge(bundle), allowed=allowed)
    budget = Bundle.open(bundle.path).model("cnn").variants["int8"].budget
    assert budget is not None
    assert budget.allowed == 0.2
    assert sorted(f.name for f in bundle.path.iterdir()) == [
        "cnn.golden.npz",
        "cnn.int8.onnx",
        "cnn.onnx",
        "manifest.json",
    ]


def test_verify_counts_the_decisions_of_the_variant(bundle: Bundle):
    quantize_bundle(bundle, cnn_judge(bundle), allowed=0.2)
    report = verify(bundle.path, variant="int8")
    (row,) = report.checks
    assert report.ok
    assert row.judged
    assert row.max_abs > 1e-4  # far over the tolerance of float32
    assert "of 24 decisions differ" in row.note


def lstm_graph() -> bytes:
    """y [T, 1, B, 64] of x [T, B, 32], one LSTM."""
    rng = np.random.default_rng(0)
    shapes = {"w": (1, 256, 32), "r": (1, 256, 64)}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="lstm", hidden_size=64)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 1, "B", 64])],
        [numpy_helper.from_array(rng.normal(size=s).astype(np.float32) * 0.1, n) for n, s in shapes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def test_a_recurrent_layer_has_a_dynamic_form_only():
    candidates = Candidates(lstm_graph(), [])
    assert candidates.weighted(STATIC) == ()
    assert candidates.weighted(DYNAMIC) == ("lstm",)
    graph = candidates.build(DYNAMIC, "", candidates.weighted(DYNAMIC))
    assert [node.op_type for node in onnx.load_from_string(graph).graph.node] == ["DynamicQuantizeLSTM"]
    x = {"x": np.random.default_rng(1).normal(size=(6, 2, 32)).astype(np.float32)}
    exact, int8 = (Engine(one, threads=1).run(x)["y"] for one in (candidates.graph, graph))
    assert 0 < np.abs(exact - int8).max() < 0.05


def test_a_graph_that_cannot_be_opened_is_not_taken(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Candidates, "build", lambda *_: b"no graph at all")
    report = quantize_bundle(bundle, cnn_judge(bundle), allowed=0.9)
    assert report.written is None
    assert {attempt.verdict.partition(":")[0] for attempt in report.attempts} == {
        "cannot be opened", "no layer for this form",
    }  # fmt: skip


def test_resize_with_the_sizes_of_all_axes_gives_the_same_numbers(bundle: Bundle):
    model = onnx.load_from_string(bundle.graph("cnn"))
    assert write_all_sizes(model) == 1
    assert write_all_sizes(model) == 0
    for shape in ((1, 24, 20), (3, 7, 50)):
        x = {"pixels": np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)}
        before, after = (Engine(g, threads=1).run(x) for g in (bundle.graph("cnn"), model.SerializeToString()))
        np.testing.assert_array_equal(before["probabilities"], after["probabilities"])


needs_qemu = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 (Debian's qemu-user)")


@needs_qemu
def test_a_processor_that_saturates_gives_the_same_answers_with_7_bits_and_others_with_8(bundle: Bundle):
    x = pictures(6, 4)
    x[:] = np.maximum(x, 200)  # bright: activations near the end of their range
    candidates = Candidates(bundle.graph("cnn"), [{"pixels": x}])
    moved = {}
    for form in (STATIC, WIDE):
        graph = candidates.build(form, "min-max", candidates.weighted(form))
        here = Engine(graph, threads=1).run({"pixels": x})["probabilities"]
        with EmulatedSession(graph, "avx2") as session:
            (there,) = session.run(["probabilities"], {"pixels": x})
        moved[form.bits] = float(np.abs(here - there).max())
    assert moved[7] < 1e-5
    if processor_class() == "vnni":
        assert moved[8] > 1e-3


@needs_qemu
def test_a_class_that_is_asked_for_is_judged_and_recorded(bundle: Bundle):
    report = quantize_bundle(bundle, cnn_judge(bundle), allowed=0.2, also=["avx2"])
    assert [(one.processor, one.emulated, one.within) for one in report.judgements][1:] == [("avx2", True, True)]
    budget = Bundle.open(bundle.path).model("cnn").variants["int8"].budget
    assert budget is not None
    assert set(budget.recorded_changed) == set(budget.decisions_changed) == {processor_class(), "avx2"}
    assert budget.recorded_changed["avx2"].of == 24


@needs_qemu
def test_a_class_on_which_the_budget_is_missed_refuses_the_variant(bundle: Bundle):
    def told(pipeline, part, value):
        emulated = isinstance(getattr(pipeline.engine.session, "_session", None), EmulatedSession)
        return value - 0.5 * emulated

    before = contents(bundle.path)
    report = quantize_bundle(bundle, cnn_judge(bundle, told), allowed=0.2, also=["avx2"])
    assert report.written is None
    assert report.reason == "the budget is missed on the data that judges, on avx2"
    assert contents(bundle.path) == before


def test_an_emulator_that_is_not_installed_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DeviceError, match=r"qemu-x86_64, which is not installed; .* apt-get install qemu-user"):
        quantize_bundle(bundle, cnn_judge(bundle), allowed=0.2, also=["avx2"])
