"""Real targets: ARM under emulation and releases of ONNX Runtime prove what is right, and catch mutants.

They need packages of Debian and of the package index: `make test-targets` installs what it takes and runs them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exporters.assemble import ExportedModel, ExportedVariant, assemble
from exporters.explain import explain
from exporters.export import export_model
from exporters.quantize import search
from exporters.quantize.quantize import quantize_bundle
from exporters.spec import Case, Input, Output
from exporters.targets.arithmetic import probe
from exporters.targets.base import Target, TargetError
from exporters.targets.known import find_target
from exporters.targets.prove import prove
from runtime.bundle import Bundle
from runtime.manifest import StateSpec
from runtime.turns import Ratio
from tests.exporters.test_mutants_caught import resize_asymmetric, swap_channels, to_float16
from tests.small_cnn import cnn_judge, write_cnn_bundle

pytestmark = pytest.mark.targets

ARM = ("arm64/cortex-a53", "arm64/cortex-a72", "arm64/cortex-a76", "armhf")
CLASSES = {"arm64/cortex-a53": "arm", "arm64/cortex-a72": "arm", "arm64/cortex-a76": "arm-dot", "armhf": "arm"}


@pytest.fixture(scope="module", params=[*ARM, "onnxruntime==1.21.1"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with ready(request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def arm64() -> Iterator[Target]:
    with ready("arm64") as opened:
        yield opened


def ready(name: str) -> Target:
    found = find_target(name)
    try:
        found.open()
    except TargetError as error:
        pytest.skip(str(error))
    return found


class Stepping(nn.Module):
    """Two units that remember, and a division by what they saw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = nn.GRU(3, 8, batch_first=True)
        self.readout = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, h0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        steps, hn = self.recurrent(x, h0)
        return self.readout(steps) / (1 + x.abs().sum(-1, keepdim=True)), hn


@pytest.fixture(scope="module")
def stepping() -> ExportedModel:
    rng = np.random.default_rng(0)
    state = (1, "B", 8)
    cases = [
        Case(f"{b} rows, {t} steps", {"x": rng.normal(size=(b, t, 3)), "h0": rng.normal(size=(1, b, 8))})
        for b, t in ((1, 1), (1, 33), (2, 7), (7, 12), (3, 200))
    ]
    cases = [Case(case.name, {k: v.astype(np.float32) for k, v in case.inputs.items()}) for case in cases]
    return export_model(
        Stepping().eval(),
        inputs=[Input("x", "float32", ("B", "T", 3)), Input("h0", "float32", state)],
        outputs=[Output("y", "float32", ("B", "T", 2)), Output("hn", "float32", state)],
        state=[StateSpec("h0", "hn", state, "float32")],
        cases=cases,
    )


def bundle_of(model: ExportedModel, path: Path, mutate: Callable[[onnx.ModelProto], None] | None = None) -> Bundle:
    graph = onnx.load_from_string(model.graph)
    if mutate is not None:
        mutate(graph)
    variants = {"fp32": ExportedVariant(graph.SerializeToString())}
    return assemble(path, name="b", task="t", models={"m": replace(model, variants=variants)})


@pytest.mark.parametrize("network", ["exported", "stepping"])
def test_what_is_right_here_is_right_there(target: Target, network: str, request, tmp_path: Path):
    report = prove(bundle_of(request.getfixturevalue(network), tmp_path / "b.edge"), target)
    assert report, str(report)
    (proof,) = report.proofs
    assert (proof.changed, proof.emulated) == (0, target.name in ARM)
    assert proof.share < 1
    assert 0 < proof.cases <= proof.recorded
    assert (proof.p50_ms is None) == target.emulated
    if target.name in CLASSES:
        assert proof.processor_class == CLASSES[target.name]


def state_not_carried(model: onnx.ModelProto) -> None:
    (gru,) = [node for node in model.graph.node if node.op_type == "GRU"]
    assert gru.input[5]
    gru.input[5] = ""


MUTANTS = {
    "channels swapped": ("exported", swap_channels),
    "another convention of resize": ("exported", resize_asymmetric),
    "one weight rounded": ("exported", to_float16("pointwise/Conv")),
    "state not carried": ("stepping", state_not_carried),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught_there_too(target: Target, name: str, request, tmp_path: Path):
    network, mutate = MUTANTS[name]
    report = prove(bundle_of(request.getfixturevalue(network), tmp_path / "b.edge", mutate), target)
    assert not report, f"{name} went unnoticed on {target.name}:\n{report}"
    assert [proof.ok for proof in report.proofs] == [False]


def test_the_first_node_that_differs_there_is_named(arm64: Target, exported: ExportedModel, tmp_path: Path):
    bundle = bundle_of(exported, tmp_path / "b.edge", to_float16("pointwise/Conv"))
    difference = explain(bundle, "m", opened=arm64.session)
    assert difference is not None
    assert difference.node == "pointwise/Conv"


def test_division_is_an_estimate_on_32_bits_only():
    with ready("armhf") as old:
        assert probe(old) == {"Div": pytest.approx(8e-6, rel=0.1), "Reciprocal": pytest.approx(8e-6, rel=0.1)}
    with ready("arm64") as new:
        assert probe(new) == {}


@pytest.mark.parametrize("kind", ["arm", "arm-dot"])
def test_int8_is_judged_on_arm(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search, "compare_speed", lambda *_: Ratio(2.0, 1.9, 2.1))
    bundle = write_cnn_bundle(tmp_path / "cnn.edge")
    try:
        report = quantize_bundle(bundle, cnn_judge(bundle), allowed=0.2, also=[kind])
    except TargetError as error:
        pytest.skip(str(error))
    assert [(one.processor, one.emulated, one.within) for one in report.judgements][1:] == [(kind, True, True)]
    written = Bundle.open(bundle.path)
    budget = written.model("cnn").variants["int8"].budget
    assert budget is not None
    assert budget.recorded_changed[kind].of == 24
    with ready("arm64/cortex-a76" if kind == "arm-dot" else "arm64") as target:
        proven = prove(written, target, "int8")
    assert proven
    assert proven.proofs[0].changed == budget.recorded_changed[kind].changed


def test_a_release_without_wheels_for_this_python_says_so():
    if shutil.which("pip") is None:
        pytest.skip("needs pip")
    with pytest.raises(TargetError, match=r"pip cannot install onnxruntime==0\.1\.0 .* a release has wheels for"):
        find_target("onnxruntime==0.1.0").open()
