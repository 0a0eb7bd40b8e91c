"""Modules of every kind through the gate, and the bundle that comes out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from exporters.errors import ExportError, GuardError
from exporters.export import ExportedModel, assemble, export, export_model
from exporters.graphs import operators
from exporters.image import letterbox, non_maximum_suppression
from exporters.spec import Case, Input, Output
from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.errors import BundleError
from runtime.manifest import StateSpec
from runtime.verify import verify
from tests.exporters.networks import IMAGE, OUTPUTS, SCORES, VECTOR, SmallClassifier, perceptron, picture_cases


@pytest.fixture(scope="module")
def bundle(exported: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundle") / "pictures.edge"
    return assemble(
        path,
        name="pictures",
        task="classify",
        models={"small": exported},
        version="1.2.3",
        license="CC0-1.0",
        description="Five kinds of pictures.",
        pipeline={"kinds": list("abcde")},
        files={"notice": ("NOTICE", b"made for a test\n")},
        provenance={"seed": 7, "data": "synthetic"},
    )


def test_the_bundle_is_whole_and_verifies(bundle: Bundle) -> None:
    report = verify(bundle)
    assert report, str(report)
    assert {check.output for check in report.checks} == {"probabilities", "level"}
    assert all(check.cases >= 10 for check in report.checks)
    again = Bundle.open(bundle.path)
    assert again.manifest == bundle.manifest
    assert again.read("NOTICE") == b"made for a test\n"
    assert sorted(path.name for path in Path(bundle.path).iterdir()) == [
        "NOTICE",
        "manifest.json",
        "small.golden.npz",
        "small.onnx",
        "small.trace.npz",
    ]


def test_the_manifest_says_what_was_measured(bundle: Bundle, exported: ExportedModel) -> None:
    manifest = bundle.manifest
    assert (manifest.name, manifest.version, manifest.task) == ("pictures", "1.2.3", "classify")
    parity = manifest.models["small"].parity
    assert parity is not None
    assert parity.reference == "torch float64"
    assert parity.outputs["level"].decision == "round"
    assert parity.outputs["level"].mutant
    assert parity.outputs["level"].noise
    assert manifest.provenance["opset"] == 18
    assert manifest.provenance["ir_version"] == 8
    assert manifest.provenance["torch"] == torch.__version__
    assert (manifest.provenance["seed"], manifest.provenance["data"]) == (7, "synthetic")
    assert "untrained" not in manifest.provenance
    assert json.dumps(manifest.to_json())


def test_the_graph_is_clean_and_tells_what_it_is(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.graph("small"))
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "bundle": "pictures",
        "version": "1.2.3",
        "task": "classify",
        "schema_version": "1",
        "model": "small",
    }
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    text = bundle.graph("small")
    assert b".py" not in text, "no stack traces, no paths of this machine"
    assert not model.functions
    axes = [dimension.dim_param or dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["N", "H", "W", 3]
    assert [node.name for node in model.graph.node if node.op_type == "Conv"] == [
        "norm/Conv",  # torch's own folding joins the convolution and its normalisation
        "depthwise/Conv",
        "pointwise/Conv",
    ]


def test_golden_answers_are_float64_and_of_other_sizes(bundle: Bundle) -> None:
    golden = bundle.golden("small")
    assert len(golden) >= 8
    assert all(array.dtype == np.float64 for case in golden for array in case.outputs.values())
    assert {len(case.inputs["image"]) for case in golden} >= {1, 2, 7, 32}


def test_the_same_module_gives_the_same_bytes(classifier: SmallClassifier, exported: ExportedModel) -> None:
    again = export_model(classifier, inputs=[IMAGE], outputs=OUTPUTS, cases=picture_cases())
    assert again.graph == exported.graph
    assert again.trace == exported.trace
    assert again.parity == exported.parity


def test_the_module_is_left_as_it_was(classifier: SmallClassifier) -> None:
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    classifier.head.weight.data[0, 0] = 1e-39
    try:
        export_model(classifier, inputs=[IMAGE], outputs=OUTPUTS, cases=picture_cases())
        assert classifier.head.weight[0, 0] != 0, "the flush works on a copy"
        assert classifier.head.weight.requires_grad
        assert not classifier.training
    finally:
        classifier.load_state_dict(before)


def test_a_perceptron_needs_nothing_but_its_signature(tmp_path: Path) -> None:
    module = perceptron()
    written = export(module, tmp_path / "p.edge", name="p", task="demo", inputs=[VECTOR], outputs=[SCORES])
    assert verify(written)
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    with Engine(written.graph("p"), spec=written.model("p")) as engine:
        np.testing.assert_allclose(engine.run(x)["y"], module(torch.from_numpy(x)).detach(), atol=1e-6)
    # A bundle may be replaced; what is no bundle may not.
    export(module, tmp_path / "p.edge", name="p", task="demo", inputs=[VECTOR], outputs=[SCORES])
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(BundleError):
        export(module, tmp_path / "mine", name="p", task="demo", inputs=[VECTOR], outputs=[SCORES])
    assert (tmp_path / "mine").read_text() == "precious"


def test_several_inputs_and_outputs_with_a_carried_state() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.state = nn.Linear(4, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor, h: Tensor, scale: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            new = torch.tanh(self.input(x) + self.state(h)) * scale
            return new, (new.argmax(dim=1), new.sum(dim=1))

    torch.manual_seed(0)
    inputs = [Input("x", "float32", ("B", 4)), Input("h0", "float32", ("B", 8)), Input("scale", "float32", ())]
    outputs = [
        Output("hn", "float32", ("B", 8)),
        Output("best", "int64", ("B",)),
        Output("sum", "float32", ("B",)),
    ]
    state = [StateSpec("h0", "hn", ("B", 8), "float32")]
    model = export_model(Cell().eval(), inputs=inputs, outputs=outputs, state=state)
    assert model.state == tuple(state)
    assert model.parity.outputs["best"].decision == "exact"
    wrong = [StateSpec("h0", "h1", ("B", 8), "float32")]
    with pytest.raises(GuardError, match="state h0 -> h1"):
        export_model(Cell().eval(), inputs=inputs, outputs=outputs, state=wrong)


def test_a_sequence_of_any_length() -> None:
    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(4, 8, 5, padding=2), nn.Conv1d(8, 3, 3, padding=1, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(x.mT))).mT

    torch.manual_seed(0)
    model = export_model(
        Convolutions().eval(),
        inputs=[Input("x", "float32", ("N", "T", 4))],
        outputs=[Output("y", "float32", ("N", "T2", 3))],
        sizes={"N": [1, 2, 7], "T": [1, 2, 9, 33, 200]},
    )
    graph = onnx.load_from_string(model.graph)
    axes = [
        dimension.dim_param or dimension.dim_value for dimension in graph.graph.output[0].type.tensor_type.shape.dim
    ]
    assert axes == ["N", "T2", 3]
    assert operators(graph)["Conv"] == 2
    assert {case.inputs["x"].shape[1] for case in model.golden} >= {1, 2, 9, 33, 200}


def test_token_ids_and_a_mask() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(11, 8), nn.Linear(8, 4)

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            x = self.embedding(tokens) * mask[..., None].to(self.head.weight.dtype)
            return self.head(x.cumsum(dim=1))

    torch.manual_seed(0)
    model = export_model(
        Tagger().eval(),
        inputs=[Input("tokens", "int64", ("N", "T"), limits=(0, 10)), Input("mask", "bool", ("N", "T"))],
        outputs=[Output("logits", "float32", ("N", "T", 4), decision="argmax")],
        sizes={"T": [1, 3, 50]},
    )
    assert {mutant.layer for mutant in model.report.mutants} == {"embedding.weight", "head.weight"}


def test_a_detector_with_any_number_of_answers() -> None:
    class Detector(nn.Module):
        """Bright spots of a photo."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 4, stride=4)

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            square, placement = letterbox(image, 32, 32, dtype=self.conv.weight.dtype)
            found = self.conv(square / 255)[0].flatten(1).T  # (M, 5)
            corner = found[:, :2].abs() * 20
            boxes = torch.cat([corner, corner + found[:, 2:4].abs() * 10 + 1], dim=1)
            scores = found[:, 4].sigmoid()
            kept = non_maximum_suppression(boxes, scores, iou_threshold=0.4, score_threshold=0.6, max_detections=20)
            return boxes[kept] / placement[0], scores[kept]

    torch.manual_seed(1)
    module = Detector().eval()
    module.conv.bias.data.zero_()
    rng = np.random.default_rng(3)
    shapes = [(32, 40), (57, 33), (64, 64), (100, 31), (20, 90), (5, 7), (1, 1), (128, 77), (3, 200)]
    cases = [Case(f"{h}x{w}", {"image": rng.integers(0, 256, (h, w, 3), dtype=np.uint8)}) for h, w in shapes]
    cases.append(Case("black", {"image": np.zeros((16, 16, 3), np.uint8)}))
    model = export_model(
        module,
        inputs=[Input("image", "uint8", ("H", "W", 3))],
        outputs=[Output("boxes", "float32", ("D", 4)), Output("scores", "float32", ("D",))],
        cases=cases,
    )
    counts = {len(case.outputs["scores"]) for case in model.golden}
    assert 0 in counts
    assert len(counts) > 3


def test_denormal_weights_are_set_to_zero_and_counted() -> None:
    module = perceptron()
    module.first.weight.data[0, :4] = torch.tensor([1e-39, -1e-30, 1e-21, 1e-19])
    model = export_model(module, inputs=[VECTOR], outputs=[SCORES])
    assert model.report.flushed == 3
    assert "denormal weights set to zero: 3; every answer stays within its tolerance" in str(model.report)
    arrays = [onnx.numpy_helper.to_array(i) for i in onnx.load_from_string(model.graph).graph.initializer]
    floats = np.concatenate([array.ravel() for array in arrays if array.dtype == np.float32])
    assert not np.any((floats != 0) & (np.abs(floats) < 1e-20))
    assert np.any(floats == np.float32(1e-19))


def test_denormals_that_folding_makes_are_flushed_too() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x))

    torch.manual_seed(0)
    module = Folded().eval()
    module.conv.weight.data[0, 0] = 1e-15
    module.norm.weight.data[0] = 1e-10
    outputs = [Output("y", "float32", ("N", 3, "H", "W"))]
    model = export_model(module, inputs=[Input("x", "float32", ("N", 2, "H", "W"))], outputs=outputs)
    assert model.report.flushed == 1


def test_sizes_that_torch_itself_refuses_are_left_out_and_told() -> None:
    class Valid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).amax(dim=2)

    torch.manual_seed(0)
    inputs, outputs = [Input("x", "float32", ("N", 2, "T"))], [Output("y", "float32", ("N", 3))]
    model = export_model(Valid().eval(), inputs=inputs, outputs=outputs)
    assert any(note.startswith("left out, torch refuses it: N=2 T=1") for note in model.report.notes)
    assert str(model.dimensions["T"]) == "5 or more"
    # A size that was asked for by name is another matter.
    with pytest.raises(GuardError, match="forward itself fails in torch float32"):
        export_model(Valid().eval(), inputs=inputs, outputs=outputs, sizes={"T": [1, 7, 33]})


def test_a_module_without_weights_has_a_lower_side_only() -> None:
    class Normalise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.norm(dim=1, keepdim=True).clamp(min=1e-6)

    model = export_model(Normalise().eval(), inputs=[VECTOR], outputs=[Output("y", "float32", ("N", 6))])
    assert model.parity.outputs["y"].mutant is None
    assert any("lower side only" in note for note in model.report.notes)


def test_a_layer_that_changes_nothing_is_told() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.live, self.dead = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.live(x) + torch.relu(self.dead(x) - 100)

    torch.manual_seed(0)
    model = export_model(Dead().eval(), inputs=[VECTOR], outputs=[SCORES])
    assert any("dead or unused: dead.weight" in note for note in model.report.notes)


def test_untrained_models_are_recorded(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x * 1e-4) + 1000

    torch.manual_seed(0)
    outputs = [SCORES]
    written = export(
        Flat().eval(), tmp_path / "f.edge", name="f", task="t", inputs=[VECTOR], outputs=outputs, untrained=True
    )
    assert written.manifest.provenance["untrained"] == ["f"]
    assert verify(written)


def test_files_of_a_bundle_have_names_of_their_own(exported: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"small\.onnx"):
        assemble(tmp_path / "b.edge", name="b", task="t", models={"small": exported}, files={"x": ("small.onnx", b"")})
    with pytest.raises(ExportError, match="at least one model"):
        assemble(tmp_path / "b.edge", name="b", task="t", models={})
    assert list(tmp_path.iterdir()) == []


def test_the_trace_is_plain_numbers(exported: ExportedModel) -> None:
    with np.load(io.BytesIO(exported.trace), allow_pickle=False) as trace:
        assert trace["fingerprints"].shape == (len(trace["values"]), 5)
        assert str(trace["case"]) in {case.name for case in exported.golden}
